import numpy as np
import pytest
import torch
from scipy.spatial.transform import Rotation

from schnetpack_phonon.common.properties import MODULI, PROPERTIES
from schnetpack_phonon.models.elastic_tensor import ElasticModuli
from schnetpack_phonon.structures import elasticity
from tests.models.model_fixtures import scripted


def tensors(n: int = 3) -> np.ndarray:
    """Stable, of no symmetry."""
    a = np.random.default_rng(0).normal(size=(n, 6, 6))
    return 20 * (a @ a.swapaxes(1, 2)) + 50 * np.eye(6)


def moduli(tensor: np.ndarray) -> dict[str, np.ndarray]:
    module = ElasticModuli()
    outputs = module({"elastic_tensor": torch.tensor(tensor)})
    return {key: outputs[key].numpy() for key in module.model_outputs}


def test_all_agree_with_the_definitions():
    tensor = tensors()
    found = moduli(tensor)
    assert found.keys() == {*MODULI, "universal_anisotropy", "softest_stiffness"}
    assert found.keys() <= PROPERTIES.keys()
    for name, average in (
        ("voigt", elasticity.voigt_average(tensor)),
        ("reuss", elasticity.reuss_average(tensor)),
        ("hill", elasticity.hill_average(tensor)),
    ):
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
    cubic = np.diag([120.0, 120, 120, 30, 30, 30])
    cubic[:3, :3] += 40 * (1 - np.eye(3))
    assert moduli(cubic[None])["softest_stiffness"] == pytest.approx(60)


def test_crystals_may_turn():
    rotation = Rotation.random(rng=0).as_matrix()
    turned = moduli(elasticity.rotated(tensors(), rotation))
    for key, value in moduli(tensors()).items():
        np.testing.assert_allclose(turned[key], value, err_msg=key)


def test_scripted_equals_eager_and_gradients_are_finite():
    tensor = torch.tensor(tensors(), dtype=torch.float32, requires_grad=True)
    module = ElasticModuli()
    outputs, found = (
        module({"elastic_tensor": tensor}),
        scripted(module)({"elastic_tensor": tensor}),
    )
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
