"""The elastic tensor, its moduli and Voigt's notation against :mod:`.structures.elasticity`.

What all heads guarantee is in heads_contract.
"""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.spatial.transform import Rotation

from schnetpack_phonon.common.properties import MODULI, PROPERTIES
from schnetpack_phonon.models.bond_scalars import N_SUMMED
from schnetpack_phonon.models.elastic_tensor import (
    ElasticModuli,
    ElasticTensor,
    _raised,
    dyads,
    isotropic,
    isotropic_part,
    square_products,
    symmetric_part,
)
from schnetpack_phonon.structures import elasticity
from tests.models.model_fixtures import CUTOFF, batch, data_module, potential, scripted, thermal

STRUCTURES = [thermal(k, formula, strain=0.02)[1] for k, formula in enumerate(["Ag3SBr", "Ag3SI"])]
CUBIC = np.diag([120.0, 120, 120, 30, 30, 30])
CUBIC[:3, :3] += 40 * (1 - np.eye(3))


def labels() -> np.ndarray:
    noise = np.random.default_rng(0).normal(0, 5, (2, 6, 6))
    return np.array([CUBIC, 1.5 * CUBIC]) + noise + noise.swapaxes(1, 2)


def fitted(tmp_path, **kwargs):
    data = data_module(tmp_path / "a.db", STRUCTURES, range(2), elastic_tensor=labels())
    model = potential(ElasticTensor(16, CUTOFF, **kwargs), dtype=torch.float64)
    model.initialize_transforms(data)
    return model


def voigt_mean(tensor: np.ndarray) -> np.ndarray:
    """Voigt's average as a tensor: the mean over all rotations."""
    average = elasticity.voigt_average(tensor)
    result = average.shear * np.diag([2.0, 2, 2, 1, 1, 1])
    result[:3, :3] += average.bulk - 2 * average.shear / 3
    return result


def test_bonds_add_up_to_the_tensor(tmp_path):
    """What is left is isotropic: the mean of the labels of the same composition."""
    model = fitted(tmp_path, bonds_key="bonds")
    results = model(batch(STRUCTURES[:1], torch.float64))
    rest = results["elastic_tensor"][0] - results["bonds"].sum(0)
    expected = voigt_mean(labels()[0])
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
    rest = (labels() - [voigt_mean(each) for each in labels()]) * np.outer(weights, weights)
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


def tensors(n: int = 3) -> np.ndarray:
    """Stable, of no symmetry."""
    a = np.random.default_rng(0).normal(size=(n, 6, 6))
    return 20 * (a @ a.swapaxes(1, 2)) + 50 * np.eye(6)


def moduli(tensor: np.ndarray) -> dict[str, np.ndarray]:
    module = ElasticModuli()
    outputs = module({"elastic_tensor": torch.tensor(tensor)})
    return {key: outputs[key].numpy() for key in module.model_outputs}


def test_moduli_agree_with_the_definitions():
    tensor = tensors()
    found = moduli(tensor)
    assert found.keys() == {*MODULI, "universal_anisotropy", "softest_stiffness"}
    assert found.keys() <= PROPERTIES.keys()
    for name in ("voigt", "reuss", "hill"):
        average = getattr(elasticity, f"{name}_average")(tensor)
        np.testing.assert_allclose(found[f"bulk_modulus_{name}"], average.bulk)
        np.testing.assert_allclose(found[f"shear_modulus_{name}"], average.shear)
        np.testing.assert_allclose(found[f"young_modulus_{name}"], average.young)
        np.testing.assert_allclose(found[f"poisson_ratio_{name}"], average.poisson)
    expected = elasticity.universal_anisotropy(tensor)
    np.testing.assert_allclose(found["universal_anisotropy"], expected)


def test_sign_of_the_softest_is_borns_criterion():
    tensor = tensors()
    tensor[1, 3, 3] = -5.0
    found = moduli(tensor)["softest_stiffness"]
    np.testing.assert_array_equal(found > 0, elasticity.is_stable(tensor))
    assert not elasticity.is_stable(tensor).all()


