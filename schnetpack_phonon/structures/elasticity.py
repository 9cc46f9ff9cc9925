"""Elastic tensors: definition, finite strain, moduli and symmetry.

A strain ``eps`` (symmetric) maps the cell and all atoms by ``F = 1 + eps``, so that atoms keep
their fractions of the cell: the *clamped-ion* tensor. It is the second derivative of the energy,

    C_ab = (1/V0) d2E / deps_a deps_b,    a, b = xx yy zz yz xz xy,

with engineering shear (``eps_a = 2 eps_yz`` for a = yz). Its first derivative at any strain is
``dE/deps = V0 T`` with Biot's stress ``T = det(F) sym(F^-1 sigma)``, ``sigma`` being the Cauchy
stress that codes give. C is therefore symmetric also for a crystal under stress, unlike the
derivative of ``sigma``. At zero strain, with Kronecker's symbol ``d``,

    C_ijkl = dsigma_ij/deps_kl + sigma_ij d_kl - S_ijkl,
    S_ijkl = (sigma_ik d_jl + sigma_il d_jk + sigma_jk d_il + sigma_jl d_ik) / 4,

and ``C - S`` is the second derivative by the Green-Lagrange strain (Brugger's, or thermodynamic,
constants). Without stress all three are equal.

References:
    Wallace, Phys. Rev. 162, 776 (1967), and Barron and Klein, Proc. Phys. Soc. 85, 523 (1965):
    elastic constants under stress. Hill, Proc. Phys. Soc. A 65, 349 (1952): averages.
    Ranganathan and Ostoja-Starzewski, Phys. Rev. Lett. 101, 055504 (2008): universal anisotropy.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from ase import Atoms
from ase.spacegroup.symmetrize import check_symmetry

# The pair of each Voigt component, and the component of each pair.
_I, _J = np.array([0, 1, 2, 1, 0, 0]), np.array([0, 1, 2, 2, 2, 1])
_COMPONENT = np.array([[0, 5, 4], [5, 1, 3], [4, 3, 2]])


def voigt_to_tensor(stress: np.ndarray) -> np.ndarray:
    """Voigt stress (xx yy zz yz xz xy) or a 3x3 tensor -> 3x3 tensor."""
    return stress if stress.shape == (3, 3) else stress[_COMPONENT]


def tensor_to_voigt(stress: np.ndarray) -> np.ndarray:
    """Symmetric part of stress tensors, shape=(..., 3, 3) -> (..., 6)."""
    return (stress[..., _I, _J] + stress[..., _J, _I]) / 2


def strained(atoms: Atoms, strain: np.ndarray) -> Atoms:
    """Cell and atoms mapped by ``1 + strain``, shape=(3, 3)."""
    mapping = np.eye(3) + strain
    atoms = atoms.copy()
    atoms.set_cell(atoms.cell.array @ mapping)
    atoms.positions = atoms.positions @ mapping
    return atoms


def finite_strains(step: float) -> np.ndarray:
    """Each Voigt component (engineering shear) alone, ``+step`` and ``-step``.

    Returns:
        Symmetric strains, shape=(6, 2, 3, 3).
    """
    components = np.eye(6) * [[[step]], [[-step]]] / [1, 1, 1, 2, 2, 2]
    return components.swapaxes(0, 1)[..., _COMPONENT]


def finite_strain_tensor(stresses: np.ndarray, step: float) -> np.ndarray:
    """Elastic tensor by central differences of Biot's stress.

    Its two triangles differ by the error of the differences; the result is their mean.

    Args:
        stresses: Cauchy stress under each of :func:`finite_strains`, shape=(6, 2, 3, 3).
        step: of these strains.

    Returns:
        Symmetric, in the unit of the stresses, shape=(6, 6).

    Raises:
        ValueError: if the triangles differ by more than a tenth of the largest component, for
            example because one of the stresses belongs to another electronic state.
    """
    mapping = np.eye(3) + finite_strains(step)
    volume = np.linalg.det(mapping)[..., None]
    biot = volume * tensor_to_voigt(np.linalg.solve(mapping, stresses))
    slopes = (biot[:, 0] - biot[:, 1]) / (2 * step)
    error, largest = np.abs(slopes - slopes.T).max(), np.abs(slopes).max()
    if error > 0.1 * largest:
        raise ValueError(
            f"the triangles of an elastic tensor differ by {error:.2g}, its largest component is "
            f"{largest:.2g}; expected at most a tenth of it: the stress is not the derivative of "
            f"one energy. Converge it better, or use a larger strain than {step:g}"
        )
    return (slopes + slopes.T) / 2


def rotated(tensor: np.ndarray, rotation: np.ndarray) -> np.ndarray:
    """Elastic tensor of a rotated crystal.

    Args:
        tensor: shape=(..., 6, 6).
        rotation: maps old Cartesian vectors to new ones, orthogonal, shape=(..., 3, 3).

    References:
        Bond, Bell Syst. Tech. J. 22, 1 (1943): the 6x6 matrix that transforms Voigt stress.
    """
    i, j = _I[:, None], _J[:, None]
    bond = rotation[..., i, _I] * rotation[..., j, _J]
    bond = bond + (_I != _J) * rotation[..., i, _J] * rotation[..., j, _I]
    return bond @ tensor @ bond.swapaxes(-1, -2)


def point_group(atoms: Atoms, symprec: float = 1e-3) -> np.ndarray:
    """Cartesian rotations and rotoinversions of a crystal, shape=(n, 3, 3).

    Args:
        atoms: a unit cell or a supercell.
        symprec: largest distance of atoms from their symmetric sites, in Ang.
    """
    to_cartesian = atoms.cell.array.T
    fractional = np.unique(check_symmetry(atoms, symprec).rotations, axis=0)
    return to_cartesian @ fractional @ np.linalg.inv(to_cartesian)


def symmetrized(tensor: np.ndarray, rotations: np.ndarray) -> np.ndarray:
    """The part of elastic tensors that is invariant under a point group.

    Args:
        tensor: shape=(..., 6, 6).
        rotations: all of the group, shape=(n, 3, 3); :func:`point_group` of the ideal crystal.
    """
    return rotated(tensor[..., None, :, :], rotations).mean(axis=-3)


@dataclass(frozen=True)
class Moduli:
    """Moduli of an isotropic polycrystal, in the unit of the elastic tensor, shape=(...).

    Attributes:
        bulk: bulk modulus.
        shear: shear modulus.
    """

    bulk: np.ndarray
    shear: np.ndarray

    @property
    def young(self) -> np.ndarray:
        """Young's modulus."""
        return 9 * self.bulk * self.shear / (3 * self.bulk + self.shear)

    @property
    def poisson(self) -> np.ndarray:
        """Poisson's ratio."""
        return (3 * self.bulk - 2 * self.shear) / (6 * self.bulk + 2 * self.shear)


