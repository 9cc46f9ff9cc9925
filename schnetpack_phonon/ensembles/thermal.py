"""Thermal displacements, and random displacements that match them in size."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from schnetpack_phonon.common.errors import check_choice
from schnetpack_phonon.ensembles.base import check_thermal
from schnetpack_phonon.ensembles.sampler import NormalSampler, mean_squares
from schnetpack_phonon.phonons.harmonic import HarmonicModel, to_matrix
from schnetpack_phonon.phonons.modes import Operator


class ThermalEnsemble(NormalSampler):
    """Base of the normal ensembles whose parameter is a temperature."""

    setting_names: tuple[str, ...] = (*NormalSampler.setting_names, "statistics")

    def __init__(self, temperatures: Sequence[float], statistics: str, **options: Any):
        super().__init__(temperatures, **options)
        check_thermal(self.parameters, statistics)
        self.statistics = statistics

    def harmonic_mean_squares(self, source: HarmonicModel, parameter: float) -> np.ndarray:
        """As ``mean_square_displacements``, with real modes as they are; shape=(n_atoms,), Ang^2.

        Of :attr:`.HarmonicModel.unguarded`: what ``min_frequency`` changes is changed back.
        """
        return mean_squares(source.unguarded.displacement_matrix(parameter, self.statistics))


class PhononEnsemble(ThermalEnsemble):
    """Thermal displacements of a harmonic crystal, u = E diag(sigma(T)) z.

    Args:
        temperatures: in K; 0 is zero-point motion.
        statistics: ``quantum`` (Bose-Einstein, zero-point motion included) or ``classical``.
        options: of :class:`.Sampler`.
    """

    kind = "phonon"

    def __init__(self, temperatures: Sequence[float], statistics: str = "quantum", **options: Any):
        super().__init__(temperatures, statistics, **options)

    def _matrix(self, source: HarmonicModel, parameter: float) -> np.ndarray:
        return source.displacement_matrix(parameter, self.statistics)

    def _displacer(self, source: HarmonicModel, parameter: float) -> Operator:
        source.check_amplitudes(parameter, self.statistics)
        return source.displacer(parameter, self.statistics)


class MatchedEnsemble(ThermalEnsemble):
    """Uncorrelated displacements as large as the thermal ones: the control for correlations.

    Args:
        temperatures: in K.
        match: ``site`` gives each atom its own thermal 3x3 covariance, independent of all
            others; ``global`` gives all components one variance, the thermal mean; ``energy`` is
            ``site`` scaled to the mean harmonic energy of the thermal ensemble. At equal
            mean-square displacement, uncorrelated atoms have a higher energy than phonons, so the
            first two are hotter than the thermal ensemble.
        statistics: ``quantum`` or ``classical``.
        options: of :class:`.Sampler`.
    """

    kind = "matched"
    setting_names = (*ThermalEnsemble.setting_names, "match")

    def __init__(
        self,
        temperatures: Sequence[float],
        match: str = "site",
        statistics: str = "quantum",
        **options: Any,
    ):
        super().__init__(temperatures, statistics, **options)
        check_choice(("site", "global", "energy"), match=match)
        self.match = match

    def _matrix(self, source: HarmonicModel, parameter: float) -> np.ndarray:
        source.check_amplitudes(parameter, self.statistics)
        n_atoms = len(source.ideal)
        thermal = source.covariance(parameter, self.statistics)
        # As in snapshots, the geometric centre is kept.
        centring = np.kron(np.eye(n_atoms) - 1 / n_atoms, np.eye(3))
        target = centring @ thermal @ centring
        if self.match == "global":
            return np.sqrt(np.trace(target) / (3 * n_atoms - 3)) * np.eye(3 * n_atoms)
        atom = np.arange(n_atoms)
        blocks = target.reshape(n_atoms, 3, n_atoms, 3)[atom, :, atom, :]
        if n_atoms > 2:
            # Centring of independent atoms turns D_i into (1 - 2/N) D_i + sum D / N^2.
            total = blocks.sum(axis=0) / (1 - 1 / n_atoms)
            blocks = (blocks - total / n_atoms**2) / (1 - 2 / n_atoms)
        values, vectors = np.linalg.eigh(blocks)
        roots = np.einsum("nij,nj,nkj->nik", vectors, np.sqrt(values.clip(0)), vectors)
        diagonal = np.zeros((n_atoms, 3, n_atoms, 3))
        diagonal[atom, :, atom, :] = roots
        matrix = diagonal.reshape(3 * n_atoms, 3 * n_atoms)
        if self.match == "energy":
            stiffness = to_matrix(source.sampled_force_constants)
            matrix *= np.sqrt(
                np.trace(stiffness @ thermal) / np.trace(matrix.T @ stiffness @ matrix)
            )
        return matrix
