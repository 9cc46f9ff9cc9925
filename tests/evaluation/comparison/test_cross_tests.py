"""Predictions of every run on every test set, against the models themselves."""

import ase.db
import ase.io
import numpy as np
import pandas as pd
import pytest
import torch
from ase.units import Bohr, Hartree
from schnetpack.atomistic import Forces
from schnetpack.interfaces import AtomsConverter
from schnetpack.transform import MatScipyNeighborList

from schnetpack_phonon.common.errors import ComparisonError
from schnetpack_phonon.common.files import Trust
from schnetpack_phonon.evaluation.comparison.coverage import distances_and_errors, rank_correlations
from schnetpack_phonon.evaluation.comparison.cross_tests import cross_test
from schnetpack_phonon.evaluation.comparison.uncertainty import error_matrix
from schnetpack_phonon.evaluation.runs import find_runs, read_run
from schnetpack_phonon.evaluation.test_sets import read_test_set
from schnetpack_phonon.models.heads import Energy
from schnetpack_phonon.models.trained.weights import load_trained
from tests.evaluation.comparison.comparison_fixtures import ENERGY, STRESS, databases, write_run


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("cross")
    for name, path in databases(folder).items():
        write_run(folder / "runs" / name, path, seed=1, train=range(1, 9), val=[9, 10])
    unfinished = write_run(folder / "runs" / "unfinished", path, seed=2, train=[1])
    (unfinished / "best_model").unlink()
    return folder


@pytest.fixture(scope="module")
def found(folder):
    return cross_test(find_runs([folder / "runs"]))


def test_all_runs_on_all_test_sets(found):
    counts = found.errors.groupby(["run", "test_set"]).size()
    assert set(counts) == {2 * 16, 2 * 6}  # two properties; own structures are left out
    assert [name.split("/")[-1] for name in found.skipped] == ["unfinished"]
    assert "not finished" in next(iter(found.skipped.values()))


def test_structures_that_a_run_has_seen_are_not_tested(found, folder):
    for name in ("phonon", "random"):
        run = read_run(folder / "runs" / name)
        own = read_test_set(run.datapath)
        used = set(own.rows["digest"].iloc[[*run.train_idx, *run.val_idx]])
        rows = found.errors[found.errors["run"] == str(run.folder)]
        assert not used & set(rows["digest"])
        unseen = set(own.rows["digest"].iloc[run.test_idx])
        assert unseen == set(rows.loc[rows["test_set"] == own.name, "digest"])


def test_errors_are_those_of_the_model(found, folder):
    run = read_run(folder / "runs" / "phonon")
    test_set = read_test_set(folder / "data" / "random.db")
    model = load_trained(run.model)
    convert = AtomsConverter(MatScipyNeighborList(cutoff=5.0))
    rows = found.errors.query("run == @run.folder.__str__() and property == @ENERGY")
    rows = rows[rows["test_set"] == test_set.name].set_index("digest")
    assert len(rows) == 16
    for k in (0, 7, 15):
        row = rows.loc[test_set.rows["digest"][k]]
        label = test_set.labels[ENERGY][k]
        expected = abs(model(convert(test_set.atoms[k].copy()))[ENERGY].item() - label)
        assert row["mae"] == pytest.approx(expected, abs=1e-5)
        assert row["mse"] == pytest.approx(expected**2, abs=1e-5)
        assert row["label"].item() == pytest.approx(label, abs=1e-12)


def test_forces_are_tested_by_component(folder):
    """Against the model and the mean force of the crystal's training structures."""
    heads = [Energy(16), Forces()]
    heads[1].output_key = "forces"
    path = folder / "data" / "phonon.db"
    run = write_run(folder / "forces", path, 1, range(1, 9), [9, 10], heads=heads)
    trust = Trust(everything=True)  # SchNetPack's Forces by another name: a pickle only
    rows = cross_test([run], trust=trust).errors.query("property == 'forces'").set_index("digest")
    own, model = read_test_set(path), load_trained(run / "best_model", trust)
    convert = AtomsConverter(MatScipyNeighborList(cutoff=5.0))
    assert len(rows) == 6  # 16 less those of training and validation
    train = pd.Series({k: own.labels["forces"][k] for k in range(1, 9)})
    for k in (0, 12, 15):
        row, label = rows.loc[own.rows["digest"][k]], own.labels["forces"][k]
        error = np.abs(model(convert(own.atoms[k].copy()))["forces"].detach().numpy() - label)
        assert row["n_values"] == label.size
        assert row["mae"] == pytest.approx(error.mean(), rel=1e-4)
        assert row["max_error"] == pytest.approx(error.max(), rel=1e-4)
        alike = [k for k in train.index if own.rows["structure"][k] == row["structure"]]
        mean = np.concatenate([*train[alike or train.index]]).mean(axis=0)
        assert row["mae_mean"] == pytest.approx(np.abs(label - mean).mean())


