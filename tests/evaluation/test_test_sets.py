"""Test sets from any source, what a model has seen of them, and their labels as components."""

import numpy as np
import pandas as pd
import pytest
from ase.build import bulk
from ase.calculators.emt import EMT
from ase.calculators.singlepoint import SinglePointCalculator
from ase.io import write

from schnetpack_phonon.common.errors import HeldOutError
from schnetpack_phonon.data.export import write_extxyz
from schnetpack_phonon.ensembles.independent import RandomEnsemble
from schnetpack_phonon.ensembles.strained import StrainedEnsemble
from schnetpack_phonon.ensembles.thermal import MatchedEnsemble, PhononEnsemble
from schnetpack_phonon.evaluation.test_sets import (
    cell,
    ensemble_name,
    read_test_set,
    seen,
    stacked,
)
from tests.data.data_fixtures import ensemble_data
from tests.evaluation.comparison.comparison_fixtures import databases
from tests.models.model_fixtures import data_module


@pytest.fixture(scope="module")
def paths(tmp_path_factory):
    return databases(tmp_path_factory.mktemp("held_out"))


def test_database_of_ours(paths):
    found = read_test_set(paths["phonon"])
    assert found.name == "phonon"
    assert set(found.rows["group"]) == {"phonon, 100 K", "phonon, 300 K"}
    assert set(zip(*found.rows[["kind", "parameter"]].T.to_numpy(), strict=True)) == {
        ("phonon", 100.0),
        ("phonon", 300.0),
    }
    assert set(found.rows["structure"]) == {"Cu3PdAu", "Cu3PtAu"}
    assert len(found.atoms) == len(found.labels) == 16
    assert found.units["energy_per_atom"] == "eV"
    assert found.calculator["code"] == "ase.calculators.emt.EMT"
    other = read_test_set(paths["random"])
    assert other.name == "random (one-sided)"
    assert set(other.rows["kind"]) == {"random (one-sided)"}


def test_only_related_structures_count_as_seen(paths, tmp_path):
    """The same snapshots in a longer database are seen; those of another seed are not."""
    own = read_test_set(paths["phonon"])
    index = np.arange(0, 8)
    assert list(np.flatnonzero(seen(own, index, own))) == list(index)
    assert not seen(own, index, read_test_set(paths["random"])).any()
    for name, seed, n_seen in (("longer", 1, 8), ("other", 2, 0)):
        ensemble = PhononEnsemble([100, 300], n_snapshots=6, seed=seed)
        path = tmp_path / "data" / f"{name}.db"
        ensemble_data(tmp_path, ensemble, datapath=str(path)).prepare_data()
        other = read_test_set(path)
        again = seen(own, index, other)
        assert again.sum() == n_seen
        assert set(other.rows["digest"][again]) == set(own.rows["digest"][index] if n_seen else [])


def test_strained_copies_of_a_training_snapshot_are_seen(paths, tmp_path):
    base = PhononEnsemble([100, 300], n_snapshots=4, seed=1)
    path = tmp_path / "data" / "strained.db"
    ensemble = StrainedEnsemble(base, strain=0.02, seed=3)
    ensemble_data(tmp_path, ensemble, datapath=str(path)).prepare_data()
    own, other = read_test_set(paths["phonon"]), read_test_set(path)
    assert other.name == "strained (phonon)"
    again = seen(own, np.arange(16), other)
    assert again.all() == (other.rows["parent"].isin(own.rows["parent"]).all())


def test_structures_in_a_file_are_those_of_the_database(paths, tmp_path):
    """Labels and digests survive extended XYZ; the calculator is then unknown."""
    write_extxyz(paths["phonon"], tmp_path / "md.extxyz")
    own, found = read_test_set(paths["phonon"]), read_test_set(tmp_path / "md.extxyz")
    assert found.name == "md"
    assert found.calculator is None
    assert list(found.rows["digest"]) == list(own.rows["digest"])
    for key in ("energy_per_atom", "hydrostatic_stress", "forces", "stress"):
        one, other = stacked(found.labels[key]), stacked(own.labels[key])
        np.testing.assert_array_equal(one.counts, other.counts)
        np.testing.assert_allclose(one.rows, other.rows, atol=1e-6)
    assert seen(own, np.array([2]), found).sum() == 1


def test_foreign_structures(tmp_path):
    atoms = bulk("Cu", cubic=True)
    atoms.rattle(0.1, seed=1)
    atoms.calc = EMT()
    energy, forces, stress = atoms.get_potential_energy(), atoms.get_forces(), atoms.get_stress()
    atoms.calc = SinglePointCalculator(atoms, energy=energy, forces=forces, stress=stress)
    atoms.info["band_gap"] = 1.5
    write(tmp_path / "one.extxyz", atoms)
    found = read_test_set(tmp_path / "one.extxyz")
    (label,) = found.labels.to_dict("records")
    assert label["energy_per_atom"] == pytest.approx(energy / 4)
    assert label["hydrostatic_stress"] == pytest.approx(stress[:3].mean())
    assert label["band_gap"] == 1.5
    np.testing.assert_allclose(label["forces"], forces)
    np.testing.assert_allclose(label["stress"][0, [0, 4, 8, 5, 2, 1]], stress)
    assert found.rows["structure"].item() == "Cu"
    assert found.rows["parent"].isna().all()


