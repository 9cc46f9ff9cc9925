"""Normal modes of a supercell: of the whole matrix, or wave vector by wave vector.

Both diagonalise the same mass-weighted force constants. For a large supercell of a small unit cell
Bloch waves take seconds, the whole matrix minutes.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import TypeAlias

import numpy as np
import scipy.fft
from ase import Atoms

_INVARIANT = 1e-8  # largest change by a translation, relative to the largest force constant
_MIN_TRANSLATIONS = 64  # with fewer, products of whole matrices are as fast

Operator = Callable[[np.ndarray], np.ndarray]


@dataclass(frozen=True)
class WholeModes:
    """Orthonormal, mass-weighted modes without rigid translations, in order of frequency.

    Attributes:
        eigenvectors: as columns, shape=(3 n_atoms, 3 n_atoms - 3).
    """

    eigenvectors: np.ndarray

    def matrix(self, values: np.ndarray) -> np.ndarray:
        """E diag(values) E^T, shape=(3 n_atoms, 3 n_atoms), of one value per mode."""
        return (self.eigenvectors * values) @ self.eigenvectors.T

    def operator(self, values: np.ndarray) -> Operator:
        """Function that multiplies rows, shape=(n, 3 n_atoms), with E diag(values) E^T."""
        matrix = self.matrix(values)
        return lambda rows: rows @ matrix

    def largest_steps(self, ideal: Atoms, values: np.ndarray) -> np.ndarray:
        """Longest displacement of an atom in each mode of these amplitudes, shape=(n_modes,)."""
        masses = ideal.get_masses()
        vectors = self.eigenvectors.reshape(len(masses), 3, -1) * values
        return (np.linalg.norm(vectors, axis=1) / np.sqrt(masses)[:, None]).max(axis=0)


@dataclass(frozen=True)
class BlochModes:
    """The same as :class:`WholeModes`, from one matrix per wave vector.

    Attributes:
        atoms: atom of each site and translation, shape=(n_sites, d1, d2, d3): the translations
            are the group of integers modulo (d1, d2, d3).
        blocks: eigenvectors at each wave vector, shape=(d1, d2, d3, 3 n_sites, 3 n_sites).
        place: index of each mode in the flattened (d1, d2, d3, 3 n_sites), in order of frequency,
            without rigid translations, shape=(3 n_atoms - 3,).
        whole: computes the eigenvectors of the whole matrix.
    """

    atoms: np.ndarray
    blocks: np.ndarray
    place: np.ndarray
    whole: Callable[[], np.ndarray]

    @cached_property
    def eigenvectors(self) -> np.ndarray:
        return self.whole()

    def matrix(self, values: np.ndarray) -> np.ndarray:
        return self.operator(values)(np.eye(3 * self.atoms.size))

    def operator(self, values: np.ndarray) -> Operator:
        n_sites, *shape = self.atoms.shape
        half = slice(0, shape[2] // 2 + 1)  # the rest are complex conjugates
        vectors = self.blocks[:, :, half]
        matrices = (vectors * self._spread(values)[:, :, half, None]) @ vectors.conj().swapaxes(
            -1, -2
        )
        inverse = np.argsort(self.atoms.ravel())

        def apply(rows: np.ndarray) -> np.ndarray:
            n = len(rows)
            grid = rows.reshape(n, -1, 3)[:, self.atoms]  # n, sites, d1, d2, d3, xyz
            waves = scipy.fft.rfftn(grid, axes=(2, 3, 4))
            waves = waves.transpose(2, 3, 4, 1, 5, 0).reshape(*waves.shape[2:5], 3 * n_sites, n)
            waves = (matrices @ waves).reshape(*waves.shape[:3], n_sites, 3, n)
            grid = scipy.fft.irfftn(waves.transpose(5, 3, 0, 1, 2, 4), s=shape, axes=(2, 3, 4))
            return grid.reshape(n, -1, 3)[:, inverse].reshape(n, -1)

        return apply

    def largest_steps(self, ideal: Atoms, values: np.ndarray) -> np.ndarray:
        n_sites, *shape = self.atoms.shape
        masses = ideal.get_masses()[self.atoms[:, 0, 0, 0]]
        vectors = self.blocks.reshape(*shape, n_sites, 3, 3 * n_sites)
        lengths = np.linalg.norm(vectors, axis=-2) / np.sqrt(masses)[:, None]
        # Two travelling waves form two standing waves, with sqrt(2) times the amplitude.
        indices = np.stack(np.meshgrid(*map(np.arange, shape), indexing="ij"), axis=-1)
        standing = (2 * indices % shape == 0).all(axis=-1)
        crest = np.where(standing, 1.0, np.sqrt(2))[..., None] / np.sqrt(np.prod(shape))
        return (lengths.max(axis=-2) * crest).ravel()[self.place] * values

    def _spread(self, values: np.ndarray) -> np.ndarray:
        """Values by wave vector, 0 for rigid translations, shape=(d1, d2, d3, 3 n_sites)."""
        found = np.zeros(self.atoms.size * 3)
        found[self.place] = values
        return found.reshape(*self.atoms.shape[1:], -1)


Modes: TypeAlias = WholeModes | BlochModes


def whole_modes(dynamical: np.ndarray, masses: np.ndarray) -> tuple[np.ndarray, WholeModes]:
    """Eigenvalues in ascending order, shape=(3 n_atoms - 3,), and modes.

    Rigid translations are projected out first, so that they do not mix with soft modes.

    Args:
        dynamical: mass-weighted force constants, symmetric, shape=(3 n_atoms, 3 n_atoms).
        masses: shape=(n_atoms,).
    """
    values, vectors = _without_translations(dynamical, masses)
    return values[:-3], WholeModes(vectors[:, :-3])


def bloch_modes(
    dynamical: np.ndarray, masses: np.ndarray, atoms: np.ndarray
) -> tuple[np.ndarray, BlochModes] | None:
    """As :func:`whole_modes`, by means of the translations of the crystal.

    Args:
        dynamical: mass-weighted force constants, symmetric, shape=(3 n_atoms, 3 n_atoms).
        masses: shape=(n_atoms,).
        atoms: of :func:`translations`.

    Returns:
        None if there are too few translations, or the matrix is not invariant under them.
    """
    n_sites, *shape = atoms.shape
    n_atoms = atoms.size
    if n_atoms // n_sites < _MIN_TRANSLATIONS:
        return None
    grid = dynamical.reshape(n_atoms, 3, n_atoms, 3)
    first = grid[atoms[:, 0, 0, 0]][:, :, atoms]  # sites, xyz, sites, d1, d2, d3, xyz
    for shift in np.ndindex(*shape):
        moved = np.roll(atoms, [-s for s in shift], axis=(1, 2, 3))
        there = grid[moved[:, 0, 0, 0]][:, :, moved]
        if np.abs(there - first).max() > _INVARIANT * np.abs(first).max():
            return None
    waves = scipy.fft.fftn(first, axes=(3, 4, 5)).conj()
    waves = waves.transpose(3, 4, 5, 0, 1, 2, 6).reshape(*shape, 3 * n_sites, 3 * n_sites)
    values, blocks = np.linalg.eigh((waves + waves.conj().swapaxes(-1, -2)) / 2)
    values[0, 0, 0], blocks[0, 0, 0] = _without_translations(
        waves[0, 0, 0].real, masses[atoms[:, 0, 0, 0]]
    )
    values[0, 0, 0, -3:] = np.inf
    place = np.argsort(values.ravel(), kind="stable")[:-3]

    def whole() -> np.ndarray:
        return whole_modes(dynamical, masses)[1].eigenvectors

    return values.ravel()[place], BlochModes(atoms, blocks, place, whole)


def _without_translations(
    dynamical: np.ndarray, masses: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Eigenvalues and eigenvectors; the last three are the rigid translations."""
    n = len(masses)
    rigid = np.kron(np.sqrt(masses / masses.sum())[:, None], np.eye(3))
    others = np.eye(3 * n) - rigid @ rigid.T
    top = 2 * np.abs(dynamical).sum(axis=1).max() + 1.0  # above every eigenvalue
    return np.linalg.eigh(others @ dynamical @ others + top * rigid @ rigid.T)
