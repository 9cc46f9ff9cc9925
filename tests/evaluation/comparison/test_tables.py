"""Tables as text, from the files of runs."""

from dataclasses import replace

import pandas as pd
import pytest
from omegaconf import OmegaConf

from schnetpack_phonon.data.database import read_metadata
from schnetpack_phonon.evaluation.comparison import tables
from schnetpack_phonon.evaluation.comparison.run_groups import group_runs
from schnetpack_phonon.evaluation.comparison.uncertainty import error_matrix, ratios
from schnetpack_phonon.evaluation.metrics import in_report_units
from schnetpack_phonon.evaluation.runs import read_run, write_record
from schnetpack_phonon.evaluation.test_sets import read_test_set
from tests.evaluation.comparison.comparison_fixtures import (
    databases,
    errors_table,
    runs_table,
    write_run,
)


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Two seeds on one database with records, and one run of SchNetPack alone on another."""
    folder = tmp_path_factory.mktemp("tables")
    paths = databases(folder)
    found = []
    for name, seed in (("phonon", 1), ("phonon", 2), ("random", 1)):
        run = write_run(folder / "runs" / f"{name}{seed}", paths[name], seed, [1, 2, 3])
        if name == "phonon":
            record = {"datapath": str(paths[name]), "seed": seed, "train_seconds": 1800.0 * seed}
            write_record(run, record | {"versions": {"torch": "2.4"}})
            share = 0.2 * seed
            pd.DataFrame(
                {
                    "structure": "Cu3PdAu",
                    "model": ["trained", "untrained"],
                    "bond_type": "Cu-Pd",
                    "share": [share, 0.5],
                    "low": 0.0,
                    "high": 1.0,
                    "more": "columns",
                }
            ).to_csv(run / "bond_shares.csv", index=False)
        found.append(read_run(run))
    sets = {run.datapath: read_test_set(run.datapath) for run in found}
    return group_runs(found, sets)[0], {str(run.folder): run for run in found}


def test_errors_and_ratios_as_text():
    table = runs_table({"phonon": 10, "random": 10}, n_seeds=1)
    predictions = errors_table(table, {"phonon": 1.0, "random": 2.0})
    units = ["mae", "low", "high", "seed_sd", "rmse", "max_error", "mae_mean"]
    matrix = in_report_units(error_matrix(table, predictions), units)
    first = tables.error_table(matrix).iloc[0]
    assert first["property"] == "band gap (eV)"
    assert first["MAE [95 %]"] == "1 [1, 1]"
    assert first["sd over seeds"] == "one seed"
    assert first["n"] == "40"
    (row,) = tables.ratio_table(ratios(table, predictions, "phonon")).to_dict("records")
    assert row["trained on"] == "random, N = 10"
    assert row["band gap"] == "2.00 [2.00, 2.00]"
    assert tables.error_table(matrix.assign(common=False))["n"].iloc[0] == "40, own split"
    own = tables.error_table(matrix.assign(own_splits=True, seed_sd=0.1))
    assert own["sd over seeds"].iloc[0] == "0.1 and splits"


def test_matrix_has_a_column_for_each_model():
    table = runs_table({"random": 10, "phonon": 10})
    sizes = {"phonon_10_0": 1.0, "phonon_10_1": 2.0, "random": 3.0}
    errors = errors_table(table, sizes, test_sets=["thermal", "md"])
    errors = pd.concat([errors, errors.assign(property="vbm")])
    matrix = in_report_units(error_matrix(table, errors), ["mae", "seed_sd"])
    found = tables.matrix_table(matrix)
    assert list(found["error"]) == ["band gap (eV)"] * 2 + ["VBM (eV)"] * 2
    assert list(found["tested on"]) == ["thermal", "md"] * 2
    assert list(found.columns[2:]) == ["trained on random, N = 10", "trained on phonon, N = 10"]
    assert set(found["trained on random, N = 10"]) == {"3 ± 0"}
    assert set(found["trained on phonon, N = 10"]) == {"1.5 ± 0.71"}
    one = runs_table({"phonon": 10}, n_seeds=1)
    single = in_report_units(error_matrix(one, errors_table(one, {"phonon": 1.0})), ["mae"])
    assert tables.matrix_table(single)["trained on phonon, N = 10"].item() == "1"


def test_learning_curves_as_text():
    place = {"test_set": "thermal", "property": "vbm", "unit": "eV", "extrapolated": False}
    law = {"ensemble": "phonon", "a": 0.3, "b": 0.5, "b_low": 0.4, "b_high": 0.6}
    (row,) = tables.law_table(pd.DataFrame([place | law | {"n_min": 10, "n_max": 40}])).to_dict(
        "records"
    )
    assert (row["error E"], row["a"], row["sizes"]) == ("VBM (eV)", "0.3", "10 to 40")
    assert row["b [95 %]"] == "0.50 [0.40, 0.60]"
    numbers = [(24.4, False), (312.0, True), (float("inf"), True)]
    rows = [
        place | {"ensemble": "phonon", "error": 0.05, "n_needed": n, "extrapolated": far}
        for n, far in numbers
    ]
    shown = tables.needed_table(pd.DataFrame(rows))
    assert list(shown["training structures"]) == ["24", "3.1e+02, extrapolated", "more than 1e+06"]
    assert shown["for an error of"].iloc[0] == "0.05 eV, VBM"
    pair = {"one": "phonon", "other": "random"}
    rows = [place | pair | {"n": 30.0, "error": 0.05}, place | pair | {"n": None, "error": None}]
    shown = tables.crossing_table(pd.DataFrame(rows))
    assert list(shown["training structures"]) == ["30", "none"]
    assert list(shown["error there"]) == ["0.05 eV", "–"]


def test_shares_are_averaged_over_seeds(runs):
    table = tables.share_table(runs[0]).set_index("model")
    assert table.loc["trained on phonon, N = 3", "share"] == pytest.approx(0.3)
    assert table.loc["trained on phonon, N = 3", "seed_sd"] == pytest.approx(0.2 / 2**0.5)
    assert table.loc["untrained", "share"] == pytest.approx(0.5)
    assert list(table.index) == ["trained on phonon, N = 3", "untrained"]
    assert tables.share_table(runs[0][runs[0]["ensemble"] != "phonon"]).empty


def test_cost(runs):
    table = tables.cost_table(*runs).set_index("trained on")
    phonon = table.loc["phonon, N = 3"]
    assert (phonon["runs"], phonon["labels each"]) == (2, 4)
    assert phonon["training hours"] == pytest.approx(1.5)
    cost = read_metadata(next(iter(runs[1].values())).datapath)["cost"]
    assert cost["n_timed"] == cost["n_calculations"] >= 16
    assert phonon["label hours each"] == pytest.approx(cost["hours"] * 4 / 16)
    assert pd.isna(table.loc["random (one-sided), N = 3", "training hours"])


@pytest.mark.parametrize("cost", [None, {"n_calculations": 20, "n_timed": 19, "hours": 1.0}])
def test_hours_of_labels_that_were_not_recorded(runs, monkeypatch, cost):
    metadata = {"n_rows": 16, "cost": cost} if cost else {"n_rows": 16}
    monkeypatch.setattr(tables, "read_metadata", lambda _: metadata)
    assert tables.cost_table(*runs)["label hours each"].isna().all()


def test_what_was_not_recorded_is_named(runs):
    table = tables.run_table(*runs).set_index("run")
    assert table.loc["phonon1", "versions"] == "torch 2.4"
    assert table.loc["random1", "versions"] == "not recorded"


def test_settings_and_data(runs):
    found = [*runs[1].values()]
    stop = {"_target_": "pytorch_lightning.callbacks.EarlyStopping", "patience": 7}
    config = OmegaConf.merge(found[0].config, {"callbacks": {"any": stop, "other": None}})
    found[0] = replace(found[0], config=config)
    settings = tables.settings_table(found).set_index("setting")["value"]
    assert settings["patience"] == "7 / None"
    assert settings["learning rate"] == "0.001"
    data = tables.data_table(runs[1].values()).set_index("database")
    assert set(data.index) == {"phonon.db", "random.db"}
    assert data.loc["phonon.db", "structures"] == 16
    assert "ase.calculators.emt.EMT" in data.loc["phonon.db", "calculator"]
