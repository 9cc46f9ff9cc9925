"""Force constants -> :class:`HarmonicModel`, the description of the lattice vibrations.

All modes of the supercell are treated together at its Gamma point. They are the modes of the
commensurate wave vectors of the primitive cell, so nothing is lost, and mixed crystals with
their own masses need no special case.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from ase import Atoms
from ase.neighborlist import neighbor_list
from phonopy.physical_units import get_physical_units
from scipy import constants

from schnetpack_phonon.phonons.instabilities import Instabilities
from schnetpack_phonon.phonons.modes import Modes, Operator, WholeModes, bloch_modes, whole_modes

THZ_PER_SQRT_FC: float = get_physical_units().DefaultToTHz  # sqrt(eV/Ang^2/amu) -> THz


_HBAR = constants.hbar / (constants.atomic_mass * 1e-20) * 1e-12  # amu Ang^2 THz


_TOLERANCE = 0.01  # largest break of a symmetry, as a share of the largest force constant


_DEGENERATE = 1e-4  # frequencies that differ by less, in THz, belong to one set


_BOLTZMANN = constants.k / (constants.atomic_mass * 1e-20) * 1e-24  # amu Ang^2 THz^2 / K


@dataclass(frozen=True)
class Renormalization:
    """How effective force constants were found; see :mod:`.phonons.renormalization`.

    Attributes:
        start: harmonic force constants, shape=(n_atoms, n_atoms, 3, 3), eV/Ang^2.
        steps: figures of each step by name.
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
        sampled_frequencies: what displacements are drawn with, in THz; 0 for frozen modes.
        modes: mass-weighted and orthonormal.
        policy: what leads from ``frequencies`` to ``sampled_frequencies``, in words.
        renormalization: how the force constants were found, where they are effective ones.
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
    def n_imaginary(self) -> int:
        return int((self.frequencies < 0).sum())

    @property
    def n_changed(self) -> int:
        """Modes whose sampled frequency is not the one of the force constants."""
        return int((self.frequencies != self.sampled_frequencies).sum())

    @property
    def sampled_force_constants(self) -> np.ndarray:
        """Force constants whose modes are those that are drawn; shape as ``force_constants``."""
        root = np.sqrt(np.repeat(self.ideal.get_masses(), 3))
        squares = (self.sampled_frequencies / THZ_PER_SQRT_FC) ** 2
        return to_blocks(root[:, None] * self.modes.matrix(squares) * root)

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

    def check_amplitudes(self, temperature: float, statistics: str = "quantum") -> None:
        """Raises ValueError where one mode alone moves atoms by half the shortest distance."""
        sigma = self.mode_amplitudes(temperature, statistics)
        per_mode = self.modes.largest_steps(self.ideal, sigma)
        worst = int(per_mode.argmax())
        limit = shortest_distance(self.ideal) / 2
        if per_mode[worst] > limit:
            raise ValueError(
                f"at {temperature:g} K mode {worst} ({self.frequencies[worst]:.4f} THz, drawn with "
                f"{self.sampled_frequencies[worst]:.4f} THz) alone moves an atom by "
                f"{per_mode[worst]:.2f} Ang rms, more than half the shortest distance "
                f"({limit:.2f} Ang): lower the temperature, or take policy 'floor' with a higher "
                "floor, 'freeze', or data/phonons=renormalised"
            )

    def displacement_matrix(self, temperature: float, statistics: str = "quantum") -> np.ndarray:
        """Matrix A with u = A z for standard normal z; shape=(3 n_atoms, 3 n_atoms), Ang.

        The mass-weighted square root is the symmetric one, E sigma E^T: unlike E sigma it does
        not depend on the arbitrary basis of degenerate modes, so a seed gives the same
        displacements whatever linear algebra library computed the eigenvectors.
        """
        root = np.sqrt(np.repeat(self.ideal.get_masses(), 3))
        sigma = self.mode_amplitudes(temperature, statistics)
        return self.modes.matrix(sigma) / root[:, None]

    def displacer(self, temperature: float, statistics: str = "quantum") -> Operator:
        """Turns standard normal numbers into displacements, both shape=(n, 3 n_atoms), Ang.

        The same as :meth:`displacement_matrix`, without the matrix where the crystal is large.
        """
        if isinstance(self.modes, WholeModes):
            matrix = self.displacement_matrix(temperature, statistics)
            return lambda numbers: numbers @ matrix.T
        root = np.sqrt(np.repeat(self.ideal.get_masses(), 3))
        weighted = self.modes.operator(self.mode_amplitudes(temperature, statistics))
        return lambda numbers: weighted(numbers) / root

    def canonical_eigenvectors(self) -> np.ndarray:
        """Eigenvectors in a basis that does not depend on the linear algebra library.

        Within each set of equal frequencies the basis is the one that a fixed random matrix,
        projected on the set, gives by QR decomposition; shape as ``eigenvectors``.
        """
        fixed = np.random.default_rng(0).standard_normal(self.eigenvectors.shape)
        edges = np.flatnonzero(np.diff(self.frequencies) > _DEGENERATE) + 1
        vectors = []
        for first, last in zip([0, *edges], [*edges, self.frequencies.size], strict=True):
            space = self.eigenvectors[:, first:last]
            q, r = np.linalg.qr(space @ (space.T @ fixed[:, first:last]))
            vectors.append(q * np.sign(np.diag(r)))
        return np.hstack(vectors)

    def mode_frequencies(self, force_constants: np.ndarray) -> np.ndarray:
        """sqrt(e D e) in THz of other force constants along the modes, negative if imaginary."""
        weighted = self.eigenvectors / np.sqrt(np.repeat(self.ideal.get_masses(), 3))[:, None]
        squares = ((to_matrix(force_constants) @ weighted) * weighted).sum(axis=0)
        return np.sign(squares) * np.sqrt(np.abs(squares)) * THZ_PER_SQRT_FC

    def covariance(self, temperature: float, statistics: str = "quantum") -> np.ndarray:
        """<u u^T> in Ang^2, shape=(3 n_atoms, 3 n_atoms)."""
        matrix = self.displacement_matrix(temperature, statistics)
        return matrix @ matrix.T


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
        instabilities: what happens to imaginary and very low modes.
        translations: :attr:`.Crystal.translations`; with them large supercells take seconds
            instead of minutes.

    Raises:
        ValueError: for force constants of another shape, with NaN, not symmetric, or that push
            back a crystal which is moved as a whole.
    """
    check_force_constants(ideal, force_constants)
    frequencies, modes = normal_modes(ideal, force_constants, translations)
    return HarmonicModel(
        ideal,
        force_constants,
        frequencies,
        instabilities.apply(frequencies),
        modes,
        str(instabilities),
    )


def normal_modes(
    ideal: Atoms, force_constants: np.ndarray, translations: np.ndarray | None = None
) -> tuple[np.ndarray, Modes]:
    """Frequencies (THz, imaginary ones negative) and modes, without rigid translations."""
    matrix = to_matrix(force_constants)
    masses = ideal.get_masses()
    inverse_root = 1 / np.sqrt(np.repeat(masses, 3))
    dynamical = (matrix + matrix.T) / 2 * np.outer(inverse_root, inverse_root)
    found: tuple[np.ndarray, Modes] | None = None
    if translations is not None:
        found = bloch_modes(dynamical, masses, translations)
    squares, modes = found or whole_modes(dynamical, masses)
    return np.sign(squares) * np.sqrt(np.abs(squares)) * THZ_PER_SQRT_FC, modes


def free_energy(frequencies: np.ndarray, temperature: float, statistics: str = "quantum") -> float:
    """Helmholtz free energy of independent oscillators in eV.

    quantum: sum hbar omega / 2 + kT ln(1 - exp(-hbar omega / kT)); classical: sum kT ln(hbar omega
    / kT).

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


