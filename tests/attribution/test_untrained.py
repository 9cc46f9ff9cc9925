"""The untrained control knows nothing of the training, and all else."""

import pytest
import torch

from schnetpack_phonon.attribution.faithfulness import untrained
from schnetpack_phonon.models.heads import Intensive
from tests.models.model_fixtures import REPRESENTATIONS, potential, state


@pytest.mark.parametrize("representation", REPRESENTATIONS)
def test_untrained_forgets_every_weight_and_keeps_buffers(representation):
    """Training is imitated by a shift of 10, far from where any weight starts."""
    model = potential(Intensive(16, "y"), representation=representation)
    model.output_modules[0].offset.fill_(1.5)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(10)
    before, random_state = state(model), torch.get_rng_state()
    fresh, again, other = (untrained(model, seed) for seed in (1, 1, 2))
    assert state(model) == before
    assert torch.equal(torch.get_rng_state(), random_state)
    for name, parameter in fresh.named_parameters():
        assert parameter.abs().max() < 6, name
    for key, value in model.named_buffers():
        assert torch.equal(dict(fresh.named_buffers())[key], value), key
    assert state(fresh)["tensors"] == state(again)["tensors"] != state(other)["tensors"]


def test_untrained_says_what_it_cannot_forget():
    """The host's radial bases can be trained, and have no reset_parameters."""
    with pytest.warns(UserWarning, match=r"keeps the trained representation\.radial_basis"):
        untrained(potential(Intensive(16, "y"), trainable_basis=True), 0)
