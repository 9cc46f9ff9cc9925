"""Predictions and their errors against formulas written out in numpy."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import torch
from schnetpack import properties as host
from schnetpack.data import AtomsLoader
from schnetpack.transform import AddOffsets
from torch import nn

from schnetpack_phonon.evaluation import errors, in_report_units, predict
from schnetpack_phonon.heads import BandGap, Intensive
from tests.model_fixtures import batch, data_module, potential, state, thermal

TARGETS = {"band_gap": "band_gap", "pressure": "hydrostatic_stress"}
LABELS = {
    "band_gap": [0.9, 1.1, np.nan, 1.3, 1.0, 1.6, 0.7],
    "hydrostatic_stress": [0.01, 0.02, -0.01, 0.03, np.nan, 0.0, -0.02],
}


def model() -> nn.Module:
    return potential(BandGap(16, "band_gap"), Intensive(16, "pressure"))


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    """Seven displaced crystals, two labels missing, in the database's order."""
    path = tmp_path_factory.mktemp("evaluation") / "labels.db"
    structures = [thermal(k)[1] for k in range(7)]
    return data_module(path, structures, [0], range(1, 7), **LABELS)


@pytest.mark.parametrize("batch_size", [1, 3, 6])
def test_predictions_beside_labels(dataset, batch_size):
    """Against one structure at a time; missing labels are left out, indices are the host's."""
    network = model()
    table = predict(network, AtomsLoader(dataset.test_dataset, batch_size=batch_size), TARGETS)
    for name, key in TARGETS.items():
        rows = table[table["property"] == name]
        expected = [k for k in range(1, 7) if np.isfinite(LABELS[key][k])]
        assert list(rows["index"]) == expected
        np.testing.assert_allclose(rows["label"], np.array(LABELS[key])[expected], rtol=1e-6)
        single = [network(batch([thermal(k)[1]]))[name].item() for k in expected]
        np.testing.assert_allclose(rows["prediction"], single, atol=1e-6)
    assert len(table) == 10


def batches() -> list[dict[str, torch.Tensor]]:
    labels = {"band_gap": [1.0, 2.0], "hydrostatic_stress": [0.0, 0.1]}
    return [batch([thermal(1)[1], thermal(2)[1]], **labels)]


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("postprocessing", [False, True])
@pytest.mark.parametrize("fails", [False, True])
def test_model_is_left_as_it_was_found(training, postprocessing, fails):
    network = model().train(training)
    network.representation.embedding.weight.requires_grad_(False)
    network.do_postprocessing = postprocessing
    before = state(network)
    if fails:
        with pytest.raises(KeyError):
            predict(network, batches(), {"absent": "band_gap"})
    else:
        predict(network, batches(), TARGETS)
    assert state(network) == before


def test_part_of_a_model_in_evaluation_mode_stays_so():
    """A frozen representation under a head that is being trained."""
    network = model().train()
    network.representation.eval()
    before = state(network)
    predict(network, batches(), TARGETS)
    assert state(network) == before


def test_dropout_is_off_and_postprocessors_are_skipped():
    """Labels in a batch are raw: a postprocessor would shift the prediction away from them."""
    network = model()
    plain = predict(network, batches(), TARGETS)["prediction"]
    shift = AddOffsets("band_gap", add_mean=True, is_extensive=False)
    shift.mean = torch.tensor([100.0])
    network.postprocessors.append(shift)
    network.output_modules[0].outnet.insert(1, nn.Dropout(0.5))
    network.train()
    again = predict(network, batches(), TARGETS)["prediction"]
    np.testing.assert_array_equal(again, plain)


def test_batches_are_left_as_they_were():
    """The model writes its outputs under the labels' keys; they must not end in the batch."""
    (given,), (before,) = batches(), batches()
    table = predict(model(), [given], TARGETS)
    assert list(table["label"][:2]) == [1.0, 2.0]
    assert given.keys() == before.keys()
    assert all(torch.equal(given[key], before[key]) for key in before)
    assert not given[host.R].requires_grad


# Errors


def tables(predictions: dict[str, list], training: dict[str, list]) -> tuple[pd.DataFrame, ...]:
    return pd.DataFrame({"property": "band_gap"} | predictions), pd.DataFrame(
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
    assert found["n"] == 4
    assert found["mae"] == pytest.approx((0.5 + 1 + 0 + 2) / 4)
    assert found["rmse"] == pytest.approx(np.sqrt((0.25 + 1 + 0 + 4) / 4))
    assert found["r2"] == pytest.approx(1 - 5.25 / (1.5**2 + 0.5**2 + 1.5**2 + 0.5**2))
    assert found["r2_crystal"] == pytest.approx(1 - 5.25 / (4 * 0.5**2))  # about 1.5 and 3.5
    assert found["mae_mean"] == pytest.approx((1.5 + 0.5 + 1.5 + 0.5) / 4)  # mean 2.5
    assert found["mae_crystal_mean"] == pytest.approx((0 + 1 + 3 + 4) / 4)  # A: 1, B: 7


def test_errors_of_one_property_do_not_touch_another():
    rng = np.random.default_rng(0)
    rows = pd.DataFrame(rng.normal(size=(20, 2)), columns=["label", "prediction"])
    rows["structure"] = ["A", "B"] * 10
    rows["property"] = ["band_gap"] * 8 + ["vbm"] * 12
    table = errors(rows, rows)
    for key in ("band_gap", "vbm"):
        own = rows[rows["property"] == key]
        pd.testing.assert_series_equal(errors(own, own).loc[key], table.loc[key])
        error = (own["prediction"] - own["label"]).to_numpy()
        assert table.loc[key, "mae"] == pytest.approx(np.abs(error).mean())


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
