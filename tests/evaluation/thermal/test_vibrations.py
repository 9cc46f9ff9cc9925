"""The phonons of a run from its label store, without calculations."""

import numpy as np
import pytest

from schnetpack_phonon.common.errors import RunError
from schnetpack_phonon.common.files import DATASETS
from schnetpack_phonon.data.database import read_metadata
from schnetpack_phonon.ensembles.thermal import PhononEnsemble
from schnetpack_phonon.evaluation.runs import read_run
from schnetpack_phonon.evaluation.thermal.vibrations import vibrations
from tests.evaluation.comparison.comparison_fixtures import write_run
from tests.evaluation.thermal.thermal_fixtures import thermal_run


def test_phonons_are_those_of_the_database(tmp_path):
    run = read_run(thermal_run(tmp_path, seed=1))
    crystals, models = vibrations(run, PhononEnsemble([100.0, 500.0], n_snapshots=1, seed=5))
    assert [crystal.name for crystal in crystals] == ["Cu3PdAu"]
    assert set(models) == {("Cu3PdAu", 100.0), ("Cu3PdAu", 500.0)}
    cell = read_metadata(run.datapath)["crystals"]["Cu3PdAu"]["cell"]
    np.testing.assert_allclose(models["Cu3PdAu", 100.0].ideal.cell, 2 * np.array(cell))


def test_what_is_missing_is_not_computed(tmp_path):
    folder = thermal_run(tmp_path, seed=1)
    (tmp_path / "data" / "labels.jsonl").unlink()
    with pytest.raises(RunError, match=r"not in .*labels\.jsonl: run spkphonon generate"):
        vibrations(read_run(folder), PhononEnsemble([100.0], n_snapshots=1, seed=5))


def test_runs_of_schnetpack_have_no_phonons(tmp_path):
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "a.db").touch()
    run = read_run(write_run(tmp_path / "runs" / "a", tmp_path / "data" / "a.db", 1, [1]))
    with pytest.raises(RunError, match="not trained on data of schnetpack_phonon"):
        vibrations(run, PhononEnsemble([100.0], n_snapshots=1, seed=5))


def test_labels_of_the_package_are_found():
    assert list(DATASETS.glob("*pbesol*"))
