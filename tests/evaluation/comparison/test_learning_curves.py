"""Power laws are found where there are some."""

import numpy as np
import pandas as pd
import pytest

from schnetpack_phonon.evaluation.comparison.learning_curves import (
    crossings,
    labels_needed,
    learning_curves,
    power_laws,
)
from tests.evaluation.comparison.comparison_fixtures import errors_table, runs_table


def curve(ensemble, a, b, sizes=(10, 20, 40), noise=0.0, n_seeds=3):
    rng = np.random.default_rng(3)
    rows = [
        {"ensemble": ensemble, "n_train": n, "run": f"{ensemble}{n}{seed}"}
        | {"test_set": "thermal", "property": "band_gap"}
        | {"mae": a * n**-b * np.exp(noise * rng.normal())}
        for n in sizes
        for seed in range(n_seeds)
    ]
    return pd.DataFrame(rows)


@pytest.mark.parametrize("b", [0.5, 0.0, -0.2])
def test_power_law_is_recovered(b):
    (law,) = power_laws(curve("phonon", 0.3, b)).to_dict("records")
    assert (law["a"], law["b"]) == pytest.approx((0.3, b), abs=1e-9)
    assert (law["b_low"], law["b_high"]) == pytest.approx((b, b), abs=1e-9)
    assert (law["n_min"], law["n_max"]) == (10, 40)


def test_interval_of_the_exponent_covers_it():
    (law,) = power_laws(curve("phonon", 0.3, 0.5, noise=0.1, n_seeds=8)).to_dict("records")
    assert law["b_low"] < 0.5 < law["b_high"]
    assert 0.02 < law["b_high"] - law["b_low"] < 0.4


def test_one_seed_has_no_interval_and_two_sizes_no_law():
    (law,) = power_laws(curve("phonon", 0.3, 0.5, n_seeds=1)).to_dict("records")
    assert np.isnan(law["b_low"])
    assert power_laws(curve("phonon", 0.3, 0.5, sizes=(10, 20))).empty


def test_labels_for_the_error_of_the_best():
    """That of the last ensemble at its largest size."""
    curves = [curve("phonon", 0.3, 0.5), curve("random", 0.3, -0.1), curve("best", 0.03, 0.5)]
    laws = power_laws(pd.concat(curves))
    found = labels_needed(laws, pd.concat(curves)).set_index("ensemble")
    assert found["error"].to_list() == pytest.approx([0.03 * 40**-0.5] * 3)
    assert found["n_needed"].to_list() == pytest.approx([4000, np.inf, 40])
    assert found["extrapolated"].to_list() == [True, True, False]


def test_crossing():
    """Parallel laws do not cross."""
    curves = [curve("phonon", 0.3, 0.2), curve("random", 0.3 * 25**0.3, 0.5), curve("x", 0.6, 0.2)]
    found = crossings(power_laws(pd.concat(curves))).set_index(["one", "other"])
    row = found.loc[("phonon", "random")]
    assert row["n"] == pytest.approx(25)
    assert row["error"] == pytest.approx(0.3 * 25**-0.2)
    assert not row["extrapolated"]
    assert np.isnan(found.loc[("phonon", "x"), "n"])


def test_curves_are_of_ensembles_with_several_sizes():
    runs = pd.concat([runs_table({"phonon": n}) for n in (10, 20)] + [runs_table({"random": 10})])
    runs = runs.reset_index(drop=True)
    error = {"phonon_10_0": 4.0, "phonon_10_1": 3.0, "phonon": 2.0, "random": 1.0}
    found = learning_curves(runs, errors_table(runs, error))
    assert set(found["ensemble"]) == {"phonon"}
    means = found.groupby("n_train")["mae"].mean()
    assert means.to_dict() == pytest.approx({10: 3.5, 20: 2.0})


def test_sizes_with_invalid_predictions_are_left_out():
    """All seeds of them: those that are left would look better than the size is."""
    tables = [runs_table({"phonon": n}, n_seeds=2, n_train=n) for n in (10, 20, 40)]
    runs = pd.concat(tables, ignore_index=True)
    errors = errors_table(runs, {"phonon": 1.0})
    errors.loc[errors["run"] == "phonon_20_1", "mae"] = np.nan
    assert set(learning_curves(runs, errors)["n_train"]) == {10, 40}
