"""Structures with their ideal crystals from databases and files."""

from __future__ import annotations

import ase.db
import ase.io
import numpy as np
import pytest
from ase.build import bulk
from ase.units import Bohr, Hartree, kcal, mol

from schnetpack_phonon.common.errors import DatabaseError, UnitError
from schnetpack_phonon.data.database import write_database
from schnetpack_phonon.data.export import write_extxyz
from schnetpack_phonon.data.reading import read_labels, read_rows, read_structures
from schnetpack_phonon.ensembles.base import Snapshot
from tests.models.model_fixtures import thermal


@pytest.mark.parametrize("content", [b"no database", b"SQLite format 3\0" + bytes(200)])
def test_files_that_are_no_database(tmp_path, content):
    (tmp_path / "x.db").write_bytes(content)
    for read in (read_labels, read_structures, lambda path: next(read_rows(path, [0]))):
        with pytest.raises(DatabaseError, match=r"x\.db is no ASE database, or is damaged"):
            read(tmp_path / "x.db")


def test_rows_of_ours_bring_their_ideal_crystal(built):
    found = read_structures(built.datapath, [3, 0])
    assert [s.index for s in found] == [3, 0]
    everything = read_structures(built.datapath)
    for one in found:
        assert one == everything[one.index]
        assert one.name in ("Cu3PdAu", "Cu3PtAu")
        assert 0 < np.abs(one.displaced.positions - one.ideal.positions).max() < 1
        np.testing.assert_array_equal(one.ideal.cell, one.displaced.cell)
    (row,) = read_rows(built.datapath, [3])
    assert row.ideal == found[0].ideal
    assert {"structure", "parent"} <= row.key_value_pairs.keys()
    assert [k.key_value_pairs for k in read_rows(built.datapath, data=False)][3] == row[2]
    assert len(everything) == 16


def test_rows_bring_masses_and_moments(tmp_path):
    """Those of the crystal, where they are not natural or not zero; also in files made of rows."""
    atoms = bulk("Cr", a=2.9, cubic=True)
    atoms.set_masses([50.0, 52.0])
    atoms.set_initial_magnetic_moments([1.0, -1.0])
    path, target = tmp_path / "x.db", tmp_path / "x.extxyz"
    labels = {"energy": np.zeros(1)}
    snapshot = Snapshot(atoms, atoms, "Cr", "phonon", "temperature", 300.0, 0, 0, "Cr/0")
    write_database(path, [snapshot], [labels], {}, {"n_rows": 1})
    (row,) = read_rows(path)
    write_extxyz(path, target)
    for found in (row.atoms, row.ideal, ase.io.read(target)):
        np.testing.assert_array_equal(found.get_masses(), [50.0, 52.0])
        np.testing.assert_array_equal(found.get_initial_magnetic_moments(), [1.0, -1.0])


def test_other_files(tmp_path):
    pairs = [thermal(seed) for seed in range(3)]
    ase.io.write(tmp_path / "x.extxyz", [displaced for _, displaced in pairs])
    with ase.db.connect(tmp_path / "x.db") as db:
        for _, displaced in pairs:
            db.write(displaced)
    for name in ("x.extxyz", "x.db"):
        path = tmp_path / name
        assert [s.ideal for s in read_structures(path)] == [None] * 3
        (found,) = read_structures(path, [2], pairs[0][0])
        assert found.ideal is pairs[0][0]
        np.testing.assert_allclose(found.displaced.positions, pairs[2][1].positions, atol=1e-7)
        with pytest.raises(ValueError, match="has 3 structures; there is no index 3"):
            read_structures(path, [3])
    with pytest.raises(FileNotFoundError, match="no database"):
        read_structures(tmp_path / "y.db")


def foreign(path, length, size, stored, **units):
    """Two structures of copper as SchNetPack stores them in other units."""
    atoms = [bulk("Cu", a=a) for a in (3.5, 3.6)]
    for one in atoms:
        one.rattle(0.1, seed=1)
    with ase.db.connect(path) as db:
        for k, one in enumerate(atoms):
            given = one.copy()
            given.set_cell(one.cell / length, scale_atoms=True)
            data = {"energy": np.array([k - 4.0]) / size, "mine": np.array([7.0])}
            db.write(given, data=data, structure="Cu")
        db.metadata = {"_distance_unit": stored, "_property_unit_dict": units}
    return atoms


@pytest.mark.parametrize(
    ("stored", "unit", "length", "energy"),
    [("Bohr", "Hartree", Bohr, Hartree), ("Ang", "kcal/mol", 1.0, kcal / mol), ("nm", "eV", 10, 1)],
)
def test_units_of_other_databases_are_converted(tmp_path, stored, unit, length, energy):
    """On every path: structures, rows and labels; those of keys that are not ours stay."""
    expected = foreign(tmp_path / "x.db", length, energy, stored, energy=unit, mine="kcal/mol")
    for found in (
        [s.displaced for s in read_structures(tmp_path / "x.db")],
        [row.atoms for row in read_rows(tmp_path / "x.db", [0, 1], data=False)],
    ):
        for one, atoms in zip(found, expected, strict=True):
            np.testing.assert_allclose(one.positions, atoms.positions, atol=1e-9)
            np.testing.assert_allclose(one.cell, atoms.cell, atol=1e-9)
    labels = read_labels(tmp_path / "x.db")
    np.testing.assert_allclose(labels["energy"], [-4, -3], rtol=1e-9)
    assert list(labels["mine"]) == [7, 7]


@pytest.mark.parametrize(
    ("stored", "unit", "named"),
    [("A", "eV", "distance is in 'A'"), ("Ang", "Ry^2", "energy is in")],
)
def test_units_that_are_not_known_are_refused(tmp_path, stored, unit, named):
    foreign(tmp_path / "x.db", 1, 1, stored, energy=unit)
    with pytest.raises(UnitError, match=rf"x\.db: {named}.* expected '"):
        read_structures(tmp_path / "x.db")