def check_force_constants(ideal: Atoms, force_constants: np.ndarray) -> None:
    """Raises ValueError for force constants that are none; see :func:`harmonic_model`."""
    n = len(ideal)
    if force_constants.shape != (n, n, 3, 3):
        raise ValueError(
            f"force constants have shape {force_constants.shape}; the supercell of "
            f"{ideal.get_chemical_formula()} needs {(n, n, 3, 3)}"
        )
    if not np.isfinite(force_constants).all():
        i, j = np.argwhere(~np.isfinite(force_constants))[0][:2]
        raise ValueError(f"force constants between atoms {i} and {j} are not finite")
    matrix = to_matrix(force_constants)
    largest = max(np.abs(matrix).max(), 1.0)
    asymmetry = np.abs(matrix - matrix.T).max()
    if asymmetry > _TOLERANCE * largest:
        raise ValueError(
            f"force constants break the symmetry of second derivatives by {asymmetry:.2g} eV/Ang^2"
            f" (at most {_TOLERANCE * largest:.2g} is accepted): symmetrise them (phonopy: "
            "symmetrize_force_constants)"
        )
    drift = np.abs(force_constants.sum(axis=1)).max(axis=(1, 2))
    if drift.max() > _TOLERANCE * largest:
        atom = int(np.argmax(drift))
        raise ValueError(
            f"force constants break the acoustic sum rule: atom {atom} ({ideal.symbols[atom]}) is "
            f"pushed by {drift[atom]:.2g} eV/Ang^2 when the whole crystal moves (at most "
            f"{_TOLERANCE * largest:.2g} is accepted): symmetrise them (phonopy: "
            "symmetrize_force_constants), or converge the forces better"
        )


def to_matrix(force_constants: np.ndarray) -> np.ndarray:
    """Shape (n, n, 3, 3) -> (3n, 3n)."""
    n = len(force_constants)
    return force_constants.transpose(0, 2, 1, 3).reshape(3 * n, 3 * n)


def to_blocks(matrix: np.ndarray) -> np.ndarray:
    """Shape (3n, 3n) -> (n, n, 3, 3)."""
    n = len(matrix) // 3
    return matrix.reshape(n, 3, n, 3).transpose(0, 2, 1, 3).copy()


def shortest_distance(atoms: Atoms) -> float:
    """Shortest distance between two different atoms of the cell, periodic images included."""
    if len(atoms) < 2:
        return np.inf
    cutoff = 2.0
    while True:  # neighbours in reach, not all pairs: 1 GB at 1,080 atoms
        i, j, distances = neighbor_list("ijd", atoms, cutoff)
        distances = distances[i != j]
        if distances.size:
            return float(distances.min())
        cutoff *= 1.5


# Positions are rounded to 1e-6 Ang, so that the rounding of linear algebra, which depends on the
# library and the number of threads, does not make another snapshot (and another label to pay).
DECIMALS = 6


def displaced_positions(ideal: Atoms, displacements: np.ndarray) -> np.ndarray:
    """Positions with the geometric centre kept, rounded; shape=(n, n_atoms, 3)."""
    centred = displacements - displacements.mean(axis=-2, keepdims=True)
    return (ideal.positions + centred).round(DECIMALS)
