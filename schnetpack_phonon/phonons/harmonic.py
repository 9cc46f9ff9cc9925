"""Harmonic model of the lattice vibrations, from force constants.

All modes of the supercell are treated together at its Gamma point. They are the modes of all
commensurate wave vectors of the primitive cell, and mixed crystals need no special case.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any

import numpy as np
from ase import Atoms
from phonopy.physical_units import get_physical_units
from scipy import constants

from schnetpack_phonon.common.errors import check_at_least, check_choice
from schnetpack_phonon.phonons.checks import check_force_constants
from schnetpack_phonon.phonons.instabilities import ZERO, Instabilities
from schnetpack_phonon.phonons.modes import Modes, Operator, WholeModes, bloch_modes, whole_modes
from schnetpack_phonon.structures.crystals import shortest_distance

STATISTICS = ("quantum", "classical")
THZ_PER_SQRT_FC: float = get_physical_units().DefaultToTHz  # sqrt(eV/Ang^2/amu) -> THz
_HBAR = constants.hbar / (constants.atomic_mass * 1e-20) * 1e-12  # amu Ang^2 THz
_BOLTZMANN = constants.k / (constants.atomic_mass * 1e-20) * 1e-24  # amu Ang^2 THz^2 / K
_DEGENERATE = 1e-4  # frequencies that differ by less, in THz, form one set


@dataclass(frozen=True)
class Renormalization:
    """How effective force constants were found; see :mod:`.phonons.renormalization`.

    Attributes:
        start: harmonic force constants, shape=(n_atoms, n_atoms, 3, 3), eV/Ang^2.
        steps: quantities of each step by name, see :class:`.Step`.
        positions: all structures whose forces were used, the newest last, in Ang,
            shape=(n, n_atoms, 3).
    """

    start: np.ndarray
    steps: tuple[dict[str, float], ...]
    positions: np.ndarray


@dataclass(frozen=True)
class HarmonicModel:
    """Vibrations of a supercell.

    Attributes:
        ideal: the undisplaced supercell.
        force_constants: in eV/Ang^2, shape=(n_atoms, n_atoms, 3, 3).
        frequencies: of the force constants, in THz, imaginary ones negative; rigid translations
            are left out; shape=(3 n_atoms - 3,).
        sampled_frequencies: from which displacements are drawn, in THz; 0 for frozen modes.
        modes: mass-weighted and orthonormal.
        policy: how ``sampled_frequencies`` follow from ``frequencies``, in words.
        renormalization: how the force constants were found, if they are effective ones.
    """

    ideal: Atoms
    force_constants: np.ndarray
    frequencies: np.ndarray
    sampled_frequencies: np.ndarray
    modes: Modes
    policy: str
    renormalization: Renormalization | None = None

    @property
    def eigenvectors(self) -> np.ndarray:
        """Of the modes, mass-weighted columns; shape=(3 n_atoms, 3 n_atoms - 3)."""
        return self.modes.eigenvectors

    @property
    def root_masses(self) -> np.ndarray:
        """Square root of the mass of each coordinate, shape=(3 n_atoms,), sqrt(amu)."""
        return np.sqrt(np.repeat(self.ideal.get_masses(), 3))

    @property
    def n_imaginary(self) -> int:
        return int((self.frequencies < 0).sum())

    @property
    def n_changed(self) -> int:
        """Number of modes whose sampled frequency differs from that of the force constants."""
        return int((self.frequencies != self.sampled_frequencies).sum())

    @property
    def n_real_changed(self) -> int:
        """Number of modes among these that are not imaginary."""
        changed = self.frequencies != self.sampled_frequencies
        return int((changed & (self.frequencies >= ZERO)).sum())

    @property
    def summary(self) -> dict[str, Any]:
        """What a database says about the model, as plain values."""
        return {
            "policy": self.policy,
            "n_imaginary": self.n_imaginary,
            "n_changed": self.n_changed,
            "lowest_frequency": float(self.frequencies.min()),
            "steps": list(self.renormalization.steps) if self.renormalization else [],
        }

    @property
    def unguarded(self) -> HarmonicModel:
        """The model with the frequencies of the force constants for all real modes."""
        imaginary = self.frequencies < ZERO
        sampled = np.where(imaginary, self.sampled_frequencies, self.frequencies)
        return replace(self, sampled_frequencies=sampled)

    @property
    def sampled_force_constants(self) -> np.ndarray:
        """Force constants with the sampled frequencies; shape as ``force_constants``."""
        root, squares = self.root_masses, (self.sampled_frequencies / THZ_PER_SQRT_FC) ** 2
        return to_blocks(root[:, None] * self.modes.matrix(squares) * root)

    def mode_amplitudes(self, temperature: float, statistics: str = "quantum") -> np.ndarray:
        """Standard deviation of each mode coordinate in sqrt(amu) Ang, shape=(3 n_atoms - 3,).

        quantum: sigma^2 = hbar / (2 omega) coth(hbar omega / 2 k T);
        classical: sigma^2 = k T / omega^2
        (Born and Huang, Dynamical Theory of Crystal Lattices, sections 15 and 16).

        Raises:
            ValueError: for a temperature below 0 or unknown statistics.
        """
        check_at_least(0, "K", temperature=temperature)
        check_choice(STATISTICS, statistics=statistics)
        moving = self.sampled_frequencies > 0
        omega = 2 * np.pi * self.sampled_frequencies[moving]
        if statistics == "classical":
            variance = _BOLTZMANN * temperature / omega**2
        else:
            variance = _HBAR / (2 * omega)
            if temperature > 0:
                variance = variance / np.tanh(_HBAR * omega / (2 * _BOLTZMANN * temperature))
        sigma = np.zeros_like(self.sampled_frequencies)
        sigma[moving] = np.sqrt(variance)
        return sigma

    def check_amplitudes(self, temperature: float, statistics: str = "quantum") -> None:
        """Raises ValueError if one mode alone moves atoms by half the shortest distance."""
        sigma = self.mode_amplitudes(temperature, statistics)
        per_mode = self.modes.largest_steps(self.ideal, sigma)
        worst = int(per_mode.argmax())
        limit = shortest_distance(self.ideal) / 2
        if per_mode[worst] > limit:
            advice = "use policy 'floor' with a higher floor or 'freeze'"
            if self.frequencies[worst] >= ZERO:
                advice = "raise min_frequency, which changes real modes"
            raise ValueError(
                f"at {temperature:g} K mode {worst} ({self.frequencies[worst]:.4f} THz, sampled "
                f"with {self.sampled_frequencies[worst]:.4f} THz) alone moves an atom by "
                f"{per_mode[worst]:.2f} Ang rms, more than half the shortest distance "
                f"({limit:.2f} Ang): lower the temperature, {advice}, or use "
                "data/phonons=renormalised"
            )

    def displacement_matrix(self, temperature: float, statistics: str = "quantum") -> np.ndarray:
        """Matrix A with u = A z for standard normal z; shape=(3 n_atoms, 3 n_atoms), Ang.

        The mass-weighted square root is the symmetric one, E sigma E^T. Unlike E sigma it does not
        depend on the arbitrary basis of degenerate modes, so a seed gives the same displacements
        with every linear algebra library.
        """
        sigma = self.mode_amplitudes(temperature, statistics)
        return self.modes.matrix(sigma) / self.root_masses[:, None]

    def displacer(self, temperature: float, statistics: str = "quantum") -> Operator:
        """Function from standard normal numbers to displacements in Ang, shape=(n, 3 n_atoms).

        The same as :meth:`displacement_matrix`; a large crystal does without the matrix.
        """
        if isinstance(self.modes, WholeModes):
            matrix = self.displacement_matrix(temperature, statistics)
            return lambda numbers: numbers @ matrix.T
        root = self.root_masses
        weighted = self.modes.operator(self.mode_amplitudes(temperature, statistics))
        return lambda numbers: weighted(numbers) / root

    def canonical_eigenvectors(self) -> np.ndarray:
        """Eigenvectors that do not depend on the linear algebra library; shape as ``eigenvectors``.

        The basis of each set of equal frequencies comes from the QR decomposition of a fixed
        random matrix, projected onto the set.
        """
        fixed = np.random.default_rng(0).standard_normal(self.eigenvectors.shape)
        starts = np.flatnonzero(np.diff(self.frequencies) > _DEGENERATE) + 1
        vectors = []
        for first, end in pairwise([0, *starts, self.frequencies.size]):
            space = self.eigenvectors[:, first:end]
            q, r = np.linalg.qr(space @ (space.T @ fixed[:, first:end]))
            vectors.append(q * np.sign(np.diag(r)))
        return np.hstack(vectors)

    def mode_frequencies(self, force_constants: np.ndarray) -> np.ndarray:
        """sqrt(e D e) in THz of other force constants along the modes, negative if imaginary."""
        weighted = self.eigenvectors / self.root_masses[:, None]
        squares = ((to_matrix(force_constants) @ weighted) * weighted).sum(axis=0)
        return np.sign(squares) * np.sqrt(np.abs(squares)) * THZ_PER_SQRT_FC

    def covariance(self, temperature: float, statistics: str = "quantum") -> np.ndarray:
        """<u u^T> in Ang^2, shape=(3 n_atoms, 3 n_atoms)."""
        matrix = self.displacement_matrix(temperature, statistics)
        return matrix @ matrix.T

    def energies(self, displacements: np.ndarray) -> np.ndarray:
        """Harmonic energies in eV, shape=(n,); displacements in Ang, shape=(n, n_atoms, 3)."""
        u = displacements.reshape(len(displacements), -1)
        return 0.5 * ((u @ to_matrix(self.sampled_force_constants)) * u).sum(axis=1)


def harmonic_model(
    ideal: Atoms,
    force_constants: np.ndarray,
    instabilities: Instabilities,
    translations: np.ndarray | None = None,
) -> HarmonicModel:
    """Diagonalises the mass-weighted force constants of a supercell.

    Args:
        ideal: the undisplaced supercell.
        force_constants: in eV/Ang^2, shape=(n_atoms, n_atoms, 3, 3).
        instabilities: treatment of imaginary and very low modes.
        translations: :attr:`.Crystal.translations`; with them large supercells take seconds
            instead of minutes.

    Raises:
        ValueError: for invalid force constants, see :func:`check_force_constants`.
    """
    check_force_constants(ideal, force_constants)
    frequencies, modes = normal_modes(ideal, force_constants, translations)
    sampled = instabilities.apply(frequencies)
    return HarmonicModel(ideal, force_constants, frequencies, sampled, modes, str(instabilities))


def normal_modes(
    ideal: Atoms, force_constants: np.ndarray, translations: np.ndarray | None = None
) -> tuple[np.ndarray, Modes]:
    """Frequencies (THz, imaginary ones negative) and modes, without rigid translations."""
    matrix = to_matrix(force_constants)
    masses = ideal.get_masses()
    inverse_root = 1 / np.sqrt(np.repeat(masses, 3))
    dynamical = (matrix + matrix.T) / 2 * np.outer(inverse_root, inverse_root)
    found = None if translations is None else bloch_modes(dynamical, masses, translations)
    squares, modes = found or whole_modes(dynamical, masses)
    return np.sign(squares) * np.sqrt(np.abs(squares)) * THZ_PER_SQRT_FC, modes


def free_energy(frequencies: np.ndarray, temperature: float, statistics: str = "quantum") -> float:
    """Helmholtz free energy of independent oscillators in eV.

    quantum: sum of hbar omega / 2 + kT ln(1 - exp(-hbar omega / kT));
    classical: sum of kT ln(hbar omega / kT).

    Args:
        frequencies: positive, in THz.
        temperature: in K.
        statistics: ``quantum`` or ``classical``.
    """
    quanta = constants.h * frequencies * 1e12 / constants.e
    thermal = constants.k * temperature / constants.e
    if statistics == "classical":
        return float(thermal * np.log(quanta / thermal).sum()) if temperature else 0.0
    zero_point = float(quanta.sum() / 2)
    if temperature == 0:
        return zero_point
    return zero_point + float(thermal * np.log1p(-np.exp(-quanta / thermal)).sum())


def to_matrix(force_constants: np.ndarray) -> np.ndarray:
    """Shape (n, n, 3, 3) -> (3n, 3n)."""
    n = len(force_constants)
    return force_constants.transpose(0, 2, 1, 3).reshape(3 * n, 3 * n)


def to_blocks(matrix: np.ndarray) -> np.ndarray:
    """Shape (3n, 3n) -> (n, n, 3, 3)."""
    n = len(matrix) // 3
    return matrix.reshape(n, 3, n, 3).transpose(0, 2, 1, 3).copy()
