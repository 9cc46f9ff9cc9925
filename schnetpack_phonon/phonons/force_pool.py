"""Forces of structures that several harmonic models drew, reweighted to one of them.

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
    """All structures calculated so far and the models that they were drawn with."""

    def __init__(self, temperature: float, statistics: str):
        self.temperature = temperature
        self.statistics = statistics
        self.displacements = np.empty((0, 0, 3))
        self.forces = np.empty((0, 0, 3))
        self.energies = np.empty(0)
        self._drawn_with: list[tuple[HarmonicModel, int]] = []

    def add(self, model: HarmonicModel, found: Sequence[tuple[Atoms, np.ndarray, float]]) -> None:
        u = np.array([atoms.positions - model.ideal.positions for atoms, _, _ in found])
        forces = np.array([f for _, f, _ in found])
        energies = np.array([e for _, _, e in found])
        if self._drawn_with:
            u = np.concatenate([self.displacements, u])
            forces = np.concatenate([self.forces, forces])
            energies = np.concatenate([self.energies, energies])
        self.displacements, self.forces, self.energies = u, forces, energies
        self._drawn_with.append((model, len(found)))

    def weights(self, model: HarmonicModel) -> np.ndarray:
        """Probability under ``model`` over that under the mixture, of sum 1, shape=(n,)."""
        target = self._log_density(model)
        sizes = np.array([n for _, n in self._drawn_with])
        each = np.array([self._log_density(m) for m, _ in self._drawn_with])
        mixture = logsumexp(each, axis=0, b=(sizes / sizes.sum())[:, None])
        return np.exp(target - mixture - logsumexp(target - mixture))

    def _log_density(self, model: HarmonicModel) -> np.ndarray:
        root = np.sqrt(np.repeat(model.ideal.get_masses(), 3))
        sigma = model.mode_amplitudes(self.temperature, self.statistics)
        coordinates = (
            self.displacements.reshape(len(self.energies), -1) * root
        ) @ model.eigenvectors
        return -0.5 * ((coordinates / sigma) ** 2).sum(axis=1) - np.log(sigma).sum()
