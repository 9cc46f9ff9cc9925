"""spkphonon attribute on models and structures of any origin."""

from __future__ import annotations

import ase.io
import numpy as np
import pandas as pd
import pytest
import torch

from schnetpack_phonon.attribution.methods import METHODS
from schnetpack_phonon.cli.attribute import METHODS as NAMED_IN_HELP
from schnetpack_phonon.models.heads import Intensive
from tests.cli.command_fixtures import call
from tests.models.model_fixtures import potential, thermal

pytestmark = pytest.mark.filterwarnings("ignore:You are using `torch.load`:FutureWarning")


@pytest.fixture
def files(tmp_path):
    for seed in (1, 2):
        (tmp_path / f"run{seed}").mkdir()
        model = potential(Intensive(16, "band_gap"), seed=seed)
        torch.save(model, tmp_path / f"run{seed}" / "best_model")
    ase.io.write(tmp_path / "x.extxyz", [thermal(seed)[1] for seed in range(4)])
    ase.io.write(tmp_path / "ideal.vasp", thermal()[0])
    np.savez(tmp_path / "split.npz", train_idx=[0], val_idx=[], test_idx=[1, 2, 3])
    np.savez(tmp_path / "no_test.npz", train_idx=[0])
    return tmp_path


@pytest.fixture
def run(files, monkeypatch):
    """With ``--trust``: there are pickles only."""
    return lambda arguments: call(monkeypatch, "attribute", *arguments, "--trust")


def test_two_models_in_folders_of_their_own_and_compared(files, run, capsys):
    ase.io.write(files / "ideal.extxyz", thermal()[0])
    models = [a for k in (1, 2) for a in ("--model", str(files / f"run{k}"))]
    options = ["--ideal", "ideal.extxyz", "--split", "split.npz", "--n-steps", "4"]
    run(["x.extxyz", *models, *options])
    text = capsys.readouterr().out
    assert "different runs correlate with r" in text
    for name in ("run1", "run2"):
        table = pd.read_csv(files / "attribution" / name / "bonds.csv")
        assert set(table["index"]) == {1, 2, 3}
        assert (files / "attribution" / name / "figures" / "bonds_3d.png").is_file()
    assert (files / "attribution" / "figures" / "bonds_3d_models.png").is_file()


def test_pickles_are_opened_on_demand_only(files, monkeypatch):
    with pytest.raises(SystemExit, match=r"run1/best_model is a pickle .* --trust"):
        call(monkeypatch, "attribute", "x.extxyz", "--model", "run1")


def test_mask_needs_no_ideal_crystal(run):
    model = ["--model", "run1/best_model", "--no-control", "--n-steps", "4"]
    run(["x.extxyz", *model, "--kind", "mask", "--indices", "0"])


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--model", "none"], "no file none"),
        (["--model", "x.extxyz"], "x.extxyz holds no model"),
        (["--model", "run1", "--split", "x.extxyz"], "x.extxyz is no split.npz"),
        (["--model", "run1", "--split", "no_test.npz"], "no_test.npz is no split.npz"),
        (["--model", "run1", "--ideal", "ideal.vasp", "--n-steps", "0"], "expected >= 1"),
        (["--model", "run1/best_model"], "no ideal positions"),
        (["--model", "run1/best_model", "--output", "gap"], "it has band_gap"),
        (["--model", "run1/best_model", "--method", "DeepLift"], "DeepLift is refused"),
        (["--model", "run1/best_model", "--indices", "9"], "there is no index 9"),
        (["--model", "run1/best_model", "--model", "run1/best_model"], "given twice"),
    ],
)
def test_bad_input_is_one_line(run, options, said):
    with pytest.raises(SystemExit) as stop:
        run(["x.extxyz", *options])
    assert stop.value.code.startswith("spkphonon attribute: ")
    assert said in stop.value.code
    assert "\n" not in stop.value.code


def test_help_names_all_methods_and_warns_of_pickles(run, capsys):
    with pytest.raises(SystemExit):
        run(["--help"])
    assert "it needs --trust" in capsys.readouterr().out
    assert NAMED_IN_HELP == METHODS
