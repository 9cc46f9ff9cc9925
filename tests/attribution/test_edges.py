"""A model as a function of its edges is the same model; masks delete edges exactly."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from schnetpack.atomistic import Atomwise, Forces
from schnetpack.nn import scatter_add

from schnetpack_phonon.attribution.bond_attribution import attribute
from schnetpack_phonon.attribution.edges import Edges, check_model, output_component
from schnetpack_phonon.attribution.paths import StraightPath, straight_path
from schnetpack_phonon.common.errors import AttributionError
from schnetpack_phonon.data.reading import Structure
from schnetpack_phonon.models.heads import Intensive
from tests.models.model_fixtures import (
    CUTOFF,
    REPRESENTATIONS,
    assemble,
    batch,
    potential,
    scripted,
    thermal,
)


def whole() -> StraightPath:
    return straight_path(thermal(1)[1], thermal(1)[1], CUTOFF)


@pytest.mark.parametrize("representation", REPRESENTATIONS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_masks_are_exact(representation, dtype):
    """Mask 1 is the model, mask 0 has no edges, a bond of mask 0 is deleted, bit for bit."""
    model = potential(Intensive(16, "y"), representation=representation, dtype=dtype)
    path = whole()
    edges = Edges(model, [path], "y")
    ones = torch.ones(1, edges.n_edges, dtype=dtype)
    kept = path.bond != 7

    def part(chosen: np.ndarray) -> torch.Tensor:
        own = (path.idx_i[chosen], path.idx_j[chosen], path.image[chosen], path.bond[chosen])
        cut = Edges(model, [StraightPath(path.ideal, path.displaced, *own)], "y")
        return cut.displaced(cut.vectors(1.0))

    with edges.frozen(), torch.no_grad():
        plain = edges.displaced(edges.vectors(1.0))
        assert torch.equal(edges.masked(ones), plain)
        assert torch.equal(edges.masked(ones * torch.as_tensor(kept)), part(kept))
        none = edges.masked(0 * ones)
    assert none != plain
    alone = thermal(1)[1]
    alone.set_cell(10 * alone.cell.array)
    alone.positions *= 10  # no neighbours: what a model without edges predicts
    with torch.no_grad():
        assert torch.equal(none[0], model(batch([alone], dtype))["y"])


def test_mask_on_a_shared_cutoff_acts_on_the_representation_only():
    model = potential(Intensive(16, "y"))
    shared = model.representation.cutoff_fn

    class User(torch.nn.Module):
        model_outputs = ("seen",)

        def __init__(self):
            super().__init__()
            self.cutoff_fn = shared

        def forward(self, inputs):
            cut = self.cutoff_fn(inputs["_Rij"].norm(dim=1))
            return inputs | {"seen": cut.sum()[None]}

    model.output_modules.append(User())
    model.collect_outputs()
    edges = Edges(model, [whole()], "seen")
    values = [edges.masked(torch.full((1, edges.n_edges), x)).item() for x in (0.0, 1.0)]
    assert values[0] == values[1] != 0


def test_components_of_tensors_and_wrong_names():
    class Tensor(torch.nn.Module):
        model_outputs = ("stress",)

        def forward(self, inputs):
            n_structures = len(inputs["_n_atoms"])
            x = scatter_add(inputs["scalar_representation"], inputs["_idx_m"], n_structures)
            return inputs | {"stress": x[:, :9].reshape(-1, 3, 3)}

    model = assemble(potential().representation, Tensor())
    pair = thermal(1)
    found = attribute(model, [Structure(*pair)], "stress[0,2]", edges_per_pass=1)
    edges = Edges(model, [found[0].path], "stress[0,2]")
    expected = model(edges._batch((1.0,)))["stress"][0, 0, 2].item()
    assert found[0].value == pytest.approx(expected, rel=1e-5)
    with pytest.raises(AttributionError, match=r"shape \(3, 3\) for a structure"):
        attribute(model, [Structure(*pair)], "stress")
    with pytest.raises(AttributionError, match=r"write stress\[0,0\]"):
        attribute(model, [Structure(*pair)], "stress[xx]")


def test_mask_needs_a_cutoff_function_to_act_on():
    model = potential(Intensive(16, "y"))
    del model.representation.cutoff_fn
    edges = Edges(model, [whole()], "y")
    with pytest.raises(AttributionError, match="has no module 'cutoff_fn'"):
        edges.masked(torch.ones(1, edges.n_edges))


def test_bonds_out_of_range_are_left_out():
    """A neighbour list with a larger cutoff gives exactly the same."""
    model = potential(Intensive(16, "y"))
    ends = thermal(1)[1], thermal(1)[1]
    edges, more = (Edges(model, [straight_path(*ends, r)], "y") for r in (CUTOFF, CUTOFF + 1))
    assert more.n_edges > edges.n_edges
    with edges.frozen(), torch.no_grad():
        values = [e.displaced(e.vectors(1.0)) for e in (edges, more)]
    assert torch.equal(*values)


def test_missing_inputs_are_named_and_can_be_given():
    class Charged(torch.nn.Module):
        model_outputs = ("y",)

        def forward(self, inputs):
            q = inputs["scalar_representation"].sum()[None]
            return inputs | {"y": q * inputs["total_charge"]}

    model = assemble(potential().representation, Charged())
    with pytest.raises(AttributionError, match="total_charge"):
        Edges(model, [whole()], "y").values(1.0)
    Edges(model, [whole()], "y", {"total_charge": torch.tensor(2.0)}).values(1.0)


def test_responses_are_refused():
    model = potential(Atomwise(16, output_key="energy"), Forces())
    with pytest.raises(AttributionError, match="derivative of another output"):
        output_component(model, "forces")


def test_models_without_hooks_are_refused():
    model = potential(Intensive(16, "y"))
    check_model(model)
    with pytest.raises(AttributionError, match="scripted"):
        check_model(scripted(potential(Atomwise(16, output_key="energy"), Forces())))
    with pytest.raises(AttributionError, match="compiled"):
        check_model(torch.compile(model))
    with pytest.raises(AttributionError, match="no 'representation'"):
        check_model(torch.nn.Linear(1, 1))
