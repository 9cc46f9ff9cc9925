"""Attribution against closed forms, known bond types and predictions of SchNetPack."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import torch
from ase import Atoms
from schnetpack import properties as structure_keys
from schnetpack.atomistic import Forces, PairwiseDistances
from schnetpack.model import NeuralNetworkPotential
from schnetpack.nn import CosineCutoff, GaussianRBF
from schnetpack.representation import PaiNN
from torch import nn

from schnetpack_phonon.attribution.bond_attribution import attribute
from schnetpack_phonon.attribution.results import shares
from schnetpack_phonon.data.reading import Structure
from schnetpack_phonon.models.hamiltonian.head import HamiltonianEdges
from schnetpack_phonon.models.heads import BandGap, Energy, Intensive
from schnetpack_phonon.structures.crystals import antiperovskite
from tests.attribution.attribution_fixtures import AG, BR, STRENGTHS, S, one
from tests.attribution.bond_attribution.bond_attribution_fixtures import bonds
from tests.models.model_fixtures import (
    CUTOFF,
    REPRESENTATIONS,
    PairTerms,
    Total,
    assemble,
    batch,
    potential,
    thermal,
)

BY_TYPE = pytest.mark.parametrize(
    ("pair", "name"), [((AG, S), "Ag-S"), ((AG, AG), "Ag-Ag"), ((AG, BR), "Ag-Br")]
)


@pytest.mark.parametrize("representation", REPRESENTATIONS)
@pytest.mark.parametrize("head", [Intensive, BandGap])
def test_bonds_add_up_to_the_change_of_the_prediction(representation, head):
    """Completeness to 1 %, and both ends with SchNetPack's own neighbour lists."""
    snapshots = [thermal(seed, strain=0.01) for seed in range(4)]
    ends = [atoms for snapshot in snapshots for atoms in snapshot]
    plain = potential(Intensive(16, "y"), representation=representation)
    raw = plain(batch(ends))["y"].detach()
    # The same weights, at gaps of 0.1 +- 0.1 eV, some of them in the rounded corner.
    model = potential(head(16, "y"), representation=representation)
    (output,) = model.output_modules
    output.scale.fill_(0.1 / raw[1::2].std())
    output.offset.fill_(0.1 - output.scale.item() * raw[0])

    found = [one(model, *snapshot) for snapshot in snapshots]
    values = [x for a in found for x in (a.start, a.value)]
    expected = model(batch(ends))["y"].detach().double().numpy()
    np.testing.assert_allclose(values, expected, atol=1e-4)
    changes = expected[1::2] - expected[::2]
    assert changes.std() > 0.03
    sums = [a.attribution.sum() for a in found]
    np.testing.assert_allclose(sums, changes, atol=0.01 * np.abs(changes).mean())
    residuals = [a.residual for a in found]
    np.testing.assert_allclose(residuals, changes - sums, atol=2e-4)


@pytest.mark.parametrize("kpoint_length", [0.0, 8.0])
def test_bonds_add_up_to_the_change_of_a_gap_between_levels(kpoint_length):
    """Its gradients need no derivatives of eigenvectors; the ideal crystal has degenerate ones."""
    head = HamiltonianEdges(["Ag", "S", "Br"], CUTOFF, kpoint_length=kpoint_length)
    model = potential(head, representation="NoFeatures")
    for seed in (0, 3):
        found = one(model, *thermal(seed, strain=0.01), "band_gap")
        assert abs(found.change) > 0.01
        assert abs(found.residual) < 0.01 * abs(found.change)


