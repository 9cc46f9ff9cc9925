"""What models predict, by one process or several, kept as long as nothing changes."""

import os
import shutil

import numpy as np
import pytest
from schnetpack.interfaces import AtomsConverter
from schnetpack.transform import MatScipyNeighborList

from schnetpack_phonon.evaluation.comparison import cached_predictions as cross_predictions
from schnetpack_phonon.evaluation.comparison.cached_predictions import (
    CACHE,
    TrainedOn,
    predictions_of,
)
from schnetpack_phonon.evaluation.runs import read_run
from schnetpack_phonon.evaluation.test_sets import read_test_set
from schnetpack_phonon.models.trained.weights import load_trained
from tests.evaluation.comparison.comparison_fixtures import ENERGY, STRESS, databases, write_run

METALS = {29, 46, 78, 79}


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    """Two models and the random database of 16 structures."""
    folder = tmp_path_factory.mktemp("predictions")
    paths = databases(folder)
    for seed in (1, 2):
        write_run(folder / "runs" / str(seed), paths["phonon"], seed, range(1, 9))
    return folder / "runs", read_test_set(paths["random"])


@pytest.fixture
def runs(prepared, tmp_path):
    """Copies of the runs, without anything kept."""
    (tmp_path / "data").symlink_to(prepared[0].parent / "data")
    shutil.copytree(prepared[0], tmp_path / "runs")
    return [read_run(tmp_path / "runs" / str(seed)) for seed in (1, 2)]


def nobody(*_):
    raise AssertionError("a model is asked again")


@pytest.mark.parametrize(("most", "n_workers"), [(3, 1), (256, 1), (3, 2)])
def test_each_model_on_each_structure(prepared, runs, monkeypatch, n_workers, most):
    """Against one structure at a time, whoever does it and in whatever parts."""
    monkeypatch.setattr(cross_predictions, "_FEW", 0)
    monkeypatch.setattr(cross_predictions, "_MOST", most)
    monkeypatch.setattr(cross_predictions.loky, "cpu_count", lambda: n_workers)
    test_set = prepared[1]
    convert = AtomsConverter(MatScipyNeighborList(cutoff=5.0))
    (found,) = predictions_of(runs, [test_set], [TrainedOn(METALS)] * 2)
    for run, predictions in zip(runs, found, strict=True):
        model = load_trained(run.model)
        for key in (ENERGY, STRESS):
            assert predictions[key].shape == (16, 1)
            for k in (0, 5, 15):
                expected = model(convert(test_set.atoms[k].copy()))[key].item()
                assert predictions[key][k, 0] == pytest.approx(expected, abs=1e-5)


def test_predictions_are_kept_and_looked_up(prepared, runs, monkeypatch):
    (before,) = predictions_of(runs, [prepared[1]], [TrainedOn(METALS)] * 2)
    monkeypatch.setattr(cross_predictions, "_answers", nobody)
    (after,) = predictions_of(runs, [prepared[1]], [TrainedOn(METALS)] * 2)
    for one, other in zip(before, after, strict=True):
        assert set(one) == set(other) == {ENERGY, STRESS}
        for key in one:
            np.testing.assert_array_equal(one[key], other[key])


def test_a_changed_model_alone_is_asked_again(prepared, runs):
    ((before, _),) = predictions_of(runs, [prepared[1]], [TrainedOn(METALS)] * 2)
    for suffix in ("", ".npz"):
        shutil.copy(f"{runs[1].model}{suffix}", f"{runs[0].model}{suffix}")
    os.utime(runs[0].model, (1, 1))
    ((first, second),) = predictions_of(runs, [prepared[1]], [TrainedOn(METALS)] * 2)
    assert not np.allclose(first[ENERGY], before[ENERGY])
    np.testing.assert_allclose(first[ENERGY], second[ENERGY])
    assert len(list((runs[1].folder / CACHE).iterdir())) == 1


def test_what_is_broken_or_of_another_version_is_asked_again(prepared, runs, monkeypatch):
    (before,) = predictions_of(runs[:1], [prepared[1]], [TrainedOn(METALS)])
    (kept,) = (runs[0].folder / CACHE).iterdir()
    kept.write_bytes(kept.read_bytes()[:100])
    (after,) = predictions_of(runs[:1], [prepared[1]], [TrainedOn(METALS)])
    np.testing.assert_array_equal(before[0][ENERGY], after[0][ENERGY])
    monkeypatch.setattr(cross_predictions, "_FORMAT", 0)
    monkeypatch.setattr(cross_predictions, "_answers", nobody)
    with pytest.raises(AssertionError, match="asked again"):
        predictions_of(runs[:1], [prepared[1]], [TrainedOn(METALS)])


def test_runs_of_others_are_left_alone(prepared, runs, monkeypatch):
    def refuse(*_):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(cross_predictions, "replacing", refuse)
    (found,) = predictions_of(runs, [prepared[1]], [TrainedOn(METALS)] * 2)
    assert all(len(predictions) == 2 for predictions in found)


def test_structures_with_elements_that_were_not_trained_are_refused(prepared, runs):
    """Platinum is in the last eight of the sixteen."""
    ((found,),) = predictions_of(runs[:1], [prepared[1]], [TrainedOn(METALS - {78})])
    np.testing.assert_array_equal(np.isnan(found[ENERGY][:, 0]), np.arange(16) >= 8)
