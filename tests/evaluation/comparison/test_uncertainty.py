"""Errors, intervals and ratios of known errors of structures."""

import numpy as np
import pandas as pd
import pytest

from schnetpack_phonon.evaluation.comparison.uncertainty import error_matrix, ratios
from tests.evaluation.comparison.comparison_fixtures import errors_table, runs_table


@pytest.mark.parametrize("n_components", [1, 3])
def test_errors_of_one_model_by_hand(n_components):
    runs = runs_table({"phonon": 10}, n_seeds=2)
    errors = {"phonon_10_0": 1.0, "phonon_10_1": 3.0}
    table = errors_table(runs, errors, n_components=n_components)
    (row,) = error_matrix(runs, table).to_dict("records")
    label = np.concatenate([*table["label"][:40]])
    assert row["mae"] == pytest.approx(2.0)
    assert row["seed_sd"] == pytest.approx(np.sqrt(2))
    assert row["rmse"] == pytest.approx(2.0)  # mean over seeds
    assert row["max_error"] == pytest.approx(3.0)
    assert row["r2"] == pytest.approx(1 - 5 / label.var(axis=0).mean())
    crystal = table["structure"][:40].to_numpy()
    within = [label[crystal == c] - label[crystal == c].mean(axis=0) for c in "AB"]
    assert row["r2_crystal"] == pytest.approx(1 - 5 / (np.concatenate(within) ** 2).mean())
    assert row["mae_mean"] == pytest.approx(np.abs(label).mean())
    assert (row["n"], row["n_seeds"], row["common"]) == (40, 2, True)
    assert not row["own_splits"]
    assert row["low"] == pytest.approx(2.0)  # all structures have the same error
    assert row["high"] == pytest.approx(2.0)


def test_large_structures_count_for_more():
    """Means are over values: forces of 3 atoms and of 1."""
    runs = runs_table({"phonon": 10}, n_seeds=1)
    table = errors_table(runs, {"phonon": 1.0}, n=20)
    table["n_values"] = np.where(np.arange(20) < 10, 9, 3)
    table["mae"] = np.where(np.arange(20) < 10, 1.0, 2.0)
    (row,) = error_matrix(runs, table).to_dict("records")
    assert row["mae"] == pytest.approx((90 * 1 + 30 * 2) / 120)
    assert row["low"] < row["mae"] < row["high"]


def test_seeds_with_splits_of_their_own():
    """Each seed stands for what it has not seen; all together are compared with others."""
    runs = runs_table({"phonon": 10, "random": 10}, n_seeds=2)
    runs["own_splits"] = runs["ensemble"] == "phonon"
    size = {"phonon_10_0": 1.0, "phonon_10_1": 3.0, "random": 4.0}
    table = errors_table(runs, size)
    place = table.groupby("run").cumcount()
    one, other = table["run"] == "phonon_10_0", table["run"] == "phonon_10_1"
    table = table[~one & ~other | one & (place < 10) | other & place.between(10, 29)]
    found = error_matrix(runs, table).set_index("model")
    assert list(found["n"]) == [30, 30]
    assert list(found["own_splits"]) == [True, False]
    assert found["common"].all()
    assert found["mae"].to_list() == pytest.approx([(10 * 1 + 20 * 3) / 30, 4.0])
    assert found.loc["phonon, N = 10", "seed_sd"] == pytest.approx(np.sqrt(2))
    assert found.loc["phonon, N = 10", "r2"] < 0
    (row,) = ratios(runs, table, "phonon").to_dict("records")
    assert row["ratio"] == pytest.approx(4 / (70 / 30))
    assert row["low"] < row["ratio"] < row["high"]
    assert error_matrix(runs.assign(own_splits=False), table)["model"].to_list() == [
        "random, N = 10"
    ]


def test_interval_is_that_of_the_mean():
    """Against the standard error of normal errors; several data sets, so that luck cancels."""
    runs = runs_table({"phonon": 10}, n_seeds=1)
    table = errors_table(runs, {"phonon": 1.0}, n=400, noise=0.3)
    (row,) = error_matrix(runs, table).to_dict("records")
    expected = 2 * 1.96 * 0.3 / np.sqrt(400)
    assert row["high"] - row["low"] == pytest.approx(expected, rel=0.15)
    assert row["low"] < row["mae"] < row["high"]
    assert np.isnan(row["seed_sd"])  # one seed has no spread