def test_softest_of_a_cubic_crystal():
    """C11 - C12, C11 + 2 C12 and 2 C44 are the eigenvalues."""
    assert moduli(CUBIC[None])["softest_stiffness"] == pytest.approx(60)


def test_moduli_do_not_depend_on_rotations():
    rotation = Rotation.random(rng=0).as_matrix()
    turned = moduli(elasticity.rotated(tensors(), rotation))
    for key, value in moduli(tensors()).items():
        np.testing.assert_allclose(turned[key], value, err_msg=key)


def test_scripted_moduli_equal_eager_and_gradients_are_finite():
    tensor = torch.tensor(tensors(), dtype=torch.float32, requires_grad=True)
    module = ElasticModuli()
    outputs, found = (one({"elastic_tensor": tensor}) for one in (module, scripted(module)))
    for key in module.model_outputs:
        torch.testing.assert_close(found[key], outputs[key])
    sum(outputs[key].sum() for key in module.model_outputs).backward()
    assert tensor.grad.isfinite().all()


def test_singular_tensors_stop_nothing():
    """The compliance is infinite; what does not need it is there."""
    singular = np.diag([100.0, 100, 100, 0, 40, 40])
    found = moduli(singular[None])
    assert found["bulk_modulus_voigt"] == pytest.approx(100 / 3)
    assert found["softest_stiffness"] == pytest.approx(0)


def random_tensors() -> tuple[np.ndarray, np.ndarray]:
    a, b = np.random.default_rng(0).normal(size=(2, 3, 3))
    return a + a.T, b + b.T


def full(tensor: np.ndarray) -> np.ndarray:
    """Voigt -> C_ijkl."""
    component = np.array([[0, 5, 4], [5, 1, 3], [4, 3, 2]])
    return tensor[component][:, :, component]


def test_components_are_those_of_the_labels():
    a, _ = random_tensors()
    found = symmetric_part(torch.tensor(a[None]))[0].numpy()
    np.testing.assert_allclose(found, elasticity.tensor_to_voigt(a))
    skew = np.array([[0, 1.0, 2], [-1, 0, 3], [-2, -3, 0]])
    np.testing.assert_allclose(symmetric_part(torch.tensor((a + skew)[None]))[0], found)


def test_dyads_are_outer_products():
    direction = np.random.default_rng(1).normal(size=3)
    found = dyads(torch.tensor(direction[None]))[0].numpy()
    np.testing.assert_allclose(found, elasticity.tensor_to_voigt(np.outer(direction, direction)))


def test_square_product_in_full_notation():
    a, b = random_tensors()
    expected = sum(
        np.einsum(which, a, b)
        for which in ("ik,jl->ijkl", "jk,il->ijkl", "il,jk->ijkl", "jl,ik->ijkl")
    )
    components = [elasticity.tensor_to_voigt(each) for each in (a, b)]
    found = np.einsum("xyij,x,y->ij", square_products(), *components)
    np.testing.assert_allclose(full(found), expected / 4, atol=1e-12)
    np.testing.assert_allclose(found, found.T, atol=1e-12)


def test_isotropic_tensors_have_their_moduli():
    found = isotropic(torch.tensor([[3 * 70.0, 2 * 30.0]], dtype=torch.float64))
    lame = 70 - 2 * 30 / 3
    assert found[0, 0, 0] == lame + 60
    assert found[0, 0, 1] == lame
    assert found[0, 3, 3] == 30
    average = elasticity.hill_average(found.numpy())
    np.testing.assert_allclose([average.bulk[0], average.shear[0]], [70, 30])


def test_isotropic_part_is_the_projection():
    """What is left has no isotropic part, and the part turns with nothing."""
    rng = np.random.default_rng(2)
    tensor = rng.normal(size=(4, 6, 6))
    tensor = torch.tensor(tensor + tensor.swapaxes(1, 2))
    part = isotropic_part(tensor)
    left = isotropic_part(tensor - isotropic(part))
    torch.testing.assert_close(left, torch.zeros_like(left), atol=1e-12, rtol=0)
    rotation = np.linalg.qr(rng.normal(size=(3, 3)))[0]
    turned = torch.tensor(elasticity.rotated(tensor.numpy(), rotation))
    torch.testing.assert_close(isotropic_part(turned), part)
