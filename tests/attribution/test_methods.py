"""Methods on bonds against Captum's own and against closed forms; what is refused says why."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from captum.attr import ShapleyValues
from torch import nn

from schnetpack_phonon.attribution.edges import Edges
from schnetpack_phonon.attribution.methods import METHODS, REFUSED
from schnetpack_phonon.common.errors import AttributionError
from schnetpack_phonon.models.heads import Intensive
from tests.attribution.attribution_fixtures import STRENGTHS, one
from tests.models.model_fixtures import PairTerms, Total, assemble, potential, thermal


@pytest.mark.parametrize("kind", ["displacement", "mask"])
def test_shapley_is_that_of_captum(kind):
    """All 720 orders of six bond types by Captum, all 64 subsets by us."""
    model = potential(Intensive(16, "y"), dtype=torch.float64)
    ideal, displaced = thermal(1)
    found = one(model, ideal, displaced, kind=kind, method="Shapley")
    edges = Edges(model, [found.path], "y")
    types, number = np.unique(found.path.bond_types[found.path.bond], return_inverse=True)

    def function(x: torch.Tensor) -> torch.Tensor:
        m = x[:, torch.as_tensor(number)]
        if kind == "mask":
            return edges.masked(m)[:, 0]
        r0, r1 = edges.vectors(0), edges.vectors(1)
        return edges.displaced(r0 + m[..., None] * (r1 - r0))[:, 0]

    assert abs(found.residual) < 1e-6
    with edges.frozen(), torch.no_grad():
        expected = ShapleyValues(function).attribute(
            torch.ones(1, 6, dtype=torch.float64), perturbations_per_eval=64
        )
    np.testing.assert_allclose(found.by_type().loc[types], expected[0].numpy(), atol=2e-6)


def test_ablation_resets_one_bond_at_a_time():
    model = assemble(PairTerms(STRENGTHS), Total("y"))
    nn.init.ones_(model.output_modules[0].weight)
    gradients = one(model, *thermal(1), even=False)
    reset = one(model, *thermal(1), method="FeatureAblation", even=False)
    np.testing.assert_allclose(reset.attribution, gradients.attribution, atol=2e-5)


def test_gradient_shap_is_the_integral_by_drawing_points():
    state_before = np.random.get_state()[1].copy()  # noqa: NPY002
    model = potential(Intensive(16, "y"))
    exact = one(model, *thermal(1), even=False)
    drawn = one(model, *thermal(1), method="GradientShap", n_steps=400, even=False)
    scale = np.abs(exact.attribution).max()
    np.testing.assert_allclose(drawn.attribution, exact.attribution, atol=0.15 * scale)
    np.testing.assert_array_equal(np.random.get_state()[1], state_before)  # noqa: NPY002


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("kind", ["displacement", "mask"])
def test_every_bond_has_a_number_and_memory_is_bounded(kind, method):
    """Where a pass may hold three copies of a graph, none holds more."""
    model, pair = potential(Intensive(16, "y")), thermal(1)
    n_edges = len(one(model, *pair, kind=kind).path.idx_i)
    seen = []
    model.representation.register_forward_pre_hook(lambda _, x: seen.append(len(x[0]["_idx_i"])))
    how = {"method": method, "n_steps": 7, "even": False}
    found = one(model, *pair, kind=kind, **how, edges_per_pass=3 * n_edges)
    assert np.isfinite(found.attribution).all()
    assert np.isnan(found.summary()["residual"]) == (method in ("Saliency", "FeatureAblation"))
    assert n_edges / 2 < max(seen) <= 3 * n_edges


@pytest.mark.parametrize("method", [*REFUSED, "Magic"])
def test_refused_methods_say_why(method):
    expected = "there are Integ" if method == "Magic" else REFUSED[method][:30]
    with pytest.raises(AttributionError, match=expected):
        one(potential(Intensive(16, "y")), *thermal(1), method=method)
