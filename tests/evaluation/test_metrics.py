"""Errors of predictions against formulas in NumPy, and report units."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from schnetpack_phonon.evaluation.metrics import errors, in_report_units


def tables(predictions: dict[str, list], training: dict[str, list]) -> tuple[pd.DataFrame, ...]:
    index = range(len(predictions["label"]))
    return pd.DataFrame({"property": "band_gap", "index": index} | predictions), pd.DataFrame(
        {"property": "band_gap"} | training
    )


def test_errors_by_hand():
    label = np.array([1.0, 2.0, 4.0, 3.0])
    prediction = np.array([1.5, 1.0, 4.0, 5.0])
    table = errors(
        *tables(
            {"structure": ["A", "A", "B", "B"], "label": label, "prediction": prediction},
            {"structure": ["A", "A", "A", "B"], "label": [1.0, 2.0, 0.0, 7.0]},
        )
    )
    assert table.index.name == "property"
    found = table.loc["band_gap"]
    assert (found["n"], found["n_invalid"]) == (4, 0)
    assert found["mae"] == pytest.approx((0.5 + 1 + 0 + 2) / 4)
    assert found["rmse"] == pytest.approx(np.sqrt((0.25 + 1 + 0 + 4) / 4))
    assert found["r2"] == pytest.approx(1 - 5.25 / (1.5**2 + 0.5**2 + 1.5**2 + 0.5**2))
    assert found["r2_crystal"] == pytest.approx(1 - 5.25 / (4 * 0.5**2))  # about 1.5 and 3.5
    assert found["mae_mean"] == pytest.approx((1.5 + 0.5 + 1.5 + 0.5) / 4)  # mean 2.5
    assert found["mae_crystal_mean"] == pytest.approx((0 + 1 + 3 + 4) / 4)  # A: 1, B: 7


def test_errors_of_one_property_do_not_touch_another():
    rng = np.random.default_rng(0)
    rows = pd.DataFrame(rng.normal(size=(20, 2)), columns=["label", "prediction"])
    rows["index"], rows["structure"] = range(20), ["A", "B"] * 10
    rows["property"] = ["band_gap"] * 8 + ["vbm"] * 12
    table = errors(rows, rows)
    for key in ("band_gap", "vbm"):
        own = rows[rows["property"] == key]
        pd.testing.assert_series_equal(errors(own, own).loc[key], table.loc[key])
        error = (own["prediction"] - own["label"]).to_numpy()
        assert table.loc[key, "mae"] == pytest.approx(np.abs(error).mean())


def test_errors_of_components_by_hand():
    """Each has a mean of its own; structures are counted, not their components."""
    rows = {"index": [4, 4, 5, 5], "structure": "A", "component": ["xx", "yy", "xx", "yy"]}
    label, prediction = np.array([1.0, 10.0, 3.0, 14.0]), np.array([1.0, 11.0, 3.0, 12.0])
    train = {"structure": "A", "component": ["xx", "yy"], "label": [0.0, 10.0]}
    found = errors(*tables(rows | {"label": label, "prediction": prediction}, train))
    found = found.loc["band_gap"]
    assert (found["n"], found["n_values"], found["n_invalid"]) == (2, 4, 0)
    assert found["mae"] == pytest.approx(3 / 4)
    assert found["rmse"] == pytest.approx(np.sqrt(5 / 4))
    assert found["r2"] == pytest.approx(1 - 5 / (1 + 4 + 1 + 4))  # about 2 and 12
    assert found["mae_mean"] == found["mae_crystal_mean"] == pytest.approx((1 + 0 + 3 + 4) / 4)
    prediction[2:] = np.nan
    found = errors(*tables(rows | {"label": label, "prediction": prediction}, train))
    assert (found.loc["band_gap", "n_invalid"], found["mae"].isna().all()) == (1, True)


@pytest.mark.parametrize("invalid", [np.nan, np.inf])
def test_predictions_that_are_no_numbers_are_counted(invalid):
    """They may not be left out of the mean: nine bad ones would leave the error of the tenth."""
    crystals = {"structure": ["A"] * 10}
    given = {"label": np.arange(10.0), "prediction": [invalid] * 9 + [9.0]}
    found = errors(*tables(crystals | given, crystals | {"label": np.arange(10.0)}))
    found = found.loc["band_gap"]
    assert (found["n"], found["n_invalid"]) == (10, 9)
    assert found[["mae", "rmse", "r2", "r2_crystal"]].isna().all()
    assert found["mae_mean"] == pytest.approx(2.5)


@pytest.mark.parametrize("label", [0.0, 1.0, 0.1, -1234.1])
def test_r2_of_equal_labels_is_undefined(label):
    """Whatever rounding does to their mean."""
    one = {"structure": ["A"] * 3, "label": [label] * 3}
    found = errors(*tables(one | {"prediction": [0.2, 0.3, 0.4]}, one)).loc["band_gap"]
    assert found[["r2", "r2_crystal"]].isna().all()


def test_r2_of_one_label_a_crystal_is_undefined_within_crystals():
    two = {"structure": ["A", "B"], "label": [0.1, 0.3]}
    found = errors(*tables(two | {"prediction": [0.1, 0.2]}, two)).loc["band_gap"]
    assert found["r2"] == pytest.approx(1 - 0.01 / (2 * 0.01))
    assert np.isnan(found["r2_crystal"])


@pytest.mark.parametrize(
    ("key", "value", "expected", "unit"),
    [
        ("hydrostatic_stress", 0.01, 1.602176634, "GPa"),
        ("energy_per_atom", 0.002, 2.0, "meV"),
        ("band_gap", 1.2, 1.2, "eV"),
        ("of_the_user", 1.2, 1.2, ""),
    ],
)
def test_report_units(key, value, expected, unit):
    """Tables indexed by property and with a column of it; other columns are left alone."""
    table = pd.DataFrame({"property": [key], "label": [value], "r2": [0.5]})
    for given in (table, table.set_index("property")):
        found = in_report_units(given, ["label"]).iloc[0]
        assert found["label"] == pytest.approx(expected, rel=1e-6)
        assert found["unit"] == unit
        assert found["r2"] == 0.5
    assert table["label"].item() == value
