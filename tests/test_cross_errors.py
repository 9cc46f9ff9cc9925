"""Errors, intervals and ratios of predictions whose errors are known."""

import numpy as np
import pandas as pd
import pytest

from schnetpack_phonon.cross_errors import error_matrix, ratios
from tests.comparison_fixtures import predictions_table, runs_table


def test_errors_of_one_model_by_hand():
    runs = runs_table({"phonon": 10}, n_seeds=2)
    table = predictions_table(runs, {"phonon_10_0": 1.0, "phonon_10_1": 3.0})
    (row,) = error_matrix(runs, table).to_dict("records")
    label = table["label"][:40].to_numpy()
    assert row["mae"] == pytest.approx(2.0)
    assert row["seed_sd"] == pytest.approx(np.sqrt(2))
    assert row["rmse"] == pytest.approx(2.0)  # mean over seeds
    assert row["max_error"] == pytest.approx(3.0)
    assert row["r2"] == pytest.approx(1 - 5 / label.var())
    crystal = table["structure"][:40].to_numpy()
    within = np.concatenate([label[crystal == c] - label[crystal == c].mean() for c in "AB"])
    assert row["r2_crystal"] == pytest.approx(1 - 5 / (within**2).mean())
    assert row["mae_mean"] == pytest.approx(np.abs(label).mean())
    assert (row["n"], row["n_seeds"], row["common"]) == (40, 2, True)
    assert row["low"] == pytest.approx(2.0)  # all structures have the same error
    assert row["high"] == pytest.approx(2.0)


def test_interval_is_that_of_the_mean():
    """Against the standard error of normal errors; several data sets, so that luck cancels."""
    runs = runs_table({"phonon": 10}, n_seeds=1)
    table = predictions_table(runs, {"phonon": 1.0}, n=400, noise=0.3)
    (row,) = error_matrix(runs, table).to_dict("records")
    expected = 2 * 1.96 * 0.3 / np.sqrt(400)
    assert row["high"] - row["low"] == pytest.approx(expected, rel=0.15)
    assert row["low"] < row["mae"] < row["high"]
    assert np.isnan(row["seed_sd"])  # one seed has no spread


def test_all_models_are_tested_on_what_none_has_seen():
    runs = runs_table({"phonon": 10, "random": 10}, n_seeds=1)
    table = predictions_table(runs, {"phonon": 1.0, "random": 1.0})
    drop = (table["run"] == "phonon_10_0") & (table.groupby("run").cumcount() < 30)
    found = error_matrix(runs, table[~drop])
    assert list(found["n"]) == [10, 10]
    assert found["common"].all()


def test_runs_without_common_structures_are_tested_on_their_own():
    runs = runs_table({"phonon": 10, "random": 10}, n_seeds=1)
    table = predictions_table(runs, {"phonon": 1.0, "random": 2.0})
    place = table.groupby("run").cumcount()
    keep = (table["run"] == "phonon_10_0") == (place < 20)
    found = error_matrix(runs, table[keep])
    assert not found["common"].any()
    assert list(found["n"]) == [20, 20]
    assert ratios(runs, table[keep], "phonon").empty


def test_by_group():
    runs = runs_table({"phonon": 10}, n_seeds=1)
    table = predictions_table(runs, {"phonon": 1.0})
    table["prediction"] = table["label"] + np.where(table["group"] == "300 K", 2.0, 1.0)
    found = error_matrix(runs, table, by_group=True).set_index("group")
    assert found["mae"].to_dict() == pytest.approx({"100 K": 1.0, "300 K": 2.0})


@pytest.mark.parametrize("factor", [0.5, 1.0, 2.5])
def test_ratio_and_its_interval(factor):
    """The true ratio lies inside, and structures and seeds make it wider."""
    runs = runs_table({"phonon": 10, "random": 10}, n_seeds=3)
    table = predictions_table(runs, {"phonon": 1.0, "random": factor}, n=100, noise=0.2)
    (row,) = ratios(runs, table, "phonon").to_dict("records")
    assert row["ensemble"] == "random"
    assert row["ratio"] == pytest.approx(factor, rel=0.1)
    assert row["low"] < factor < row["high"]
    assert row["high"] - row["low"] < 0.3 * factor
    spread = {f"random_10_{k}": factor * (0.5 + 0.5 * k) for k in range(3)}
    table = predictions_table(runs, {"phonon": 1.0, **spread}, n=100, noise=0.2)
    (wide,) = ratios(runs, table, "phonon").to_dict("records")
    assert wide["high"] - wide["low"] > 2 * (row["high"] - row["low"])


def test_only_models_with_equally_many_labels_are_compared():
    runs = runs_table({"phonon": 10, "random": 20})
    table = predictions_table(runs, {"phonon": 1.0, "random": 1.0})
    assert ratios(runs, table, "phonon").empty


def test_equal_labels_have_no_r2():
    runs = runs_table({"phonon": 10}, n_seeds=1)
    table = predictions_table(runs, {"phonon": 1.0}).assign(label=0.1, prediction=0.2)
    (row,) = error_matrix(runs, table).to_dict("records")
    assert pd.isna(row["r2"])
    assert row["mae"] == pytest.approx(0.1)
