"""What is found in the folders of runs."""

import json
from pathlib import Path

import numpy as np
import pytest
from omegaconf import OmegaConf

from schnetpack_phonon.common.errors import RunError
from schnetpack_phonon.evaluation.runs import find_runs, read_run, write_record
from tests.evaluation.comparison.comparison_fixtures import change, write_run


@pytest.fixture
def run(tmp_path) -> Path:
    (tmp_path / "data").mkdir()
    datapath = tmp_path / "data" / "phonon.db"
    datapath.touch()
    return write_run(tmp_path / "runs" / "one", datapath, seed=7, train=[1, 2], val=[3])


def test_run_of_schnetpack(run, tmp_path):
    """Without our record; the folder in which it ran follows from the place of its data."""
    found = read_run(run)
    assert found.datapath == (tmp_path / "data" / "phonon.db").resolve()
    assert (list(found.train_idx), list(found.val_idx)) == ([1, 2], [3])
    assert list(found.test_idx) == [0, *range(4, 16)]
    assert found.seed == 7
    assert found.targets == {k: k for k in ("energy_per_atom", "hydrostatic_stress")}
    assert found.resolved("data.datapath") == str(found.datapath)
    assert found.resolved("data.transforms")[0]["cutoff"] == 5.0
    assert found.resolved("data.nothing", "default") == "default"


def test_record_of_a_run(run, tmp_path):
    datapath = tmp_path / "data" / "phonon.db"
    write_record(run, {"datapath": str(datapath), "targets": {"a": "b"}, "seed": 11})
    found = read_run(run)
    assert found.targets == {"a": "b"}
    assert found.seed == 11
    assert found.record["datapath_from_here"] == "../../data/phonon.db"
    assert json.loads((run / "run.json").read_text())["format"] == 1
    change(run, "run.json", format=2)
    with pytest.raises(RunError, match="another version"):
        read_run(run)


def test_runs_and_data_that_were_moved_together(run, tmp_path):
    write_record(run, {"datapath": str(tmp_path / "data" / "phonon.db"), "seed": 1})
    moved = tmp_path / "elsewhere"
    moved.mkdir()
    (tmp_path / "data").rename(moved / "data")
    (tmp_path / "runs").rename(moved / "runs")
    assert read_run(moved / "runs" / "one").datapath == (moved / "data" / "phonon.db").resolve()


@pytest.mark.parametrize("place", ["data/labels.jsonl", "labels.jsonl"])
def test_labels_in_the_folder_where_the_command_was_typed(run, tmp_path, place):
    """Wherever the database is; relative paths are of that folder."""
    (tmp_path / "data" / "phonon.db").rename(tmp_path / "phonon.db")
    (tmp_path / place).touch()
    config = OmegaConf.load(run / "config.yaml")
    config.data.update(datapath="phonon.db", label_store=place)
    OmegaConf.save(config, run / "config.yaml")
    assert read_run(run).datapath == tmp_path / "phonon.db"
    assert read_run(run).resolved("run.work_dir") == str(tmp_path)


def test_runs_of_a_sweep_once_each(run, tmp_path):
    other = write_run(tmp_path / "runs" / "two", tmp_path / "data" / "phonon.db", 1, [1])
    assert find_runs([tmp_path / "runs", run]) == [run, other]


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (lambda run: (run / "best_model.task").unlink(), r"no best_model\.task.*not finished"),
        (lambda run: (run / "split.npz").write_text("no"), r"split\.npz is missing or damaged"),
        (lambda run: np.savez(run / "split.npz", train_idx=[1]), r"split\.npz is missing"),
        (lambda run: (run / "config.yaml").write_text("a: [1"), r"config\.yaml cannot be read"),
        (
            lambda run: (run / "config.yaml").write_text("a: 1"),
            "not the configuration of a SchNetPack run",
        ),
        (lambda run: (run / "run.json").write_text("{"), r"run\.json is damaged"),
        (lambda run: (run / "run.json").write_text("{}"), "another version"),
        (lambda run: (run.parents[1] / "data" / "phonon.db").unlink(), "database is not at"),
    ],
)
def test_broken_runs_say_why(run, damage, reason):
    damage(run)
    with pytest.raises(RunError, match=reason):
        read_run(run)


def test_database_that_only_the_process_knew(run):
    text = (run / "config.yaml").read_text()
    hidden = text.replace("phonon.db", "${hydra:runtime.choices.data/ensemble}.db")
    (run / "config.yaml").write_text(hidden)
    with pytest.raises(RunError, match="only the process of the run knew"):
        read_run(run)


def test_folders_without_runs(tmp_path):
    with pytest.raises(RunError, match="no run in"):
        find_runs([tmp_path])
    with pytest.raises(RunError, match="no folder"):
        find_runs([tmp_path / "nowhere"])
