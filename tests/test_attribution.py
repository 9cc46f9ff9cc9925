"""Attribution against closed forms, planted truths and the host's own predictions."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest
import torch
from ase import Atoms
from ase.build import bulk
from schnetpack.atomistic import Atomwise, Forces
from torch import nn

from schnetpack_phonon.attribution import (
    BondAttribution,
    attribute_displacement,
    path_edges,
    untrained,
    variance_shares,
)
from schnetpack_phonon.heads import BandGap, Intensive
from tests.model_fixtures import (
    CUTOFF,
    REPRESENTATIONS,
    PairTerms,
    Total,
    assemble,
    batch,
    potential,
    state,
    thermal,
)

AG, S, BR = 47, 16, 35
STRENGTHS = {(AG, S): 3.0, (AG, BR): -2.0, (AG, AG): 1.0, (S, BR): 0.5, (S, S): 4, (BR, BR): -1}


def edges(attribution: BondAttribution) -> list[tuple[int, ...]]:
    return list(zip(attribution.idx_i, attribution.idx_j, *attribution.image.T, strict=True))


@pytest.mark.parametrize("representation", REPRESENTATIONS)
@pytest.mark.parametrize("head", [Intensive, BandGap])
def test_bonds_add_up_to_the_change_that_the_host_predicts(representation, head):
    """Completeness to 1 %, and the two ends from the host's own neighbour lists."""
    snapshots = [thermal(seed, strain=0.01) for seed in range(4)]
    ends = [atoms for snapshot in snapshots for atoms in snapshot]
    plain = potential(Intensive(16, "y"), representation=representation)
    raw = plain(batch(ends))["y"].detach()
    # The same weights, at gaps of 0.1 +- 0.1 eV, where the softplus is curved.
    model = potential(head(16, "y"), representation=representation)
    (output,) = model.output_modules
    output.scale.fill_(0.1 / raw[1::2].std())
    output.offset.fill_(0.1 - output.scale.item() * raw[0])

    found = [attribute_displacement(model, *snapshot, "y") for snapshot in snapshots]
    values = [x for a in found for x in (a.ideal_value, a.value)]
    expected = model(batch(ends))["y"].detach().double().numpy()
    np.testing.assert_allclose(values, expected, atol=1e-4)
    changes = expected[1::2] - expected[::2]
    assert changes.std() > 0.03
    sums = [a.attribution.sum() for a in found]
    np.testing.assert_allclose(sums, changes, atol=0.01 * np.abs(changes).mean())
    residuals = [a.residual for a in found]
    np.testing.assert_allclose(residuals, changes - sums, atol=2e-4)


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.float64, 1e-6)])
@pytest.mark.parametrize("strain", [0.0, 0.02])
def test_pair_terms_come_back_edge_by_edge(dtype, tolerance, strain):
    """A sum of t(d) gives t(d) - t(d0) for each edge, with distances found by hand."""
    model = assemble(PairTerms(STRENGTHS), Total("y"), dtype=dtype)
    nn.init.ones_(model.output_modules[0].weight)
    ideal, displaced = thermal(3, strain=strain)
    found = attribute_displacement(model, ideal, displaced, "y")
    i, j = found.idx_i, found.idx_j
    distances, terms = [], []
    for atoms in (ideal, displaced):
        vectors = atoms.positions[j] + found.image @ atoms.cell.array - atoms.positions[i]
        distances.append(np.linalg.norm(vectors, axis=1))
        k = [STRENGTHS.get((a, b), STRENGTHS.get((b, a))) for a, b in ideal.numbers[[i, j]].T]
        terms.append(np.array(k) * np.clip(1 - distances[-1] / CUTOFF, 0, None) ** 3)
    np.testing.assert_allclose(found.attribution, terms[1] - terms[0], atol=tolerance)
    np.testing.assert_allclose(found.ideal_distance, distances[0], atol=1e-5)
    np.testing.assert_allclose(found.distance, distances[1], atol=1e-5)


