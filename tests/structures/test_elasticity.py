"""Elastic tensors against closed forms, energy differences, matscipy and ASE."""

import matscipy.elasticity as matscipy
import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk
from ase.calculators.calculator import Calculator
from ase.calculators.emt import EMT
from ase.neighborlist import neighbor_list
from ase.stress import get_elasticity_tensor, voigt_6_to_full_3x3_stress
from ase.units import GPa
from hypothesis import given
from hypothesis import strategies as st
from scipy.linalg import sqrtm
from scipy.spatial.transform import Rotation

from schnetpack_phonon.structures.elasticity import (
    finite_strain_tensor,
    finite_strains,
    hill_average,
    is_stable,
    point_group,
    reuss_average,
    rotated,
    strained,
    symmetrized,
    tensor_to_voigt,
    universal_anisotropy,
    voigt_average,
    voigt_to_tensor,
)

PAIRS = ((0, 0), (1, 1), (2, 2), (1, 2), (0, 2), (0, 1))


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


def from_stress(atoms: Atoms, calculator: Calculator, step: float) -> np.ndarray:
    def stress(strain):
        moved = strained(atoms, strain)
        moved.calc = calculator
        return moved.get_stress(voigt=False)

    stresses = [[stress(strain) for strain in pair] for pair in finite_strains(step)]
    return finite_strain_tensor(np.array(stresses), step)


def voigt_matrix(tensor: np.ndarray) -> np.ndarray:
    return np.array([[tensor[i, j, k, m] for k, m in PAIRS] for i, j in PAIRS])


def stress_sum(stress: np.ndarray) -> np.ndarray:
    """``(sigma_ik d_jl + sigma_il d_jk + sigma_jk d_il + sigma_jl d_ik) / 4``."""
    orders = ("ik,jl", "il,jk", "jk,il", "jl,ik")
    return sum(np.einsum(f"{order}->ijkl", stress, np.eye(3)) for order in orders) / 4


class Springs(Calculator):
    """Energy ``k/2 (r - length)^2`` of each pair within a cutoff; under stress if r != length."""

    implemented_properties = ("energy", "stress")

    def __init__(self, k: float, length: float, cutoff: float):
        super().__init__()
        self.k, self.length, self.cutoff = k, length, cutoff

    def calculate(self, atoms=None, properties=None, system_changes=()):
        super().calculate(atoms, properties, system_changes)
        vectors = neighbor_list("D", self.atoms, self.cutoff)
        r = np.linalg.norm(vectors, axis=1)
        tension = self.k * (r - self.length) / r
        virial = np.einsum("p,pi,pj->ij", tension, vectors, vectors) / 2  # each pair twice
        self.results = {
            "energy": self.k * ((r - self.length) ** 2).sum() / 4,
            "stress": virial / self.atoms.get_volume(),
        }

    def born_sum(self, atoms: Atoms) -> np.ndarray:
        """Second derivative of the sum of f(|r + eps r|) by the symmetric strain eps, over V.

        That of one pair is (f'' - f'/r) r_i r_j r_k r_l / r^2 and the stress sum of f'/r r_i r_k.
        """
        vectors = neighbor_list("D", atoms, self.cutoff)
        r = np.linalg.norm(vectors, axis=1)
        tension = self.k * (r - self.length) / r
        factor = (self.k - tension) / r**2
        born = np.einsum("p,pi,pj,pk,pl->ijkl", factor, *[vectors] * 4)
        born += stress_sum(np.einsum("p,pi,pk->ik", tension, vectors, vectors))
        return voigt_matrix(born) / (2 * atoms.get_volume())


def stressed_alloy() -> Atoms:
    """Ordered Cu3Au without symmetry, under stress of up to 5 GPa, far from hydrostatic."""
    atoms = bulk("Cu", a=3.75, cubic=True)
    atoms.symbols[0] = "Au"
    shear = [[0.03, 0.02, 0.0], [0.0, -0.03, 0.03], [0.01, 0.0, 0.02]]
    atoms.set_cell(atoms.cell @ (np.eye(3) + shear), scale_atoms=True)
    atoms.rattle(0.08, seed=3)
    return atoms


def rotation_matrix() -> np.ndarray:
    return Rotation.from_euler("zyx", [0.3, -0.7, 1.1]).as_matrix()


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
