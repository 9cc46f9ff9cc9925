"""What the tests of this folder share."""

import numpy as np
from ase import Atoms
from ase.calculators.calculator import Calculator
from ase.neighborlist import neighbor_list
from scipy.spatial.transform import Rotation

from schnetpack_phonon.structures.elasticity import (
    finite_strain_tensor,
    finite_strains,
    strained,
)

PAIRS = ((0, 0), (1, 1), (2, 2), (1, 2), (0, 2), (0, 1))


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


def rotation_matrix() -> np.ndarray:
    return Rotation.from_euler("zyx", [0.3, -0.7, 1.1]).as_matrix()
