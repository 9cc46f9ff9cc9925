"""Forces of structures drawn from several harmonic models, reweighted to one model.

Reference:
    Owen and Zhou, J. Am. Stat. Assoc. 95, 135 (2000) (mixture weights).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from ase import Atoms
from scipy.special import logsumexp

from schnetpack_phonon.phonons.harmonic import HarmonicModel


class ForcePool:
    """All structures calculated so far and the models that they were drawn from.

    Attributes:
        displacements: in Ang, shape=(n, n_atoms, 3).
        forces: in eV/Ang, shape=(n, n_atoms, 3).
        energies: in eV, shape=(n,).
    """

    def __init__(self, temperature: float, statistics: str):
        self.temperature = temperature
        self.statistics = statistics
        self.displacements = np.empty((0, 0, 3))
        self.forces = np.empty((0, 0, 3))
        self.energies = np.empty(0)
        self._drawn_with: list[tuple[HarmonicModel, int]] = []

    @property
    def n_draws(self) -> int:
        """How often structures were added."""
        return len(self._drawn_with)

    def add(self, model: HarmonicModel, found: Sequence[tuple[Atoms, np.ndarray, float]]) -> None:
        """Adds structures with forces and energies, drawn from ``model``."""
        shape = (-1, len(model.ideal), 3)
        u = [atoms.positions - model.ideal.positions for atoms, _, _ in found]
        self.displacements = np.concatenate([self.displacements.reshape(shape), u])
        self.forces = np.concatenate([self.forces.reshape(shape), [f for _, f, _ in found]])
        self.energies = np.append(self.energies, [e for _, _, e in found])
        self._drawn_with.append((model, len(found)))

    def weights(self, model: HarmonicModel) -> np.ndarray:
        """Probability from ``model`` over that from the mixture of all, with sum 1, shape=(n,)."""
        target = self._log_density(model)
        sizes = np.array([n for _, n in self._drawn_with])
        each = np.array([self._log_density(m) for m, _ in self._drawn_with])
        mixture = logsumexp(each, axis=0, b=(sizes / sizes.sum())[:, None])
        return np.exp(target - mixture - logsumexp(target - mixture))

    def _log_density(self, model: HarmonicModel) -> np.ndarray:
        sigma = model.mode_amplitudes(self.temperature, self.statistics)
        u = self.displacements.reshape(len(self.energies), -1)
        coordinates = (u * model.root_masses) @ model.eigenvectors
        return -0.5 * ((coordinates / sigma) ** 2).sum(axis=1) - np.log(sigma).sum()
