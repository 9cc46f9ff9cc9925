"""Voigt's notation, strains and elastic tensors against closed forms, matscipy and ASE."""

import matscipy.elasticity as matscipy
import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk
from ase.calculators.emt import EMT
from ase.stress import get_elasticity_tensor, voigt_6_to_full_3x3_stress
from ase.units import GPa
from hypothesis import given
from hypothesis import strategies as st
from scipy.linalg import sqrtm

from schnetpack_phonon.structures.elasticity import (
    finite_strains,
    rotated,
    strained,
    tensor_to_voigt,
    voigt_to_tensor,
)
from tests.structures.elasticity.elasticity_fixtures import (
    Springs,
    from_stress,
    rotation_matrix,
    stress_sum,
    voigt_matrix,
)


def stressed_alloy() -> Atoms:
    """Ordered Cu3Au without symmetry, under stress of up to 5 GPa, far from hydrostatic."""
    atoms = bulk("Cu", a=3.75, cubic=True)
    atoms.symbols[0] = "Au"
    shear = [[0.03, 0.02, 0.0], [0.0, -0.03, 0.03], [0.01, 0.0, 0.02]]
    atoms.set_cell(atoms.cell @ (np.eye(3) + shear), scale_atoms=True)
    atoms.rattle(0.08, seed=3)
    return atoms


def random_strains(n: int) -> np.ndarray:
    strains = 3e-4 * np.random.default_rng(4).normal(size=(n, 3, 3))
    return (strains + strains.swapaxes(1, 2)) / 2


def curvature(strains: list[np.ndarray]) -> float:
    """Second difference of the energy of :func:`stressed_alloy`, divided by its volume."""
    energies = []
    for strain in strains:
        atoms = strained(stressed_alloy(), strain)
        atoms.calc = EMT()
        energies.append(atoms.get_potential_energy())
    return (energies[0] - 2 * energies[1] + energies[2]) / stressed_alloy().get_volume()


class TestVoigt:
    def test_order_is_the_one_of_ase(self):
        voigt = np.arange(1.0, 7.0)
        tensor = voigt_to_tensor(voigt)
        np.testing.assert_array_equal(tensor, voigt_6_to_full_3x3_stress(voigt))
        np.testing.assert_array_equal(voigt_to_tensor(tensor), tensor)

    @given(st.lists(st.floats(-1e3, 1e3), min_size=6, max_size=6))
    def test_round_trip(self, components):
        voigt = np.array(components)
        np.testing.assert_array_equal(tensor_to_voigt(voigt_to_tensor(voigt)), voigt)


class TestStrain:
    def test_mapping(self):
        """By hand: x stretched by 1 %, and a shear of y towards z and z towards y alike."""
        atoms = Atoms("Cu", [(1.0, 2.0, 3.0)], cell=[4.0, 5.0, 6.0], pbc=True)
        found = strained(atoms, voigt_to_tensor(np.array([0.01, 0, 0, 0.02, 0, 0])))
        np.testing.assert_allclose(found.cell.array, [[4.04, 0, 0], [0, 5, 0.1], [0, 0.12, 6]])
        np.testing.assert_allclose(found.positions, [[1.01, 2.06, 3.04]])
        np.testing.assert_array_equal(atoms.positions, [[1.0, 2.0, 3.0]])

    def test_components_come_one_by_one(self):
        """In Voigt order; shear is engineering shear, twice the tensor's component."""
        strains = finite_strains(0.01)
        engineering = np.array(
            [[matscipy.full_3x3_to_Voigt_6_strain(e) for e in pair] for pair in strains]
        )
        np.testing.assert_allclose(engineering[:, 0], 0.01 * np.eye(6))
        np.testing.assert_array_equal(strains[:, 1], -strains[:, 0])


class TestFiniteStrain:
    @pytest.mark.parametrize("length", [2.5, 2.7, 3.0])
    def test_born_sum_of_springs(self, length):
        """With springs at rest, compressed and stretched."""
        atoms = bulk("Cu", a=2.7 * 2**0.5).repeat(2)
        atoms.rattle(0.1, seed=2)
        springs = Springs(3.0, length, cutoff=3.3)
        expected = springs.born_sum(atoms)
        found = from_stress(atoms, springs, 1e-4)
        np.testing.assert_allclose(found, expected, atol=1e-7 * np.abs(expected).max())

    def test_energy_of_a_stressed_crystal(self):
        """Second differences of the energy along random strains."""
        tensor = from_stress(stressed_alloy(), EMT(), 1e-4)
        for strain in random_strains(5):
            engineering = matscipy.full_3x3_to_Voigt_6_strain(strain)
            expected = curvature([s * strain for s in (-1, 0, 1)])
            assert engineering @ tensor @ engineering == pytest.approx(expected, rel=1e-4)

    def test_derivative_of_cauchy_stress(self):
        """ASE differentiates the stress itself, by strains that are not symmetric."""
        atoms = stressed_alloy()
        atoms.calc = EMT()
        stress = atoms.get_stress(voigt=False)
        slope = get_elasticity_tensor(atoms, h=1e-4).transpose(2, 3, 0, 1)
        slope = (slope + slope.swapaxes(2, 3)) / 2
        expected = slope + np.einsum("ij,kl->ijkl", stress, np.eye(3)) - stress_sum(stress)
        found = from_stress(stressed_alloy(), EMT(), 1e-4)
        np.testing.assert_allclose(found, voigt_matrix(expected), atol=1e-4 * GPa)
        assert np.abs(found - voigt_matrix(slope)).max() > 5 * GPa

    def test_brugger_constants(self):
        """Second differences along Green-Lagrange strains eta, 1 + eps = sqrt(1 + 2 eta)."""
        atoms = stressed_alloy()
        atoms.calc = EMT()
        tensor = from_stress(atoms, EMT(), 1e-4)
        tensor -= voigt_matrix(stress_sum(atoms.get_stress(voigt=False)))
        for eta in random_strains(5):
            engineering = matscipy.full_3x3_to_Voigt_6_strain(eta)
            strains = [sqrtm(np.eye(3) + 2 * s * eta) - np.eye(3) for s in (-1, 0, 1)]
            expected = curvature(strains)
            assert engineering @ tensor @ engineering == pytest.approx(expected, rel=1e-4)

    def test_covariance(self):
        """The rotated crystal has the rotated tensor, which is matscipy's too."""
        atoms = stressed_alloy()
        rotation = rotation_matrix()
        turned = atoms.copy()
        turned.set_cell(atoms.cell.array @ rotation.T, scale_atoms=True)
        tensor = from_stress(atoms, EMT(), 1e-4)
        expected = rotated(tensor, rotation)
        np.testing.assert_allclose(from_stress(turned, EMT(), 1e-4), expected, atol=1e-5)
        np.testing.assert_allclose(
            expected, matscipy.rotate_elastic_constants(tensor, rotation), atol=1e-12
        )