def test_all_models_are_tested_on_what_none_has_seen():
    runs = runs_table({"phonon": 10, "random": 10}, n_seeds=1)
    table = errors_table(runs, {"phonon": 1.0, "random": 1.0})
    drop = (table["run"] == "phonon_10_0") & (table.groupby("run").cumcount() < 30)
    found = error_matrix(runs, table[~drop])
    assert list(found["n"]) == [10, 10]
    assert found["common"].all()


def test_runs_without_common_structures_are_tested_on_their_own():
    runs = runs_table({"phonon": 10, "random": 10}, n_seeds=1)
    table = errors_table(runs, {"phonon": 1.0, "random": 2.0})
    place = table.groupby("run").cumcount()
    keep = (table["run"] == "phonon_10_0") == (place < 20)
    found = error_matrix(runs, table[keep])
    assert not found["common"].any()
    assert list(found["n"]) == [20, 20]
    assert ratios(runs, table[keep], "phonon").empty


def test_by_group():
    runs = runs_table({"phonon": 10}, n_seeds=1)
    table = errors_table(runs, {"phonon": 1.0})
    table["mae"] = np.where(table["group"] == "300 K", 2.0, 1.0)
    table = table.sort_values("parameter", ascending=False, kind="stable")
    found = error_matrix(runs, table, by_group=True).set_index("group")
    assert list(found.index) == ["100 K", "300 K"]
    assert found["mae"].to_dict() == pytest.approx({"100 K": 1.0, "300 K": 2.0})


@pytest.mark.parametrize("factor", [0.5, 1.0, 2.5])
def test_ratio_and_its_interval(factor):
    """The true ratio lies inside, and structures and seeds make it wider."""
    runs = runs_table({"phonon": 10, "random": 10}, n_seeds=3)
    table = errors_table(runs, {"phonon": 1.0, "random": factor}, n=100, noise=0.2)
    (row,) = ratios(runs, table, "phonon").to_dict("records")
    assert row["ensemble"] == "random"
    assert row["ratio"] == pytest.approx(factor, rel=0.1)
    assert row["low"] < factor < row["high"]
    assert row["high"] - row["low"] < 0.3 * factor
    spread = {f"random_10_{k}": factor * (0.5 + 0.5 * k) for k in range(3)}
    table = errors_table(runs, {"phonon": 1.0, **spread}, n=100, noise=0.2)
    (wide,) = ratios(runs, table, "phonon").to_dict("records")
    assert wide["high"] - wide["low"] > 2 * (row["high"] - row["low"])


def test_only_models_with_equally_many_labels_are_compared():
    runs = runs_table({"phonon": 10, "random": 20})
    table = errors_table(runs, {"phonon": 1.0, "random": 1.0})
    assert ratios(runs, table, "phonon").empty


def test_equal_labels_have_no_r2():
    runs = runs_table({"phonon": 10}, n_seeds=1)
    table = errors_table(runs, {"phonon": 0.1})
    table["label"] = [np.array([[0.1]])] * len(table)
    (row,) = error_matrix(runs, table).to_dict("records")
    assert pd.isna(row["r2"])
    assert row["mae"] == pytest.approx(0.1)


def test_models_with_invalid_predictions_are_not_ranked():
    """Structures count for the others as before, and no seed is left out of a mean."""
    runs = runs_table({"phonon": 10, "random": 10, "uniform": 10}, n_seeds=2)
    table = errors_table(runs, {"phonon": 1.0, "random": 2.0, "uniform": 3.0})
    bad = (table["run"] == "random_10_1") & (table.groupby("run").cumcount() < 36)
    table.loc[bad, ["mae", "mse", "max_error"]] = np.nan
    found = error_matrix(runs, table).set_index("model")
    row = found.loc["random, N = 10"]
    assert (row["n"], row["n_invalid"]) == (40, 36)
    assert row[["mae", "low", "high", "seed_sd", "rmse", "r2", "max_error"]].isna().all()
    assert list(found.drop("random, N = 10")["n"]) == [40, 40]
    assert list(found.drop("random, N = 10")["n_invalid"]) == [0, 0]
    assert list(ratios(runs, table, "phonon")["ensemble"]) == ["uniform"]
