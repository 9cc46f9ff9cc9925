"""What is special to the elastic tensor; promises of all heads are in test_heads_contract.py."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from schnetpack_phonon.models.bond_scalars import N_SUMMED
from schnetpack_phonon.models.elastic_tensor import ElasticTensor, _raised
from schnetpack_phonon.structures import elasticity
from tests.models.model_fixtures import CUTOFF, batch, data_module, potential, thermal

STRUCTURES = [thermal(k, formula, strain=0.02)[1] for k, formula in enumerate(["Ag3SBr", "Ag3SI"])]


def labels() -> np.ndarray:
    noise = np.random.default_rng(0).normal(0, 5, (2, 6, 6))
    cubic = np.diag([120.0, 120, 120, 30, 30, 30])
    cubic[:3, :3] += 40 * (1 - np.eye(3))
    return np.array([cubic, 1.5 * cubic]) + noise + noise.swapaxes(1, 2)


def fitted(tmp_path, **kwargs):
    data = data_module(tmp_path / "a.db", STRUCTURES, range(2), elastic_tensor=labels())
    model = potential(ElasticTensor(16, CUTOFF, **kwargs), dtype=torch.float64)
    model.initialize_transforms(data)
    return model


def isotropic(tensor: np.ndarray) -> np.ndarray:
    """Voigt's average as a tensor: the mean over all rotations."""
    average = elasticity.voigt_average(tensor)
    lame = average.bulk - 2 * average.shear / 3
    result = average.shear * np.diag([2.0, 2, 2, 1, 1, 1])
    result[:3, :3] += lame
    return result


def test_bonds_add_up_to_the_tensor(tmp_path):
    """What is left is isotropic: the mean of the labels of the same composition."""
    model = fitted(tmp_path, bonds_key="bonds")
    results = model(batch(STRUCTURES[:1], torch.float64))
    rest = results["elastic_tensor"][0] - results["bonds"].sum(0)
    expected = isotropic(labels()[0])
    np.testing.assert_allclose(rest.detach(), expected, rtol=1e-4, atol=1e-4)


def test_bonds_have_all_symmetries_of_a_tensor():
    """Those of pairs are symmetric matrices; a bond's own axis is one of its tensor, if alone."""
    head = ElasticTensor(16, CUTOFF, n_tensors=1, bonds_key="bonds")
    model = potential(head, dtype=torch.float64)
    torch.nn.init.zeros_(head.weights.out.weight)
    torch.nn.init.zeros_(head.weights.out.bias)
    inputs = batch(STRUCTURES[:1], torch.float64)
    bonds = model(inputs)["bonds"].detach().numpy()
    np.testing.assert_allclose(bonds, bonds.swapaxes(1, 2), atol=1e-12)
    axis = inputs["_Rij"][0].numpy()
    axis /= np.linalg.norm(axis)
    skew = np.cross(np.eye(3), axis)
    turn = np.eye(3) + np.sin(0.7) * skew + (1 - np.cos(0.7)) * skew @ skew
    np.testing.assert_allclose(turn @ axis, axis, atol=1e-12)
    np.testing.assert_allclose(elasticity.rotated(bonds[0], turn), bonds[0], atol=1e-9)
    # All five constants of a body with an axis are free: bonds of different lengths differ in all.
    assert np.linalg.matrix_rank(bonds.reshape(len(bonds), -1), tol=1e-6) == 21


def test_offset_and_scale_are_those_of_the_labels(tmp_path):
    model = fitted(tmp_path)
    head = model.output_modules[0]
    offset = head.offset[STRUCTURES[0].numbers].mean(0)
    average = elasticity.voigt_average(labels()[0])
    np.testing.assert_allclose(offset, [3 * average.bulk, 2 * average.shear], rtol=1e-5)
    weights = np.sqrt([1, 1, 1, 2, 2, 2])
    rest = (labels() - [isotropic(each) for each in labels()]) * np.outer(weights, weights)
    volume = np.mean([atoms.get_volume() / 5 for atoms in STRUCTURES])
    electronvolts = np.sqrt(np.mean(rest**2)) * volume / 160.21766
    assert head.scale.item() == pytest.approx(electronvolts / N_SUMMED, rel=1e-5)


def test_positive_tensors_cost_energy_under_every_strain(tmp_path):
    structures = [thermal(k, strain=0.05)[1] for k in range(8)]
    free, positive = fitted(tmp_path), fitted(tmp_path, positive=True)
    tensors = [model(batch(structures, torch.float64)) for model in (free, positive)]
    tensors = [each["elastic_tensor"].detach().numpy() for each in tensors]
    assert not elasticity.is_stable(tensors[0]).all()  # random weights
    assert elasticity.is_stable(tensors[1]).all()


def test_matrices_of_equal_eigenvalues_have_a_gradient():
    """As ideal crystals have; there and elsewhere it is the slope of the function."""
    rng = np.random.default_rng(0)
    vectors = np.linalg.qr(rng.normal(size=(6, 6)))[0]
    direction = torch.tensor(vectors + vectors.T)
    for eigenvalues in ([2.0, 2, 2, -1, -1, 0.5], [0.0] * 6, [2.0, 2.0005, -3, 1, -0.2, 0.7]):
        start = torch.tensor(vectors @ np.diag(eigenvalues) @ vectors.T)[None].requires_grad_()
        weight = torch.tensor(rng.normal(size=(6, 6)))
        (gradient,) = torch.autograd.grad((_raised(start) * weight).sum(), start)
        step = 1e-6
        ends = [(_raised(start + sign * step * direction) * weight).sum() for sign in (1, -1)]
        slope = (ends[0] - ends[1]) / (2 * step)
        assert (gradient * direction).sum().item() == pytest.approx(slope.item(), rel=1e-4)
