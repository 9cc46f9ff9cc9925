import numpy as np
import torch

from schnetpack_phonon.models import elastic_tensor as voigt
from schnetpack_phonon.structures import elasticity


def random_tensors() -> tuple[np.ndarray, np.ndarray]:
    a, b = np.random.default_rng(0).normal(size=(2, 3, 3))
    return a + a.T, b + b.T


def full(tensor: np.ndarray) -> np.ndarray:
    """Voigt -> C_ijkl."""
    component = np.array([[0, 5, 4], [5, 1, 3], [4, 3, 2]])
    return tensor[component][:, :, component]


def test_components_are_those_of_the_labels():
    a, _ = random_tensors()
    found = voigt.symmetric_part(torch.tensor(a[None]))[0].numpy()
    np.testing.assert_allclose(found, elasticity.tensor_to_voigt(a))
    skew = np.array([[0, 1.0, 2], [-1, 0, 3], [-2, -3, 0]])
    np.testing.assert_allclose(voigt.symmetric_part(torch.tensor((a + skew)[None]))[0], found)


def test_dyads_are_outer_products():
    direction = np.random.default_rng(1).normal(size=3)
    found = voigt.dyads(torch.tensor(direction[None]))[0].numpy()
    np.testing.assert_allclose(found, elasticity.tensor_to_voigt(np.outer(direction, direction)))


def test_square_product_in_full_notation():
    a, b = random_tensors()
    expected = sum(
        np.einsum(which, a, b)
        for which in ("ik,jl->ijkl", "jk,il->ijkl", "il,jk->ijkl", "jl,ik->ijkl")
    )
    components = [elasticity.tensor_to_voigt(each) for each in (a, b)]
    found = np.einsum("xyij,x,y->ij", voigt.square_products(), *components)
    np.testing.assert_allclose(full(found), expected / 4, atol=1e-12)
    np.testing.assert_allclose(found, found.T, atol=1e-12)


def test_isotropic_tensors_have_their_moduli():
    found = voigt.isotropic(torch.tensor([[3 * 70.0, 2 * 30.0]], dtype=torch.float64))
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
    part = voigt.isotropic_part(tensor)
    left = voigt.isotropic_part(tensor - voigt.isotropic(part))
    torch.testing.assert_close(left, torch.zeros_like(left), atol=1e-12, rtol=0)
    rotation = np.linalg.qr(rng.normal(size=(3, 3)))[0]
    turned = torch.tensor(elasticity.rotated(tensor.numpy(), rotation))
    torch.testing.assert_close(voigt.isotropic_part(turned), part)
