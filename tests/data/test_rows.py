"""Labelled structures in files, whole or not at all."""

import ase.db
import numpy as np
import pytest
from ase.io import read

from schnetpack_phonon.common.errors import DatabaseError
from schnetpack_phonon.data.database import Row, write_db
from schnetpack_phonon.data.export import write_xyz
from tests.data.data_fixtures import copper


def rows(n, fail=False):
    for number in range(n):
        yield Row(copper(number), {"vbm": np.array([0.1 * number])}, {"parent": f"p{number}"})
    if fail:
        raise KeyboardInterrupt


def test_rows_of_an_iterator(tmp_path):
    """Written as they come, with the units of what they hold."""
    write_db(tmp_path / "data.db", rows(3), {"ours": 1})
    write_xyz(tmp_path / "data.extxyz", rows(3))
    with ase.db.connect(tmp_path / "data.db") as db:
        assert db.metadata["_property_unit_dict"] == {"vbm": "eV"}
        assert (db.metadata["_distance_unit"], db.metadata["ours"]) == ("Ang", 1)
        found = list(db.select())
    for number, (row, atoms) in enumerate(zip(found, read("data.extxyz", ":"), strict=True)):
        assert row.toatoms() == copper(number)
        np.testing.assert_allclose(atoms.positions, copper(number).positions, atol=1e-7)
        assert row.parent == atoms.info["parent"] == f"p{number}"
        assert row.data["vbm"].item() == atoms.info["vbm"] == 0.1 * number
        assert atoms.calc is None


@pytest.mark.parametrize("write", [lambda p, r: write_db(p, r, {}), write_xyz])
def test_interrupted_writing_leaves_nothing(write, tmp_path):
    with pytest.raises(KeyboardInterrupt):
        write(tmp_path / "data.db", rows(3, fail=True))
    assert list(tmp_path.iterdir()) == []


def test_existing_database_stays(tmp_path):
    write_db(tmp_path / "data.db", rows(1), {})
    before = (tmp_path / "data.db").read_bytes()
    with pytest.raises(DatabaseError, match="exists already"):
        write_db(tmp_path / "data.db", rows(2), {})
    assert (tmp_path / "data.db").read_bytes() == before
