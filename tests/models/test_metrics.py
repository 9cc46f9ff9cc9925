"""The relative error of tensors against numbers that one can do by hand."""

import pytest
import torch

from schnetpack_phonon.models.task import RelativeFrobeniusError


def test_error_is_the_mean_over_structures_however_they_are_batched():
    """Labels of 3 and 4 on the diagonal have the norm 5; errors of 0.5 and 1 are 10 and 20 %."""
    labels = torch.diag_embed(torch.tensor([[3.0, 4.0], [3.0, 4.0], [30.0, 40.0]]))
    predictions = labels.clone()
    predictions[0, 0, 1] += 0.5
    predictions[1, 1, 0] -= 1.0
    whole, parts = RelativeFrobeniusError(), RelativeFrobeniusError()
    whole.update(predictions, labels)
    for part in (slice(0, 1), slice(1, 3)):
        parts(predictions[part], labels[part])
    assert whole.compute().item() == pytest.approx(0.1)
    assert parts.compute().item() == pytest.approx(0.1)