@pytest.mark.parametrize(
    ("pair", "name"), [((AG, S), "Ag-S"), ((AG, AG), "Ag-Ag"), ((AG, BR), "Ag-Br")]
)
def test_planted_bond_type_is_found(pair, name):
    """A nonlinear head on the terms of one bond type: that type carries everything."""
    model = assemble(PairTerms({pair: 1.0}), Intensive(1, "y", n_hidden=8), seed=2)
    found = [attribute_displacement(model, *thermal(seed, strain=0.01), "y") for seed in range(8)]
    assert len(set(found[0].bond_types)) == 6
    for attribution in found:
        assert attribution.by_type().abs().idxmax() == name
    shares = variance_shares(found)["share"]
    assert shares.idxmax() == name
    assert shares[name] >= 0.9
    assert shares.drop(name).abs().max() <= 0.05


def test_swapped_ends_swap_the_sign():
    model = potential(Intensive(16, "y"), dtype=torch.float64)
    ideal, displaced = thermal(1, strain=0.01)
    there = attribute_displacement(model, ideal, displaced, "y")
    back = attribute_displacement(model, displaced, ideal, "y")
    assert there.change == pytest.approx(-back.change)
    values = [dict(zip(edges(a), a.attribution, strict=True)) for a in (there, back)]
    assert values[0].keys() == values[1].keys()
    np.testing.assert_allclose(
        [values[0][edge] for edge in values[0]], [-values[1][edge] for edge in values[0]], atol=1e-6
    )


def test_bond_types_are_unordered():
    """Both directions of a bond carry one name, whatever the order of the elements."""
    found = attribute_displacement(potential(Intensive(16, "y")), *thermal(), "y")
    symbols = thermal()[0].get_chemical_symbols()
    for name, i, j in zip(found.bond_types, found.idx_i, found.idx_j, strict=True):
        assert name == "-".join(sorted([symbols[i], symbols[j]]))


# Paths


def skew(seed: int) -> tuple[Atoms, Atoms]:
    """Two atoms in a flat, skew cell, some way outside it; strain and large displacements."""
    rng = np.random.default_rng(seed)
    ideal = Atoms("NaCl", cell=[[4, 0, 0], [2.5, 3, 0], [-1, 1.5, 4]], pbc=True)
    ideal.positions = rng.uniform(-6, 6, (2, 3))
    displaced = ideal.copy()
    displaced.set_cell(ideal.cell.array @ (np.eye(3) + 0.03 * rng.normal(size=(3, 3))), True)
    displaced.positions += rng.normal(0, 0.5, (2, 3))
    return ideal, displaced


def stretched() -> tuple[Atoms, Atoms]:
    """A chain with a short period, of which distant images come within the cutoff."""
    ideal = Atoms("Cu", cell=[1.5, 12, 12], pbc=True)
    displaced = ideal.copy()
    displaced.set_cell([1.2, 12, 12], scale_atoms=True)
    return ideal, displaced


def passing() -> tuple[Atoms, Atoms]:
    """One atom that comes within 4.5 Ang of the other only midway."""
    ideal = Atoms("NaCl", positions=[[0, 0, 0], [-4, 4.5, 0]], cell=[40, 40, 40], pbc=True)
    displaced = ideal.copy()
    displaced.positions[1, 0] = 4
    return ideal, displaced


