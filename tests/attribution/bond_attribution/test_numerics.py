"""Directions, batches, paths, masks; what attribution leaves as it was; wrong arguments."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from ase.build import bulk
from schnetpack.atomistic import Atomwise, Forces, ZBLRepulsionEnergy
from torch import nn

from schnetpack_phonon.attribution.bond_attribution import attribute, unseen_terms
from schnetpack_phonon.attribution.paths import opposite
from schnetpack_phonon.common.errors import AttributionError
from schnetpack_phonon.data.reading import Structure
from schnetpack_phonon.models.heads import Intensive
from tests.attribution.attribution_fixtures import one
from tests.attribution.bond_attribution.bond_attribution_fixtures import bonds
from tests.models.model_fixtures import (
    PairTerms,
    Total,
    assemble,
    passing,
    potential,
    state,
    thermal,
)


def test_swapped_ends_swap_the_sign():
    model = potential(Intensive(16, "y"), dtype=torch.float64)
    ideal, displaced = thermal(1, strain=0.01)
    there = one(model, ideal, displaced, even=False)
    back = one(model, displaced, ideal, even=False)
    assert there.change == pytest.approx(-back.change)
    values = [dict(zip(bonds(a), a.attribution, strict=True)) for a in (there, back)]
    assert values[0].keys() == values[1].keys()
    np.testing.assert_allclose(
        [values[0][bond] for bond in values[0]], [-values[1][bond] for bond in values[0]], atol=1e-6
    )


def test_even_part_is_that_of_both_directions():
    """The same for a displacement and its opposite."""
    model = potential(Intensive(16, "y"), dtype=torch.float64)
    ideal, displaced = thermal(1, strain=0.01)
    mirror = opposite(ideal, displaced)
    there, back = one(model, ideal, displaced), one(model, ideal, mirror)
    assert bonds(there) == bonds(back)
    np.testing.assert_allclose(there.even, back.even, atol=1e-9)
    np.testing.assert_allclose(there.even, (there.attribution + back.attribution) / 2, atol=1e-9)


@pytest.mark.parametrize("kind", ["displacement", "mask"])
@pytest.mark.parametrize("edges_per_pass", [1, 1000, 10**6])
def test_structures_side_by_side_are_those_alone(kind, edges_per_pass):
    """Crystals of different size in one backward pass, whatever the size of a pass."""
    model = potential(Intensive(16, "y"), dtype=torch.float64)
    pairs = [thermal(1), tuple(a.repeat((2, 1, 1)) for a in thermal(2)), thermal(3)]
    structures = [Structure(*pair, k) for k, pair in enumerate(pairs)]
    together = attribute(model, structures, "y", kind, edges_per_pass=edges_per_pass)
    for structure, found in zip(structures, together, strict=True):
        (alone,) = attribute(model, [structure], "y", kind)
        assert (found.index, found.value) == (alone.index, pytest.approx(alone.value))
        np.testing.assert_allclose(found.attribution, alone.attribution, atol=1e-9)


@pytest.mark.parametrize("kind", ["displacement", "mask"])
def test_path_is_cut_until_the_bonds_add_up(kind):
    """The numbers of many nodes, which too few of them along the whole path miss."""
    model = potential(Intensive(16, "y"), dtype=torch.float64)
    model.output_modules[0].scale.fill_(30.0)
    pair, few = thermal(3, amplitude=0.4), {"kind": kind, "n_steps": 1}
    rough, cut, fine = (
        one(model, *pair, **few, tolerance=10.0),
        one(model, *pair, **few),
        one(model, *pair, kind=kind, n_steps=200),
    )
    assert abs(rough.residual) > 0.01 * abs(rough.change)
    assert 2 <= cut.n_steps < 16
    assert abs(cut.residual) <= 0.01 * abs(cut.change)
    names = ("attribution", "even") if kind == "displacement" else ("attribution",)
    for name in names:
        far, near = (np.abs(getattr(a, name) - getattr(fine, name)).max() for a in (rough, cut))
        assert near < far / 2


def test_nodes_go_to_where_a_path_bends():
    """Two atoms that come within the cutoff in a part of a long path."""
    model = assemble(PairTerms({(11, 17): 1.0}), Total("y"), dtype=torch.float64)
    nn.init.ones_(model.output_modules[0].weight)
    ideal, displaced = passing()
    found = one(model, ideal, displaced, n_steps=64, even=False)  # out of range at both ends
    assert bonds(found) == [(0, 1, 0, 0, 0)]
    np.testing.assert_allclose(found.attribution, 0, atol=1e-6)
    displaced.positions[1] = [-1, 2.0, 0]
    found = one(model, ideal, displaced, n_steps=2, tolerance=1e-4, even=False)
    assert abs(found.residual) < 1e-4 * abs(found.change)
    everywhere = one(model, ideal, displaced, n_steps=found.n_steps, tolerance=10.0, even=False)
    assert abs(everywhere.residual) > abs(found.residual)


def test_mask_needs_no_ideal_crystal_and_displacement_names_the_options():
    model = potential(Intensive(16, "y"))
    assert one(model, None, thermal(1)[1], kind="mask").attribution.any()
    with pytest.raises(AttributionError, match=r"no ideal positions.*--ideal FILE.*kind=mask"):
        one(model, None, thermal(1)[1])


class Failing(nn.Module):
    """An output module that raises."""

    model_outputs = ("broken",)

    def forward(self, inputs: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        raise ZeroDivisionError


@pytest.mark.parametrize("training", [(False, False), (True, True), (True, False)])
@pytest.mark.parametrize("grad_mode", [False, True])
@pytest.mark.parametrize("fails", [False, True])
def test_model_is_not_changed(training, grad_mode, fails):
    """Also one that is trained with its representation in evaluation mode."""
    model = potential(Intensive(16, "y"), *([Failing()] if fails else [])).train(training[0])
    model.representation.train(training[1]).embedding.weight.requires_grad_(False)
    with torch.set_grad_enabled(grad_mode):
        before = state(model)
        if fails:
            with pytest.raises(ZeroDivisionError):
                one(model, *thermal())
        else:
            one(model, *thermal())
        assert state(model) == before


def test_dropout_is_off():
    model = potential(Intensive(16, "y"))
    plain = one(model, *thermal())
    model.output_modules[0].outnet.insert(1, nn.Dropout(0.5))
    again = one(model.train(), *thermal())
    np.testing.assert_array_equal(again.attribution, plain.attribution)


def test_model_with_forces():
    """Derivatives of other outputs with respect to positions do not get in the way."""
    model = potential(Intensive(16, "y"), Atomwise(16, output_key="energy"), Forces())
    plain = potential(Intensive(16, "y"), Atomwise(16, output_key="energy"))
    plain.load_state_dict(model.state_dict())
    found, expected = (one(m, *thermal()) for m in (model, plain))
    np.testing.assert_allclose(found.attribution, expected.attribution, atol=1e-7)


def test_wrong_arguments_are_named():
    model = potential(Intensive(16, "y"))
    ideal, displaced = thermal()
    with pytest.raises(ValueError, match="no output 'gap'; it has y"):
        one(model, ideal, displaced, "gap")
    with pytest.raises(ValueError, match="expected >= 1"):
        one(model, ideal, displaced, n_steps=0)
    for other in (displaced[[3, 0, 1, 2, 4]], bulk("Cu")):
        with pytest.raises(ValueError, match="different atoms"):
            one(model, ideal, other)


def test_terms_beyond_edges_are_listed():
    model = potential(Intensive(16, "y"), ZBLRepulsionEnergy("eV", "Ang", "z"))
    assert unseen_terms(model) == []
    assert unseen_terms(model, mask=True) == ["ZBLRepulsionEnergy"]
