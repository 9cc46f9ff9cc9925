"""What version 0.1 wrote is still read: models, runs, stores, databases, exported folders.

``tests/data/version_0.1`` holds the main job in small (Ag3SBr, 12 snapshots, 3 epochs), trained on
one database with SchNetPack 2.1.1 and with 2.2.0, and an exported folder with CP2K's outputs.
"""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from ase.db import connect

from schnetpack_phonon.common.errors import RunError
from schnetpack_phonon.common.files import Trust
from schnetpack_phonon.data.card import content_digest
from schnetpack_phonon.evaluation.runs import read_run
from schnetpack_phonon.labels.store import LabelStore
from schnetpack_phonon.models.predict import Predictor

OLD = Path(__file__).parent / "data" / "version_0.1"
RUNS = ["schnetpack_2.1", "schnetpack_2.2"]
TRUST = Trust(everything=True)  # their models are in pickles only


@pytest.fixture
def old(tmp_path) -> Path:
    return shutil.copytree(OLD, tmp_path / "old")


def spkphonon(*arguments) -> str:
    command = [sys.executable, "-c", "from schnetpack_phonon.cli.commands import main; main()"]
    run = subprocess.run([*command, *map(str, arguments)], capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    return run.stdout


@pytest.mark.parametrize("name", RUNS)
def test_models_predict_what_they_predicted(name):
    rows = connect(OLD / "data" / "antiperovskite_phonon.db").select()
    structures = [row.toatoms() for row, _ in zip(rows, range(3), strict=False)]
    predictions = Predictor(OLD / "runs" / name, trust=TRUST)(structures)
    with np.load(OLD / "runs" / name / "three_structures.npz") as expected:
        for key in expected:
            found = np.array([one[key] for one in predictions])
            # Single precision, and another order of sums on another processor.
            np.testing.assert_allclose(found, expected[key], rtol=3e-6, err_msg=key)


@pytest.mark.parametrize("name", RUNS)
def test_a_run_is_read_where_it_was_moved_to(old, name):
    with pytest.raises(RunError, match=r"only in a pickle, best_model, .* --trust"):
        read_run(old / "runs" / name)
    run = read_run(old / "runs" / name, TRUST)
    assert run.datapath == old / "data" / "antiperovskite_phonon.db"
    assert (len(run.train_idx), len(run.val_idx), len(run.test_idx)) == (9, 1, 1)
    assert content_digest(run.datapath) == run.record["content"]


def test_report_of_one_run(old):
    folder = old / "runs" / RUNS[0]
    printed = spkphonon("report", folder)
    table = [line for line in printed.splitlines() if line.startswith("|")]
    assert table == [x for x in (folder / "report.md").read_text().splitlines() if x[:1] == "|"]


def test_report_of_both_runs(old, tmp_path):
    spkphonon("report", old / "runs", "--trust", "-o", tmp_path / "page")
    found = pd.read_csv(tmp_path / "page" / "data" / "errors.csv")
    expected = pd.read_csv(OLD / "report_errors.csv")
    # Offsets of -105 eV an atom were added in float32, which resolves 0.008 meV of these 4 meV.
    totals = expected["property"] == "energy_per_atom"
    for rows, tolerance in ((~totals, 1e-4), (totals, 0.02)):
        then = expected[rows]
        pd.testing.assert_frame_equal(found.loc[rows, then.columns], then, rtol=tolerance)


def test_thermal_averages_of_a_run(old, tmp_path):
    spkphonon(
        "thermal", old / "runs" / RUNS[0], "--trust", "-t", 300, "-n", 10, "-o", tmp_path / "page"
    )
    keys = ["structure", "temperature", "statistics", "property", "estimate"]
    found = pd.read_csv(tmp_path / "page" / "data" / "averages.csv").set_index(keys)
    expected = pd.read_csv(OLD / "thermal_averages.csv").set_index(keys)
    pd.testing.assert_frame_equal(found[["value"]], expected[["value"]], rtol=1e-5)
    assert list(found["n"]) == list(expected["n"])


def test_a_label_store_and_its_keys():
    store = LabelStore(OLD / "data" / "labels.jsonl")
    assert len(store) == 16
    lines = (OLD / "data" / "labels.jsonl").read_text().splitlines()[1:]
    assert {json.loads(line)["key"] for line in lines} == set(store)


def test_the_database_is_made_again_from_the_store(old, compose_train):
    """Keys of labels, snapshots and content are those of then, with its floor of all modes.

    Nothing is calculated but the crystals at rest, which that version did not label.
    """
    from hydra.utils import instantiate

    database = old / "data" / "antiperovskite_phonon.db"
    before = content_digest(database)
    database.unlink()
    store = (old / "data" / "labels.jsonl").read_bytes()
    experiment, *overrides = json.loads((OLD / "overrides.json").read_text())
    places = [f"run.data_dir={old / 'data'}", f"run.work_dir={old}", f"data.datapath={database}"]
    config = compose_train(f"{experiment}_xtb", *overrides, *places)  # its present name
    data = instantiate(config.data)
    data.prepare_data()
    after = (old / "data" / "labels.jsonl").read_bytes()
    assert after.startswith(store)
    assert after.count(b"\n") - store.count(b"\n") == 1
    assert content_digest(database) == before


def test_outputs_of_an_exported_folder_are_collected(old, tmp_path):
    printed = spkphonon("collect", old / "exported", "--label-store", tmp_path / "labels.jsonl")
    assert "3" in printed
    store = LabelStore(tmp_path / "labels.jsonl")
    calculations = json.loads((old / "exported" / "manifest.json").read_text())["calculations"]
    assert set(store) == {calculation["key"] for calculation in calculations}
    assert not any(store.failed(key) for key in store)
