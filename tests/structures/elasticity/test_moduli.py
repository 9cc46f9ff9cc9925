"""Symmetry of elastic tensors, and moduli of polycrystals."""

import matscipy.elasticity as matscipy
import numpy as np
import pytest
from ase.build import bulk
from hypothesis import given
from hypothesis import strategies as st

from schnetpack_phonon.structures.elasticity import (
    hill_average,
    is_stable,
    point_group,
    reuss_average,
    rotated,
    symmetrized,
    universal_anisotropy,
    voigt_average,
)
from tests.structures.elasticity.elasticity_fixtures import Springs, from_stress, rotation_matrix


def cubic(c11: float, c12: float, c44: float) -> np.ndarray:
    return matscipy.cubic_to_Voigt_6x6(c11, c12, c44)


def hexagonal(c11: float, c12: float, c13: float, c33: float, c44: float) -> np.ndarray:
    tensor = np.diag([c11, c11, c33, c44, c44, (c11 - c12) / 2])
    tensor[[0, 1], [1, 0]] = c12
    tensor[[0, 1, 2, 2], [2, 2, 0, 1]] = c13
    return tensor


def random_tensor(seed: int) -> np.ndarray:
    """Positive definite, without any symmetry."""
    root = np.random.default_rng(seed).normal(size=(6, 6))
    return root @ root.T + np.diag([9.0, 9, 9, 3, 3, 3])


class TestSymmetry:
    def test_rotations_leave_the_crystal_as_it_is(self):
        """And so its tensor; a supercell has the same 24, each once."""
        hcp = bulk("Mg", "hcp", a=3.2, c=5.0)
        rotations = point_group(hcp.repeat((2, 2, 1)))
        assert rotations.shape == (24, 3, 3)
        tensor = from_stress(hcp, Springs(3.0, 3.1, cutoff=4.0), 1e-4)
        np.testing.assert_allclose(rotated(tensor, rotations), [tensor] * 24, atol=1e-7)
        assert np.abs(rotated(tensor, rotation_matrix()) - tensor).max() > 1e-2

    def test_cubic_part(self):
        """Closed form: the mean over equivalent components."""
        tensor = random_tensor(0)
        c12 = tensor[[0, 0, 1], [1, 2, 2]].mean()
        expected = cubic(np.diag(tensor)[:3].mean(), c12, np.diag(tensor)[3:].mean())
        found = symmetrized(tensor, point_group(bulk("Cu")))
        np.testing.assert_allclose(found, expected, atol=1e-12)

    def test_hexagonal_part(self):
        """Closed form: components in the plane mix, since any sixth of a turn is allowed."""
        c = random_tensor(1)
        normal, shear, c66 = c[0, 0] + c[1, 1], c[3, 3] + c[4, 4], c[5, 5]
        expected = hexagonal(
            c11=(3 * normal + 2 * c[0, 1] + 4 * c66) / 8,
            c12=(normal + 6 * c[0, 1] - 4 * c66) / 8,
            c13=(c[0, 2] + c[1, 2]) / 2,
            c33=c[2, 2],
            c44=shear / 2,
        )
        found = symmetrized(c, point_group(bulk("Mg", "hcp", a=3.2, c=5.2)))
        np.testing.assert_allclose(found, expected, atol=1e-12)

    def test_turned_crystal(self):
        """Symmetrised in its own frame."""
        turned = bulk("Mg", "hcp", a=3.2, c=5.2)
        turned.set_cell(turned.cell.array @ rotation_matrix().T, scale_atoms=True)
        tensor = hexagonal(60, 25, 20, 65, 18) + random_tensor(2)
        found = symmetrized(rotated(tensor, rotation_matrix()), point_group(turned))
        straight = symmetrized(tensor, point_group(bulk("Mg", "hcp", a=3.2, c=5.2)))
        np.testing.assert_allclose(found, rotated(straight, rotation_matrix()), atol=1e-9)

    def test_many_tensors_at_once(self):
        rotations = point_group(bulk("Cu"))
        tensors = np.array(
            [[random_tensor(seed) for seed in row] for row in ((0, 1, 2), (3, 4, 5))]
        )
        found = symmetrized(tensors, rotations)
        assert found.shape == (2, 3, 6, 6)
        np.testing.assert_allclose(found[1, 2], symmetrized(random_tensor(5), rotations))


class TestModuli:
    def test_isotropic(self):
        """From Young's modulus and Poisson's ratio and back, by all three averages."""
        young, poisson = 210.0, 0.29
        shear = young / (2 * (1 + poisson))
        lame = young * poisson / ((1 + poisson) * (1 - 2 * poisson))
        tensor = cubic(lame + 2 * shear, lame, shear)
        for average in (voigt_average, reuss_average, hill_average):
            moduli = average(tensor)
            assert moduli.bulk == pytest.approx(young / (3 * (1 - 2 * poisson)))
            assert moduli.shear == pytest.approx(shear)
            assert moduli.young == pytest.approx(young)
            assert moduli.poisson == pytest.approx(poisson)
        assert universal_anisotropy(tensor) == pytest.approx(0, abs=1e-12)

    def test_cubic(self):
        c11, c12, c44 = 168.0, 121.0, 75.0
        tensor = cubic(c11, c12, c44)
        upper = (c11 - c12 + 3 * c44) / 5
        lower = 5 * (c11 - c12) * c44 / (4 * c44 + 3 * (c11 - c12))
        assert voigt_average(tensor).shear == pytest.approx(upper)
        assert reuss_average(tensor).shear == pytest.approx(lower)
        assert hill_average(tensor).shear == pytest.approx((upper + lower) / 2)
        for average in (voigt_average, reuss_average, hill_average):
            assert average(tensor).bulk == pytest.approx((c11 + 2 * c12) / 3)
        zener = 2 * c44 / (c11 - c12)
        expected = 6 / 5 * (zener**0.5 - zener**-0.5) ** 2
        assert universal_anisotropy(tensor) == pytest.approx(expected)

    @given(st.integers(0, 1000))
    def test_bounds_without_symmetry(self, seed):
        """Reuss below Voigt, and all of them the same from wherever one looks."""
        tensor = random_tensor(seed)
        lower, upper = reuss_average(tensor), voigt_average(tensor)
        assert lower.bulk <= upper.bulk
        assert lower.shear <= upper.shear
        assert universal_anisotropy(tensor) >= 0
        turned = rotated(tensor, rotation_matrix())
        for average in (voigt_average, reuss_average):
            assert average(turned).bulk == pytest.approx(average(tensor).bulk)
            assert average(turned).shear == pytest.approx(average(tensor).shear)

    def test_many_tensors_at_once(self):
        tensors = np.array([[random_tensor(0), random_tensor(1)]])
        assert hill_average(tensors).young.shape == (1, 2)
        assert hill_average(tensors).young[0, 1] == hill_average(tensors[0, 1]).young
        assert universal_anisotropy(tensors).shape == is_stable(tensors).shape == (1, 2)

    @pytest.mark.parametrize(
        ("tensor", "stable"),
        [
            (cubic(168, 121, 75), True),
            (cubic(168, 121, -1), False),
            (cubic(100, 101, 75), False),
            (cubic(100, -51, 75), False),
            (cubic(100, -49, 75), True),
        ],
    )
    def test_born_stability(self, tensor, stable):
        """Of a cubic crystal: C44 > 0, C11 > C12 and C11 + 2 C12 > 0."""
        assert is_stable(tensor) == stable
