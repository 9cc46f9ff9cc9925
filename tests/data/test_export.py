"""What other programs find in an exported store."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from ase.io import read
from schnetpack.data import ASEAtomsData

from schnetpack_phonon.common import properties
from schnetpack_phonon.common.errors import LabellingError
from schnetpack_phonon.data.export import export
from schnetpack_phonon.labels.relaxation import relax_job
from schnetpack_phonon.labels.store import LabelStore, Record
from tests.data.data_fixtures import copper, failure, labelled_copper, record


@pytest.fixture
def path(store, emt, rock_salt):
    """Three labels, one of them with a gap, a failure, two relaxations, and two without input."""
    gap = labelled_copper(3)
    gap.labels[properties.band_gap] = np.array([0.5])
    relaxation = relax_job(emt, rock_salt)
    cell = {"cell": np.eye(3), "positions": np.zeros((2, 3))}
    relaxed = Record(relaxation.key, cell, None, relaxation.input)
    ions = labelled_copper(4)
    ions = replace(ions, input=replace(ions.input, task="label relaxed"))
    several = (labelled_copper(1), labelled_copper(2), gap, labelled_copper(10))
    for item in (*several, relaxed, ions, record(20), failure(30)):
        store.add(item)
    return store.path


def test_extxyz(path, tmp_path):
    """Structures, energies, forces and stresses as ASE knows them, and where they come from."""
    target = tmp_path / "out.extxyz"
    text = export(path, target)
    assert f"{target}: 3 records; left out: relax (1), label relaxed (1), records of old" in text
    found = read(target, ":")
    for number, atoms in zip((1, 2, 3), found, strict=True):
        labels = labelled_copper(number).labels
        np.testing.assert_allclose(atoms.positions, copper(number).positions, atol=1e-7)
        assert atoms.get_potential_energy() == pytest.approx(labels["energy"].item())
        np.testing.assert_allclose(atoms.get_forces(), labels["forces"], atol=1e-7)
        np.testing.assert_allclose(atoms.get_stress(voigt=False), labels["stress"][0], atol=1e-9)
        assert (atoms.info["key"], atoms.info["code"]) == (f"h{number}", "ase 3.25")
        assert atoms.info["description"] == f"copper {number}"
    assert found[2].info["band_gap"] == 0.5
    assert "band_gap" not in found[0].info


def test_database_that_the_host_reads(path, tmp_path):
    """In its units; NaN where one structure has a label that others have not."""
    target = tmp_path / "out.db"
    assert f"{target}: 3 records" in export(path, target)
    dataset = ASEAtomsData(str(target), property_units={properties.forces: "eV/nm"})
    assert len(dataset) == 3
    np.testing.assert_allclose(
        dataset[1][properties.forces], 10 * labelled_copper(2).labels["forces"], rtol=1e-6
    )
    gaps = [dataset[i][properties.band_gap].item() for i in range(3)]
    np.testing.assert_array_equal(gaps, [np.nan, np.nan, 0.5])


def test_levels_of_different_meshes(store, tmp_path):
    """SchNetPack puts them in one batch; further k-points are NaN, so is a third one."""
    several = [labelled_copper(number) for number in (1, 2, 3)]
    for n, item in zip((1, 2), several, strict=False):
        item.labels[properties.levels] = np.full((1, n, 6), float(n))
        item.labels[properties.kpoints] = np.full((1, n, 4), float(n))
    for item in several:
        store.add(item)
    export(store.path, tmp_path / "out.db")
    dataset = ASEAtomsData(str(tmp_path / "out.db"))
    assert dataset.units[properties.levels] == "eV"
    rows = [dataset[k] for k in range(3)]
    for key, width in ((properties.levels, 6), (properties.kpoints, 4)):
        expected = np.full((3, 2, width), np.nan)
        expected[0, 0], expected[1] = 1.0, 2.0
        np.testing.assert_array_equal(np.concatenate([row[key] for row in rows]), expected)
    other = labelled_copper(4)
    other.labels[properties.levels] = np.ones((1, 1, 4))
    store.add(other)
    with pytest.raises(LabellingError, match="n_levels=2 and 3; expected one number"):
        export(store.path, tmp_path / "other.db")


def test_table(path, tmp_path):
    """Also of what a store without inputs holds."""
    export(path, tmp_path / "out.csv")
    table = pd.read_csv(tmp_path / "out.csv").set_index("key")
    assert list(table.index) == ["h1", "h2", "h3", "h20"]
    assert table.loc["h2", "energy"] == labelled_copper(2).labels["energy"].item()
    assert table.loc["h20", "energy"] == record(20).labels["energy"].item()
    assert table.loc["h1", ["formula", "n_atoms", "task"]].tolist() == ["Cu32", 32, "label"]
    assert table["band_gap"].isna().tolist() == [True, True, False, True]
    assert "forces" not in table


def test_failed_ones_with_their_reasons(path, tmp_path):
    """To look at the structures, and to calculate them by hand."""
    export(path, tmp_path / "failed.extxyz", failed=True)
    atoms = read(tmp_path / "failed.extxyz")
    np.testing.assert_allclose(atoms.positions, copper(10).positions, atol=1e-7)
    assert atoms.calc is None
    assert atoms.info["error"] == "CalculationFailed: not converged"
    export(path, tmp_path / "failed.csv", failed=True)
    table = pd.read_csv(tmp_path / "failed.csv")
    assert table["error"].tolist() == ["CalculationFailed: not converged", "no convergence"]


def test_what_cannot_be_exported(path, store, tmp_path):
    with pytest.raises(LabellingError, match=r"labels.xlsx: expected .extxyz, .db or .csv"):
        export(path, tmp_path / "labels.xlsx")
    (tmp_path / "mine.csv").write_text("mine")
    with pytest.raises(LabellingError, match=r"mine.csv exists already"):
        export(path, tmp_path / "mine.csv")
    assert (tmp_path / "mine.csv").read_text() == "mine"
    old = LabelStore(tmp_path / "old.jsonl")
    old.add(record(1))
    with pytest.raises(LabellingError, match=r"nothing to export .*left out: records of old"):
        export(old.path, tmp_path / "old.extxyz")
    assert not (tmp_path / "old.extxyz").exists()
