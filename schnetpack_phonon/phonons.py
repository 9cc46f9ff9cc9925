"""Force constants -> :class:`HarmonicModel`, the description of the lattice vibrations.

All modes of the supercell are treated together at its Gamma point. They are the modes of the
commensurate wave vectors of the primitive cell, so nothing is lost, and mixed crystals with
their own masses need no special case.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms
from phonopy import Phonopy
from phonopy.physical_units import get_physical_units
from scipy import constants

from schnetpack_phonon.structures import Crystal, to_ase

POLICIES = ("error", "abs", "floor", "freeze")

_THZ_PER_SQRT_FC: float = get_physical_units().DefaultToTHz  # sqrt(eV/Ang^2/amu) -> THz
_HBAR = constants.hbar / (constants.atomic_mass * 1e-20) * 1e-12  # amu Ang^2 THz
_BOLTZMANN = constants.k / (constants.atomic_mass * 1e-20) * 1e-24  # amu Ang^2 THz^2 / K


@dataclass(frozen=True)
class Instabilities:
    """How modes of imaginary or very low frequency enter the displacements.

    Attributes:
        policy: ``error`` refuses them; ``abs`` takes the absolute frequency; ``floor`` takes the
            absolute frequency, at least ``floor``; ``freeze`` leaves them undisplaced.
        floor: in THz. Below it a mode counts as very low.
    """

    policy: str = "floor"
    floor: float = 1.5

    def __post_init__(self):
        if self.policy not in POLICIES:
            raise ValueError(
                f"unknown policy {self.policy!r} for imaginary modes; "
                f"there are {', '.join(POLICIES)}"
            )
        if not self.floor > 0:
            raise ValueError(f"floor is {self.floor} THz; expected > 0")

    def apply(self, frequencies: np.ndarray) -> np.ndarray:
        """Frequencies that are sampled, in THz; 0 for a frozen mode.

        Args:
            frequencies: signed, imaginary ones negative, in THz, shape=(n_modes,).
        """
        if self.policy == "abs":
            low = np.abs(frequencies) < 0.01
            if low.any():
                raise ValueError(
                    f"mode {np.flatnonzero(low)[0]} has {frequencies[low][0]:.4f} THz; with policy "
                    "'abs' its displacement would diverge: take 'floor' or 'freeze'"
                )
            return np.abs(frequencies)
        if self.policy == "floor":
            return np.maximum(np.abs(frequencies), self.floor)
        if self.policy == "freeze":
            return np.where(frequencies < self.floor, 0.0, frequencies)
        if frequencies.min() < self.floor:
            raise ValueError(
                f"{(frequencies < 0).sum()} imaginary modes, the lowest at "
                f"{frequencies.min():.2f} THz, and {(frequencies < self.floor).sum()} of "
                f"{frequencies.size} modes below {self.floor} THz: a harmonic crystal at T needs "
                "real ones. Take policy 'floor', 'abs' or 'freeze' to go on all the same"
            )
        return frequencies


@dataclass(frozen=True)
class HarmonicModel:
    """Vibrations of a supercell.

    Attributes:
        ideal: the undisplaced supercell.
        frequencies: as they come from the force constants, in THz, imaginary ones negative;
            rigid translations are left out; shape=(3 n_atoms - 3,).
        sampled_frequencies: what displacements are drawn with, in THz; 0 for frozen modes.
        eigenvectors: mass-weighted, orthonormal columns; shape=(3 n_atoms, 3 n_atoms - 3).
        instabilities: the policy that leads from one to the other.
    """

    ideal: Atoms
    frequencies: np.ndarray
    sampled_frequencies: np.ndarray
    eigenvectors: np.ndarray
    instabilities: Instabilities

    @property
    def n_imaginary(self) -> int:
        return int((self.frequencies < 0).sum())

    @property
    def n_changed(self) -> int:
        """Modes whose sampled frequency is not the one of the force constants."""
        return int((self.frequencies != self.sampled_frequencies).sum())

    def mode_amplitudes(self, temperature: float, statistics: str = "quantum") -> np.ndarray:
        """Standard deviation of each mode coordinate in sqrt(amu) Ang, shape=(3 n_atoms - 3,).

        quantum: sigma^2 = hbar / (2 omega) coth(hbar omega / 2 k T);
        classical: sigma^2 = k T / omega^2
        (Born and Huang, Dynamical Theory of Crystal Lattices, sections 15 and 16).

        Raises:
            ValueError: for a temperature below 0 or unknown statistics.
        """
        if not temperature >= 0:
            raise ValueError(f"temperature is {temperature} K; expected >= 0")
        moving = self.sampled_frequencies > 0
        omega = 2 * np.pi * self.sampled_frequencies[moving]
        if statistics == "classical":
            variance = _BOLTZMANN * temperature / omega**2
        elif statistics == "quantum":
            variance = _HBAR / (2 * omega)
            if temperature > 0:
                variance = variance / np.tanh(_HBAR * omega / (2 * _BOLTZMANN * temperature))
        else:
            raise ValueError(f"unknown statistics {statistics!r}; there are quantum, classical")
        sigma = np.zeros_like(self.sampled_frequencies)
        sigma[moving] = np.sqrt(variance)
        return sigma

    def displacement_matrix(self, temperature: float, statistics: str = "quantum") -> np.ndarray:
        """Matrix A with u = A z for standard normal z; shape=(3 n_atoms, 3 n_atoms), Ang.

        The mass-weighted square root is the symmetric one, E sigma E^T: unlike E sigma it does
        not depend on the arbitrary basis of degenerate modes, so a seed gives the same
        displacements whatever linear algebra library computed the eigenvectors.
        """
        masses = np.repeat(self.ideal.get_masses(), 3)
        sigma = self.mode_amplitudes(temperature, statistics)
        return (self.eigenvectors * sigma) @ self.eigenvectors.T / np.sqrt(masses)[:, None]

    def covariance(self, temperature: float, statistics: str = "quantum") -> np.ndarray:
        """<u u^T> in Ang^2, shape=(3 n_atoms, 3 n_atoms)."""
        matrix = self.displacement_matrix(temperature, statistics)
        return matrix @ matrix.T


def harmonic_model(
    ideal: Atoms, force_constants: np.ndarray, instabilities: Instabilities
) -> HarmonicModel:
    """Diagonalises the mass-weighted force constants of a supercell.

    Rigid translations are projected out before, so that they cannot mix with soft modes.

    Args:
        ideal: the undisplaced supercell.
        force_constants: in eV/Ang^2, shape=(n_atoms, n_atoms, 3, 3).
        instabilities: what happens to imaginary and very low modes.

    Raises:
        ValueError: for force constants of another shape, with NaN, or not symmetric.
    """
    n = len(ideal)
    if force_constants.shape != (n, n, 3, 3):
        raise ValueError(
            f"force constants have shape {force_constants.shape}; the supercell of "
            f"{ideal.get_chemical_formula()} needs {(n, n, 3, 3)}"
        )
    matrix = force_constants.transpose(0, 2, 1, 3).reshape(3 * n, 3 * n)
    asymmetry = np.abs(matrix - matrix.T).max()
    if not asymmetry < 1e-3 * max(np.abs(matrix).max(), 1.0):
        raise ValueError(
            f"force constants break the symmetry of second derivatives by {asymmetry:.2g} eV/Ang^2"
            " (or hold NaN): symmetrise them (phonopy: symmetrize_force_constants)"
        )
    masses = ideal.get_masses()
    inverse_root = 1 / np.sqrt(np.repeat(masses, 3))
    dynamical = (matrix + matrix.T) / 2 * np.outer(inverse_root, inverse_root)
    translations = np.kron(np.sqrt(masses / masses.sum())[:, None], np.eye(3))
    others = np.eye(3 * n) - translations @ translations.T
    top = 2 * np.abs(dynamical).sum(axis=1).max() + 1.0  # above every eigenvalue
    dynamical = others @ dynamical @ others + top * translations @ translations.T
    eigenvalues, eigenvectors = np.linalg.eigh(dynamical)
    eigenvalues, eigenvectors = eigenvalues[:-3], eigenvectors[:, :-3]
    frequencies = np.sign(eigenvalues) * np.sqrt(np.abs(eigenvalues)) * _THZ_PER_SQRT_FC
    return HarmonicModel(
        ideal, frequencies, instabilities.apply(frequencies), eigenvectors, instabilities
    )


class FiniteDisplacements:
    """Force constants from finite displacements, made by phonopy.

    Args:
        distance: length of a displacement in Ang.
        instabilities: what happens to imaginary and very low modes.
    """

    def __init__(self, instabilities: Instabilities, distance: float = 0.03):
        if not distance > 0:
            raise ValueError(f"displacement distance is {distance} Ang; expected > 0")
        self.distance = distance
        self.instabilities = instabilities

    @property
    def settings(self) -> dict[str, Any]:
        return {
            "source": "finite displacements",
            "distance": float(self.distance),
            "policy": self.instabilities.policy,
            "floor": float(self.instabilities.floor),
        }

    def displaced(self, crystal: Crystal) -> list[Atoms]:
        """Symmetry-inequivalent displaced supercells whose forces are needed."""
        return [to_ase(atoms) for atoms in self._phonopy(crystal).supercells_with_displacements]

    def model(self, crystal: Crystal, forces: np.ndarray, path: str | Path) -> HarmonicModel:
        """Force constants from forces; stored as ``phonopy_params.yaml`` at ``path``.

        Args:
            crystal: that was displaced.
            path: of the file; its folder is made.
            forces: of :meth:`displaced`, in order, in eV/Ang, shape=(n, n_atoms, 3).
        """
        phonon = self._phonopy(crystal)
        phonon.forces = forces
        phonon.produce_force_constants()
        phonon.symmetrize_force_constants()
        path = Path(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = path.with_name(path.name + ".part")
        phonon.save(partial, settings={"force_constants": True, "force_sets": True})
        partial.replace(path)
        return harmonic_model(crystal.supercell, phonon.force_constants, self.instabilities)

    def _phonopy(self, crystal: Crystal) -> Phonopy:
        phonon = crystal.phonopy()
        phonon.generate_displacements(distance=self.distance)
        return phonon
