"""Effects of subsets of bonds in models whose bonds are known; the untrained control."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from schnetpack_phonon.attribution.bond_attribution import attribute
from schnetpack_phonon.attribution.checks import correlation
from schnetpack_phonon.attribution.faithfulness import random_subsets, subset_effects, untrained
from schnetpack_phonon.data.reading import Structure
from schnetpack_phonon.models.heads import Intensive
from tests.models.model_fixtures import (
    REPRESENTATIONS,
    PairTerms,
    Total,
    assemble,
    potential,
    state,
    thermal,
)


def test_effects_of_a_sum_of_pair_terms_are_predicted():
    model = assemble(PairTerms({(47, 16): 3.0, (47, 35): -1.0}), Total("y"))
    nn.init.ones_(model.output_modules[0].weight)
    (found,) = attribute(model, [Structure(*thermal(1), 4, "x")], "y")
    table = subset_effects(model, found, n_subsets=12)
    for end in ("actual", "displaced"):
        np.testing.assert_allclose(table["predicted"], table[end], atol=2e-5)
    assert table["actual"].std() > 0.01
    assert correlation(table) > 0.999


class Squared(Total):
    """The square of that sum."""

    def forward(self, inputs):
        inputs = super().forward(inputs)
        return inputs | {self.output_key: inputs[self.output_key] ** 2}


def test_both_ends_of_a_square():
    """With y0 + D where bonds are displaced: y1^2 - (y1 - D)^2 and (y0 + D)^2 - y0^2."""
    terms = PairTerms({(47, 16): 3.0, (47, 35): -1.0})
    structure = Structure(*thermal(1), 4, "x")
    (line,), (square,) = (
        attribute(assemble(terms, head("y")), [structure], "y") for head in (Total, Squared)
    )
    found = subset_effects(assemble(terms, Squared("y")), square, n_subsets=12)
    part = subset_effects(assemble(terms, Total("y")), line, n_subsets=12)["actual"]
    assert part.std() > 0.01
    for end, y, sign in (("actual", line.value, -1), ("displaced", line.start, 1)):
        np.testing.assert_allclose(found[end], 2 * y * part + sign * part**2, rtol=1e-3, atol=1e-3)
    shuffled = found.assign(predicted=found["actual"] + found["displaced"])
    assert correlation(shuffled, both_ends=True) == pytest.approx(1)
    assert correlation(shuffled) < 0.9999


def test_subsets_have_one_size_and_differ():
    subsets = random_subsets(50, 20, 0.3, seed=1)
    assert (subsets.sum(axis=1) == 15).all()
    assert len(np.unique(subsets, axis=0)) == 20


@pytest.mark.parametrize("representation", REPRESENTATIONS)
def test_untrained_model_has_new_weights_and_the_same_buffers(representation):
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


def test_weights_that_cannot_be_reset_are_named():
    """Radial bases of SchNetPack can be trained, and have no reset_parameters."""
    with pytest.warns(UserWarning, match=r"keeps the trained representation\.radial_basis"):
        untrained(potential(Intensive(16, "y"), trainable_basis=True), 0)
