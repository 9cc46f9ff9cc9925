"""Runs of somebody else: reports and averages of them run nothing that their files name."""

from __future__ import annotations

import os
import pickle
import shutil
from pathlib import Path

import pytest
import yaml

from schnetpack_phonon.calculators.cp2k import CP2K
from schnetpack_phonon.common.errors import ComparisonError, RunError
from schnetpack_phonon.common.files import Trust
from schnetpack_phonon.ensembles.thermal import PhononEnsemble
from schnetpack_phonon.evaluation.comparison.page import compare
from schnetpack_phonon.evaluation.runs import read_run
from schnetpack_phonon.evaluation.thermal.vibrations import vibrations
from schnetpack_phonon.models.trained.weights import load_trained, write_weights
from tests.evaluation.comparison.comparison_fixtures import ENERGY, STRESS, databases, write_run
from tests.evaluation.thermal.thermal_fixtures import thermal_run
from tests.models.trained.trained_fixtures import head, model_config

LEFT = Path("left_by_the_run")
EVIL = {"_target_": "pathlib.Path.touch", "_args_": [str(LEFT)]}


class Evil:
    def __reduce__(self):
        return os.mkdir, (str(LEFT),)


HEADS = [head("Intensive", output_key=key) for key in (ENERGY, STRESS)]


def hostile_pickles(folder: Path) -> Path:
    """Gives a run pickles that leave a file where they are opened, and weights that fit them."""
    model = load_trained(folder)
    for name in ("best_model", "best_model.task"):
        (folder / name).write_bytes(pickle.dumps(Evil()))
    write_weights(model, folder / "best_model", model_config(*HEADS))
    return folder


def change(folder: Path, **values) -> None:
    """Entries of ``data`` in config.yaml."""
    path = folder / "config.yaml"
    config = yaml.safe_load(path.read_text())
    config["data"] |= values
    path.write_text(yaml.safe_dump(config))


@pytest.fixture
def run(tmp_path) -> Path:
    path = databases(tmp_path)["phonon"]
    return hostile_pickles(write_run(tmp_path / "runs" / "theirs", path, 1, range(1, 9)))


def test_a_report_opens_no_pickle(run, tmp_path):
    compare([run], tmp_path / "report")
    assert (tmp_path / "report" / "index.html").is_file()
    assert not LEFT.exists()
    (run / "best_model.npz").unlink()
    with pytest.raises(ComparisonError, match=r"theirs: its model is only in a pickle.* --trust"):
        compare([run], tmp_path / "report")
    assert not LEFT.exists()
    shutil.rmtree(run / "cross_tests")  # else kept predictions are shown
    with pytest.raises(ValueError, match="holds no model"):
        compare([run], tmp_path / "report", trust=Trust(everything=True))
    assert LEFT.exists()


def test_a_report_makes_nothing_else(run, tmp_path):
    change(run, transforms=[EVIL, {"_target_": "schnetpack.transform.CastTo32"}])
    with pytest.raises(ValueError, match=r"'pathlib.Path.touch' is not among the classes"):
        compare([run], tmp_path / "report")
    assert not LEFT.exists()


@pytest.mark.parametrize(
    "part",
    [
        {"structure": EVIL},
        {"phonons": {"_target_": "schnetpack_phonon.phonons.PhonopyFiles", "path": EVIL}},
        {"calculator": {"_target_": "os.mkdir", "path": str(LEFT)}},
        {
            "calculator": {
                "_target_": "schnetpack_phonon.calculators.AseCalculator",
                "factory": EVIL | {"_partial_": True},
            }
        },
        {
            "calculator": {
                "_target_": "schnetpack_phonon.calculators.CP2K",
                "command": f"touch {LEFT}",
            }
        },
    ],
    ids=["structure", "in arguments", "function", "factory", "command"],
)
def test_averages_at_temperature_run_nothing(tmp_path, part):
    folder = thermal_run(tmp_path, seed=1)
    change(folder, **part)
    with pytest.raises(RunError, match=r"no phonons for|not in .*labels\.jsonl"):
        vibrations(read_run(folder), PhononEnsemble([100.0], n_snapshots=1, seed=5))
    assert not LEFT.exists()


def test_the_version_of_a_program_is_that_of_the_labels(tmp_path, monkeypatch):
    """The program itself is not asked."""
    folder = thermal_run(tmp_path, seed=1)
    change(folder, calculator={"_target_": "schnetpack_phonon.calculators.CP2K"})
    seen = []
    monkeypatch.setattr(CP2K, "ask_version", lambda self: pytest.fail("the program is called"))
    monkeypatch.setattr(
        "schnetpack_phonon.evaluation.thermal.vibrations.read_metadata",
        lambda _: {"versions": {"calculator": "CP2K 2023.1"}},
    )
    monkeypatch.setattr(
        "schnetpack_phonon.evaluation.thermal.vibrations.prepare",
        lambda recipe, *_: seen.append(recipe.calculator.code_version) or ([], {}),
    )
    vibrations(read_run(folder), PhononEnsemble([100.0], n_snapshots=1, seed=5))
    assert seen == ["CP2K 2023.1"]
