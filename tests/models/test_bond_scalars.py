import numpy as np
import pytest
import schnetpack as spk
import torch
from schnetpack import properties as host
from schnetpack.atomistic import PairwiseDistances
from schnetpack.model import NeuralNetworkPotential

from schnetpack_phonon.common.properties import PROPERTIES
from schnetpack_phonon.models.bond_scalars import BondScalars, crystal_labels, volumes
from schnetpack_phonon.models.elastic_tensor import ElasticTensor
from schnetpack_phonon.models.stress import StressTensor
from schnetpack_phonon.structures.crystals import antiperovskite
from tests.models.model_fixtures import CUTOFF, batch, data_module, potential, thermal

_, SNAPSHOT = thermal(strain=0.02)
LABEL = np.diag([100.0, 100, 100, 30, 30, 30])


def test_scalars_of_bonds_vanish_at_the_cutoff():
    """So that neighbours come and go without a jump, whatever the list's own cutoff."""
    scalars = BondScalars(16, 3, cutoff=4.0, n_extra=2)
    model = potential()
    inputs = batch([SNAPSHOT])
    for module in model.input_modules:
        inputs = module(inputs)
    inputs = model.representation(inputs)
    extra = torch.ones(len(inputs[host.idx_i]), 2)
    found = scalars(inputs, extra)
    distance = inputs[host.Rij].norm(dim=1)
    assert (distance > 4.0).any()
    assert not found[distance >= 4.0].any()
    assert found[distance < 3.9].all()
    assert not torch.allclose(found, scalars(inputs, 0 * extra))


@pytest.mark.parametrize("head", [StressTensor, ElasticTensor])
def test_fresh_heads_start_near_the_mean_of_the_labels(head, tmp_path):
    """In units of the spread, for the weights that a user's model begins with."""
    crystals = [antiperovskite("Ag3SBr").repeat(2) for _ in range(2)]
    for seed, atoms in enumerate(crystals):
        atoms.rattle(0.15, seed=seed)
    key = head(32, CUTOFF).output_key
    noise = np.random.default_rng(0).normal(0, 5, (2, *PROPERTIES[key].shape))
    labels = noise + noise.swapaxes(1, 2)
    data = data_module(tmp_path / "a.db", crystals, [0, 1], **{key: labels})
    off = []
    for seed in range(6):
        torch.manual_seed(seed)
        network = spk.representation.PaiNN(
            32, 2, spk.nn.GaussianRBF(20, CUTOFF), spk.nn.CosineCutoff(CUTOFF)
        )
        model = NeuralNetworkPotential(network, [PairwiseDistances()], [head(32, CUTOFF)])
        model.initialize_transforms(data)
        result = model(batch(crystals))[key].detach().numpy()
        off.append(np.sqrt(np.mean((result - labels.mean(axis=0)) ** 2)) / labels.std())
    assert np.median(off) < 2


def test_volume_is_that_of_the_cell():
    structures = [SNAPSHOT, SNAPSHOT.repeat((2, 1, 1))]
    found = volumes(batch(structures, torch.float64))
    np.testing.assert_allclose(found, [atoms.get_volume() for atoms in structures])


def test_labels_come_with_shares_and_volume(tmp_path):
    structures = [SNAPSHOT, thermal(1, "Ag3SI")[1], thermal(2)[1]]
    labels = [LABEL, np.full((6, 6), np.nan), 2 * LABEL]
    data = data_module(tmp_path / "a.db", structures, [0, 1, 2], elastic_tensor=labels)
    found, shares, volume = crystal_labels(data, "elastic_tensor", (6, 6))
    np.testing.assert_allclose(found, [LABEL, 2 * LABEL])
    np.testing.assert_allclose(shares[:, [16, 35, 47, 53]], [[0.2, 0.2, 0.6, 0]] * 2)
    assert volume == pytest.approx(np.mean([atoms.get_volume() / 5 for atoms in structures]))


def test_structures_that_are_not_periodic_are_named(tmp_path):
    slab = SNAPSHOT.copy()
    slab.pbc = [True, True, False]
    data = data_module(tmp_path / "a.db", [SNAPSHOT, slab], [0, 1], elastic_tensor=[LABEL] * 2)
    message = r"structure 1 in .*a.db is periodic along \[True, True, False\]; expected all"
    with pytest.raises(ValueError, match=message):
        crystal_labels(data, "elastic_tensor", (6, 6))


def test_labels_that_are_not_symmetric_are_named(tmp_path):
    skew = LABEL.copy()
    skew[0, 1] = 40
    data = data_module(tmp_path / "a.db", [SNAPSHOT] * 2, [0, 1], elastic_tensor=[LABEL, skew])
    with pytest.raises(ValueError, match=r"'elastic_tensor' of structure 1 in .* is not symmetric"):
        crystal_labels(data, "elastic_tensor", (6, 6))
