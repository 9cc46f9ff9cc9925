"""Predictions beside labels, and models that are left alone."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from schnetpack import properties as host
from schnetpack.data import AtomsLoader
from schnetpack.transform import AddOffsets
from torch import nn

from schnetpack_phonon.evaluation.predictions import predict
from schnetpack_phonon.models.heads import BandGap, Intensive
from tests.models.model_fixtures import batch, data_module, potential, state, thermal

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