def test_labels_of_another_shape_are_refused(folder, tmp_path):
    frames = ase.io.read(folder / "data" / "phonon.db", ":")
    for atoms in frames:
        atoms.calc = None
        atoms.info = {ENERGY: np.zeros(3)}
    ase.io.write(tmp_path / "three.extxyz", frames)
    with pytest.raises(ComparisonError, match=r"energy_per_atom of phonon has the shape"):
        cross_test([folder / "runs" / "phonon"], [tmp_path / "three.extxyz"])


def test_mean_of_the_crystal_in_the_training_set(found, folder):
    run = read_run(folder / "runs" / "random")
    own = read_test_set(run.datapath)
    rows = found.errors.query("run == @run.folder.__str__() and property == @ENERGY")
    train = own.labels[ENERGY].iloc[run.train_idx]
    crystal = own.rows["structure"].iloc[run.train_idx]
    expected = {name: train[crystal == name].mean() for name in crystal.unique()}
    absent = set(own.rows["structure"]) - set(expected)
    for name, value in (expected | dict.fromkeys(absent, train.mean())).items():
        chosen = rows[rows["structure"] == name]
        label = np.concatenate([*chosen["label"]])[:, 0]
        np.testing.assert_allclose(chosen["mae_mean"], np.abs(label - value), atol=1e-12)


def test_structures_that_a_model_refuses_are_counted(folder):
    """Rows 1 to 7 are of Cu3PdAu."""
    run = write_run(folder / "palladium", folder / "data" / "phonon.db", 1, range(1, 7), [7])
    found = cross_test([run])
    (text,) = found.not_ranked
    assert "8 structures hold Pt, which it was not trained on; it knows Au, Cu, Pd" in text
    (energy, stress) = error_matrix(found.runs, found.errors).to_dict("records")
    assert (energy["n"], energy["n_invalid"]) == (stress["n"], stress["n_invalid"]) == (9, 8)
    assert np.isnan(energy["mae"])
    assert rank_correlations(distances(found))["left out"].item() == 8


def test_predictions_that_are_no_numbers_are_named(folder):
    """The weights of a training that diverged."""
    run = write_run(folder / "diverged", folder / "data" / "phonon.db", 1, range(1, 9), [9])
    model = torch.load(run / "best_model", weights_only=False)
    model.output_modules[0].outnet[-1].bias.data.fill_(np.nan)
    torch.save(model, run / "best_model")
    (run / "best_model.npz").unlink()
    found = cross_test([run], trust=Trust(everything=True))
    (text,) = found.not_ranked
    assert "diverged is not ranked on phonon: its predictions of the energy per atom are" in text
    assert "NaN or infinite for 7 of 7 structures" in text
    matrix = error_matrix(found.runs, found.errors).set_index("property")
    assert matrix["n_invalid"].to_dict() == {ENERGY: 7, STRESS: 0}
    assert matrix["mae"].isna().to_dict() == {ENERGY: True, STRESS: False}
    assert np.isnan(rank_correlations(distances(found))["rank_correlation"].item())


def in_atomic_units(path, target):
    """A copy in Bohr and Hartree, as SchNetPack stores it."""
    with ase.db.connect(path) as given, ase.db.connect(target) as db:
        for row in given.select():
            atoms = row.toatoms()
            atoms.set_cell(atoms.cell / Bohr, scale_atoms=True)
            data = {ENERGY: row.data[ENERGY] / Hartree, STRESS: row.data[STRESS]}
            db.write(atoms, data=data, structure=row.structure)
        units = {ENERGY: "Hartree", STRESS: "eV/Ang/Ang/Ang"}
        db.metadata = {"_distance_unit": "Bohr", "_property_unit_dict": units}
    return target


def test_databases_in_other_units_give_the_same_errors(folder, found):
    """As a test set, and as the data of the model itself, which then predicts in these units."""
    other = in_atomic_units(folder / "data" / "phonon.db", folder / "data" / "atomic.db")
    again = cross_test([folder / "runs" / "phonon"], [other]).errors
    first, second = (own.set_index(["digest", "property"]) for _, own in again.groupby("test_set"))
    assert len(first) == len(second) == 12
    np.testing.assert_allclose(second["mae"], first.loc[second.index, "mae"], rtol=1e-5)
    run = write_run(folder / "atomic", other, seed=1, train=range(1, 9), val=[9, 10])
    rows = cross_test([run]).errors.query("property == @ENERGY")
    model, convert = load_trained(run / "best_model"), AtomsConverter(MatScipyNeighborList(5.0))
    stored = ase.io.read(other, ":")
    labels = read_test_set(folder / "data" / "phonon.db").labels[ENERGY]
    for error, k in zip(rows["mae"], [0, 11, 12, 13, 14, 15], strict=True):
        predicted = Hartree * model(convert(stored[k]))[ENERGY].item()
        assert error == pytest.approx(abs(predicted - labels[k]), abs=1e-4)


def distances(found):
    (run,) = found.trained.values()
    (own,) = found.test_sets.values()
    return distances_and_errors({"a": run}, {own.name: own}, {"a": own}, found.errors, ENERGY)


def test_no_finished_run(folder):
    with pytest.raises(ComparisonError, match=r"no finished run:\n.*unfinished"):
        cross_test([folder / "runs" / "unfinished"])