def test_bonds_add_up_to_small_changes_of_large_energies():
    """At -732 eV an atom in single precision; a change that is no change is not resolved."""
    model = potential(Energy(16), Forces())
    model.output_modules[0].offset[:] = -731.7
    ideal, displaced = thermal(amplitude=0.02)
    found = one(model, ideal, displaced, "energy")
    assert abs(found.start) > 3600
    assert found.resolution < 1e-5 < 1e-3 < abs(found.change)
    assert abs(found.residual) < 0.01 * abs(found.change)
    nothing = one(model, ideal, ideal.copy(), "energy")
    assert abs(nothing.change) < nothing.resolution


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.float64, 1e-6)])
@pytest.mark.parametrize("strain", [0.0, 0.02])
def test_pair_terms_are_found_bond_by_bond(dtype, tolerance, strain):
    """A sum of t(d) gives 2 t(d) - 2 t(d0) for each bond, with distances found by hand."""
    model = assemble(PairTerms(STRENGTHS), Total("y"), dtype=dtype)
    nn.init.ones_(model.output_modules[0].weight)
    ideal, displaced = thermal(3, strain=strain)
    found = one(model, ideal, displaced, even=False)
    path, k = found.path, found.path.first
    i, j, image = path.idx_i[k], path.idx_j[k], path.image[k]
    distances, terms = [], []
    for atoms in (ideal, displaced):
        vectors = atoms.positions[j] + image @ atoms.cell.array - atoms.positions[i]
        distances.append(np.linalg.norm(vectors, axis=1))
        k = [STRENGTHS.get((a, b), STRENGTHS.get((b, a))) for a, b in ideal.numbers[[i, j]].T]
        terms.append(2 * np.array(k) * np.clip(1 - distances[-1] / CUTOFF, 0, None) ** 3)
    np.testing.assert_allclose(found.attribution, terms[1] - terms[0], atol=tolerance)
    table = found.bonds()
    np.testing.assert_allclose(table["ideal_distance"], distances[0], atol=1e-5)
    np.testing.assert_allclose(table["distance"], distances[1], atol=1e-5)
    whole = one(model, ideal, displaced, kind="mask")
    keys = dict(zip(bonds(found), terms[1], strict=True))
    np.testing.assert_allclose(whole.attribution, [keys[b] for b in bonds(whole)], atol=tolerance)


@BY_TYPE
def test_bond_type_of_the_model_is_found(pair, name):
    """A nonlinear head on the terms of one bond type: that type carries everything."""
    model = assemble(PairTerms({pair: 1.0}), Intensive(1, "y", n_hidden=8), seed=2)
    structures = [Structure(*thermal(seed, strain=0.01), seed, "x") for seed in range(8)]
    found = attribute(model, structures, "y", even=False)
    assert len(set(found[0].path.bond_types)) == 6
    for attribution in found:
        assert attribution.by_type().abs().idxmax() == name
    sums = pd.DataFrame([a.by_type() for a in found])
    share = shares(sums, [a.change for a in found])["share"]
    assert share.idxmax() == name
    assert share[name] >= 0.9
    assert share.drop(name).abs().max() <= 0.05


def rattled(seed: int) -> tuple[Atoms, Atoms]:
    """40 atoms, displaced by 0.15 Ang (rms per component)."""
    ideal = antiperovskite("Ag3SBr").repeat(2)
    displaced = ideal.copy()
    displaced.rattle(0.15, seed=seed)
    return ideal, displaced


def overlaps(inputs: dict[str, torch.Tensor], pair: tuple[int, int]) -> torch.Tensor:
    """Sum over the bonds of one type of exp(-3 d / Ang), of each structure."""
    i, j, z = inputs[structure_keys.idx_i], inputs[structure_keys.idx_j], inputs[structure_keys.Z]
    vectors = (
        inputs[structure_keys.R][j] - inputs[structure_keys.R][i] + inputs[structure_keys.offsets]
    )
    chosen = (z[i] == pair[0]) & (z[j] == pair[1]) | (z[i] == pair[1]) & (z[j] == pair[0])
    terms = chosen * torch.exp(-3 * vectors.norm(dim=1))
    return torch.zeros(len(inputs[structure_keys.n_atoms])).index_add(
        0, inputs[structure_keys.idx_m][i], terms
    )


@pytest.mark.slow
@BY_TYPE
def test_bond_type_that_a_model_learnt_is_found(pair, name):
    """PaiNN trained on labels that depend on the bonds of one type."""
    torch.manual_seed(0)
    batches = [batch([rattled(k + n)[1] for n in range(8)]) for k in range(0, 240, 8)]
    labels = torch.stack([overlaps(inputs, pair) for inputs in batches])
    labels = (labels - labels.mean()) / labels.std()
    network = PaiNN(32, 2, GaussianRBF(20, CUTOFF), CosineCutoff(CUTOFF))
    model = NeuralNetworkPotential(network, [PairwiseDistances()], [Intensive(32, "y")])
    optimizer = torch.optim.Adam(model.parameters())
    steps = 50 * len(batches)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 3e-3, total_steps=steps)
    for step in range(steps):
        k = step % len(batches)
        loss = (model(dict(batches[k]))["y"] - labels[k]).pow(2).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    structures = [Structure(*rattled(seed), seed, "x") for seed in range(1000, 1020)]
    found = attribute(model, structures, "y", even=False)
    for attribution in found:
        assert attribution.by_type().abs().idxmax() == name
    sums = pd.DataFrame([a.by_type() for a in found])
    assert shares(sums, [a.change for a in found])["share"][name] >= 0.9