def voigt_average(tensor: np.ndarray) -> Moduli:
    """Upper bound: the same strain everywhere. ``tensor`` has shape=(..., 6, 6)."""
    trace, total, shear = _sums(tensor)
    return Moduli(bulk=total / 9, shear=(3 * trace - total + 6 * shear) / 30)


def reuss_average(tensor: np.ndarray) -> Moduli:
    """Lower bound: the same stress everywhere. ``tensor`` has shape=(..., 6, 6)."""
    trace, total, shear = _sums(np.linalg.inv(tensor))
    return Moduli(bulk=1 / total, shear=15 / (6 * trace - 2 * total + 3 * shear))


def hill_average(tensor: np.ndarray) -> Moduli:
    """Mean of :func:`voigt_average` and :func:`reuss_average`."""
    upper, lower = voigt_average(tensor), reuss_average(tensor)
    return Moduli((upper.bulk + lower.bulk) / 2, (upper.shear + lower.shear) / 2)


def universal_anisotropy(tensor: np.ndarray) -> np.ndarray:
    """``5 G_Voigt / G_Reuss + B_Voigt / B_Reuss - 6``, zero for an isotropic crystal."""
    upper, lower = voigt_average(tensor), reuss_average(tensor)
    return 5 * upper.shear / lower.shear + upper.bulk / lower.bulk - 6


def is_stable(tensor: np.ndarray) -> np.ndarray:
    """Born's criterion for a crystal without stress: all strains raise the energy; shape=(...)."""
    return np.linalg.eigvalsh(tensor)[..., 0] > 0


def _sums(tensor: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Trace and sum of the block of normal components, trace of the block of shear components."""
    normal, shear = tensor[..., :3, :3], tensor[..., 3:, 3:]
    return (
        np.trace(normal, axis1=-2, axis2=-1),
        normal.sum(axis=(-2, -1)),
        np.trace(shear, axis1=-2, axis2=-1),
    )