OPTIONS = {"n_snapshots": 1, "seed": 1}


@pytest.mark.parametrize(
    ("ensemble", "name"),
    [
        (PhononEnsemble([300], "classical", **OPTIONS), "phonon (classical)"),
        (RandomEnsemble([0.1], "uniform", **OPTIONS), "random (uniform)"),
        (MatchedEnsemble([300], **OPTIONS), "matched (site)"),
    ],
)
def test_names(ensemble, name):
    assert ensemble_name(ensemble.settings) == name


def test_files_that_are_no_test_sets(tmp_path):
    with pytest.raises(HeldOutError, match="no file"):
        read_test_set(tmp_path / "nowhere.db")
    for name in ("text.db", "text.extxyz"):
        (tmp_path / name).write_text("nonsense")
        with pytest.raises(HeldOutError, match=name):
            read_test_set(tmp_path / name)
    write(tmp_path / "bare.extxyz", bulk("Cu"))
    with pytest.raises(HeldOutError, match="no label"):
        read_test_set(tmp_path / "bare.extxyz")


@pytest.mark.parametrize(
    ("key", "shape", "n_atoms", "expected"),
    [
        ("band_gap", (1,), 5, ()),
        ("band_gap", (), 5, ()),
        ("stress", (1, 3, 3), 3, (1, 9)),
        ("elastic_tensor", (6, 6), 6, (1, 36)),
        ("forces", (5, 3), 5, (5, 3)),
        ("forces", (1, 3), 1, (1, 3)),
        ("of_the_user", (1, 4), 5, (1, 4)),
        ("charges_of_the_user", (5,), 5, (5, 1)),
    ],
)
def test_cells(key, shape, n_atoms, expected):
    value = np.random.default_rng(0).normal(size=shape)
    found = cell(key, value, n_atoms)
    assert np.shape(found) == expected
    np.testing.assert_array_equal(np.ravel(found), value.ravel())


def test_cell_without_any_number():
    """Is that of a structure without a label, as databases hold it."""
    assert np.isnan(cell("band_gap_spin", np.full((1, 2), np.nan), 5))
    assert np.shape(cell("band_gap_spin", np.array([[np.nan, 1.0]]), 5)) == (1, 2)


def test_means_and_largest_of_each_structure():
    """Against each structure alone; the second has no value."""
    rng = np.random.default_rng(1)
    cells = [rng.normal(size=(n, 3)) for n in (2, 5, 1)]
    values = stacked(pd.Series([cells[0], np.nan, *cells[1:]]))
    assert list(values.counts) == [2, 0, 5, 1]
    assert list(values.structure) == [0, 0, 2, 2, 2, 2, 2, 3]
    expected = [cells[0].mean(), np.nan, cells[1].mean(), cells[2].mean()]
    np.testing.assert_allclose(values.mean(values.rows), expected)
    expected = [cells[0].max(), np.nan, cells[1].max(), cells[2].max()]
    np.testing.assert_array_equal(values.largest(values.rows), expected)


def test_some_structures_in_any_order():
    cells = [np.full((n, 2), float(n)) for n in (2, 1, 3)]
    values = stacked(pd.Series([*cells, np.nan])).of(np.array([2, 3, 0]))
    assert list(values.counts) == [3, 0, 2]
    np.testing.assert_array_equal(values.rows, np.concatenate([cells[2], cells[0]]))


def test_numbers_are_rows_of_one_component():
    values = stacked(pd.Series([1.0, np.nan, 3.0]))
    np.testing.assert_array_equal(values.rows, [[1.0], [3.0]])
    assert stacked(pd.Series([np.nan, np.nan])).rows.shape == (0, 1)


@pytest.mark.parametrize("value", [np.inf, [1.0, np.nan]])
def test_labels_that_are_in_part_no_numbers_are_refused(tmp_path, value):
    """A missing label is NaN throughout; all else would be left out of errors."""
    frames = [bulk("Cu") for _ in range(2)]
    for k, atoms in enumerate(frames):
        atoms.info["band_gap"] = value if k else np.full(np.shape(value), np.nan)
    write(tmp_path / "x.extxyz", frames)
    with pytest.raises(HeldOutError, match="band_gap of structure 1 holds NaN or infinite"):
        read_test_set(tmp_path / "x.extxyz")
    write(tmp_path / "x.extxyz", [bulk("Ag"), *frames[:1]])
    with pytest.raises(HeldOutError, match="holds no label"):
        read_test_set(tmp_path / "x.extxyz")


def test_levels_at_kpoints_are_not_compared(tmp_path):
    """A structure may have fewer k-points than others, and NaN in their place."""
    levels = np.zeros((2, 2, 4))
    levels[1, 1] = np.nan
    labels = {"band_gap": [1.0, 2.0], "eigenvalues": levels, "kpoints": levels}
    data_module(tmp_path / "levels.db", [bulk("Cu"), bulk("Cu", a=3.7)], [0], **labels)
    assert [*read_test_set(tmp_path / "levels.db").labels] == ["band_gap"]