@pytest.mark.parametrize(
    "ends",
    [thermal(1), thermal(2, strain=0.03, amplitude=0.3), skew(0), skew(1), stretched(), passing()],
    ids=["thermal", "hot and strained", "skew", "skew too", "stretched", "passing"],
)
def test_path_edges_by_brute_force(ends):
    """Every pair of atoms and every image, along 401 points of the path."""
    ideal, displaced = ends
    n = len(ideal)
    shifts = np.array(list(product(range(-9, 10), repeat=3)))
    shortest = np.full((n, n, len(shifts)), np.inf)
    for u in np.linspace(0, 1, 401):
        positions = (1 - u) * ideal.positions + u * displaced.positions
        cell = (1 - u) * ideal.cell.array + u * displaced.cell.array
        vectors = positions[None, :, None] - positions[:, None, None] + shifts @ cell
        shortest = np.minimum(shortest, np.linalg.norm(vectors, axis=-1))
    shortest[np.arange(n), np.arange(n), len(shifts) // 2] = np.inf  # an atom and itself
    assert np.abs(shortest - CUTOFF).min() > 1e-5  # else the samples could not decide
    i, j, s = np.nonzero(shortest < CUTOFF)
    expected = {(a, b, *shifts[c]) for a, b, c in zip(i, j, s, strict=True)}
    i, j, image = path_edges(ideal, displaced, CUTOFF)
    found = list(zip(i, j, *image.T, strict=True))
    assert len(set(found)) == len(found)
    assert set(found) == expected
    assert {(b, a, -x, -y, -z) for a, b, x, y, z in found} == set(found)


def test_atoms_that_pass_midway_are_a_bond():
    """Out of range at both ends: two edges whose attributions cancel along the path."""
    model = assemble(PairTerms({(11, 17): 1.0}), Total("y"))
    found = attribute_displacement(model, *passing(), "y", n_steps=64)
    assert edges(found) == [(0, 1, 0, 0, 0), (1, 0, 0, 0, 0)]
    assert found.change == 0
    np.testing.assert_allclose(found.attribution, 0, atol=1e-6)


# What a model must not notice


class Failing(nn.Module):
    """An output module that raises."""

    model_outputs = ("broken",)

    def forward(self, inputs: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        raise ZeroDivisionError


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("grad_mode", [False, True])
@pytest.mark.parametrize("fails", [False, True])
def test_model_is_left_as_it_was_found(training, grad_mode, fails):
    model = potential(BandGap(16, "y"), *([Failing()] if fails else [])).train(training)
    model.representation.embedding.weight.requires_grad_(False)
    with torch.set_grad_enabled(grad_mode):
        before = state(model)
        if fails:
            with pytest.raises(ZeroDivisionError):
                attribute_displacement(model, *thermal(), "y")
        else:
            attribute_displacement(model, *thermal(), "y")
        assert state(model) == before


def test_part_of_a_model_in_evaluation_mode_stays_so():
    """A frozen representation under a head that is being trained."""
    model = potential(BandGap(16, "y")).train()
    model.representation.eval()
    before = state(model)
    attribute_displacement(model, *thermal(), "y")
    assert state(model) == before


def test_dropout_is_off():
    model = potential(BandGap(16, "y"))
    plain = attribute_displacement(model, *thermal(), "y")
    model.output_modules[0].outnet.insert(1, nn.Dropout(0.5))
    again = attribute_displacement(model.train(), *thermal(), "y")
    np.testing.assert_array_equal(again.attribution, plain.attribution)


def test_model_with_forces():
    """Derivatives of other outputs with respect to positions do not get in the way."""
    model = potential(BandGap(16, "y"), Atomwise(16, output_key="energy"), Forces())
    plain = potential(BandGap(16, "y"), Atomwise(16, output_key="energy"))
    plain.load_state_dict(model.state_dict())
    found, expected = (attribute_displacement(m, *thermal(), "y") for m in (model, plain))
    np.testing.assert_allclose(found.attribution, expected.attribution, atol=1e-7)


def test_wrong_arguments_are_named():
    model = potential(BandGap(16, "y"))
    ideal, displaced = thermal()
    with pytest.raises(ValueError, match=r"no output 'gap'.*\['y'\]"):
        attribute_displacement(model, ideal, displaced, "gap")
    with pytest.raises(ValueError, match="different atoms"):
        attribute_displacement(model, ideal, displaced[[3, 0, 1, 2, 4]], "y")
    with pytest.raises(ValueError, match="different atoms"):
        attribute_displacement(model, bulk("Cu"), displaced, "y")


# The control


@pytest.mark.parametrize("representation", REPRESENTATIONS)
def test_untrained_forgets_every_weight_and_keeps_buffers(representation):
    """Training is imitated by a shift of 10, far from where any weight starts."""
    model = potential(BandGap(16, "y"), representation=representation)
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
        untrained(potential(BandGap(16, "y"), trainable_basis=True), 0)


# Variance shares


def attribution(**by_type: float) -> BondAttribution:
    """One bond of each type, named like Ag_S, with the given attributions."""
    numbers = np.array([AG, S, BR])
    ends = {"Ag_S": (0, 1), "Ag_Br": (0, 2), "Br_S": (2, 1)}
    idx_i, idx_j = np.array([ends[name] for name in by_type]).T
    values = np.array(list(by_type.values()))
    zeros = np.zeros(len(values))
    images = np.zeros((len(values), 3), int)
    ends_of_path = (1.0, 1.0 + values.sum())
    return BondAttribution("y", numbers, idx_i, idx_j, images, zeros, zeros, values, *ends_of_path)


def test_variance_shares_are_covariances():
    """Cov(A_t, df) / Var(df) by numpy; a type that a structure lacks counts as zero."""
    a, b, c = np.random.default_rng(0).normal(size=(3, 40)) * [[1.0], [0.5], [0.2]]
    c[:5] = 0
    found = variance_shares(
        [attribution(Ag_S=x, Ag_Br=y) for x, y in zip(a[:5], b[:5], strict=True)]
        + [attribution(Ag_S=x, Br_S=z, Ag_Br=y) for x, y, z in zip(a, b, c, strict=True)][5:]
    )
    change = a + b + c
    for name, values in (("Ag-S", a), ("Ag-Br", b), ("Br-S", c)):
        expected = np.cov(values, change)[0, 1] / np.var(change, ddof=1)
        assert found.loc[name, "share"] == pytest.approx(expected, rel=1e-6)
        assert found.loc[name, "low"] < expected < found.loc[name, "high"]
    assert found["share"].sum() == pytest.approx(1)


def test_variance_shares_of_proportional_terms_are_certain():
    """A_t = w_t df: every resampling gives w_t."""
    changes = np.random.default_rng(1).normal(size=12)
    found = variance_shares([attribution(Ag_S=1.3 * x, Ag_Br=-0.3 * x) for x in changes])
    np.testing.assert_allclose(found.loc["Ag-S"], 1.3, rtol=1e-6)
    np.testing.assert_allclose(found.loc["Ag-Br"], -0.3, rtol=1e-6)


def test_interval_has_the_width_of_a_regression_slope():
    """A = w df + noise: the share is a slope, with standard error s_noise / (s_df sqrt(n))."""
    n, w, noise = 400, 0.7, 0.5
    rng = np.random.default_rng(2)
    change, rest = rng.normal(size=(2, n)) * [[1.0], [noise]]
    terms = w * change + rest
    found = variance_shares(
        [attribution(Ag_S=a, Ag_Br=x - a) for a, x in zip(terms, change, strict=True)]
    )
    width = found.loc["Ag-S", "high"] - found.loc["Ag-S", "low"]
    assert width == pytest.approx(2 * 1.96 * noise / np.sqrt(n), rel=0.2)


@pytest.mark.parametrize(
    "attributions",
    [
        [attribution(Ag_S=1.0), attribution(Ag_S=2.0)],
        [attribution(Ag_S=0.5, Ag_Br=-0.5)] * 5,
        [attribution(Ag_S=0.3)] * 5,
    ],
    ids=["two structures", "no change", "one and the same change"],
)
def test_variance_shares_are_empty_where_they_mean_nothing(attributions):
    found = variance_shares(attributions)
    assert found.empty
    assert list(found.columns) == ["share", "low", "high"]
