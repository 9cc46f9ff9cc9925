"""Test sets of any source, and what a model has seen of them."""

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk
from ase.calculators.emt import EMT
from ase.calculators.singlepoint import SinglePointCalculator
from ase.io import read, write

from schnetpack_phonon.common.digests import structure_digest
from schnetpack_phonon.common.errors import HeldOutError
from schnetpack_phonon.data.export import write_extxyz
from schnetpack_phonon.ensembles.independent import RandomEnsemble
from schnetpack_phonon.ensembles.strained import StrainedEnsemble
from schnetpack_phonon.ensembles.thermal import MatchedEnsemble, PhononEnsemble
from schnetpack_phonon.evaluation.test_sets import ensemble_name, read_test_set, seen, stacked
from tests.data.data_fixtures import ensemble_data
from tests.evaluation.comparison.comparison_fixtures import databases


@pytest.fixture(scope="module")
def paths(tmp_path_factory):
    return databases(tmp_path_factory.mktemp("held_out"))


def test_database_of_ours(paths):
    found = read_test_set(paths["phonon"])
    assert found.name == "phonon"
    assert set(found.rows["group"]) == {"phonon, 100 K", "phonon, 300 K"}
    assert set(found.rows["structure"]) == {"Cu3PdAu", "Cu3PtAu"}
    assert len(found.atoms) == len(found.labels) == 16
    assert found.units["energy_per_atom"] == "eV"
    assert found.calculator["code"] == "ase.calculators.emt.EMT"
    assert read_test_set(paths["random"]).name == "random (one-sided)"


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


def test_digest_is_of_structure_alone(tmp_path):
    atoms = Atoms("CuAu", [[0, 0, 0], [1.5, 1.5, 1.5]], cell=3 * np.eye(3), pbc=True)
    write(tmp_path / "same.extxyz", atoms)
    assert structure_digest(read(tmp_path / "same.extxyz")) == structure_digest(atoms)
    moved = atoms.copy()
    moved.positions[0, 0] += 1e-3
    assert structure_digest(moved) != structure_digest(atoms)


@pytest.mark.parametrize(
    ("ensemble", "name"),
    [
        (PhononEnsemble([300], n_snapshots=1, seed=1), "phonon"),
        (
            PhononEnsemble([300], n_snapshots=1, seed=1, statistics="classical"),
            "phonon (classical)",
        ),
        (RandomEnsemble([0.1], n_snapshots=1, seed=1, distribution="uniform"), "random (uniform)"),
        (MatchedEnsemble([300], n_snapshots=1, seed=1), "matched (site)"),
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
