"""Random ensembles of one crystal: thermal displacements, random ones, and those that match."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from scipy.special import ndtri

from schnetpack_phonon.phonons.harmonic import HarmonicModel, shortest_distance, to_matrix
from schnetpack_phonon.phonons.modes import Operator
from schnetpack_phonon.sampling import NormalSampler, Sampler
from schnetpack_phonon.snapshots import Source, check_thermal, ideal_of


class _Thermal(NormalSampler):
    """Base of the normal ensembles whose parameter is a temperature."""

    parameter_name = "temperature"
    parameter_unit = "K"

    def __init__(self, temperatures: Sequence[float], statistics: str, **options: Any):
        super().__init__(temperatures, **options)
        check_thermal(self.parameters, statistics)
        self.statistics = statistics

    @property
    def settings(self) -> dict[str, Any]:
        return {**super().settings, "statistics": self.statistics}

    def temperature(self, parameter: float) -> float:
        return parameter


class PhononEnsemble(_Thermal):
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


class MatchedEnsemble(_Thermal):
    """Random displacements as large as the thermal ones: the control for their correlations.

    Args:
        temperatures: in K.
        match: ``site`` gives each atom its own thermal 3x3 covariance, independent of all
            others; ``global`` gives all components one variance, the thermal mean; ``energy`` is
            ``site`` scaled to the mean harmonic energy of the thermal ensemble. At equal
            mean-square displacement uncorrelated atoms cost more energy, so the first two are
            hotter than the phonons that they match.
        statistics: ``quantum`` or ``classical``.
        options: of :class:`.Sampler`.
    """

    kind = "matched"

    def __init__(
        self,
        temperatures: Sequence[float],
        match: str = "site",
        statistics: str = "quantum",
        **options: Any,
    ):
        super().__init__(temperatures, statistics, **options)
        if match not in ("site", "global", "energy"):
            raise ValueError(f"unknown match {match!r}; there are site, global, energy")
        self.match = match

    @property
    def settings(self) -> dict[str, Any]:
        return {**super().settings, "match": self.match}

    def _matrix(self, source: HarmonicModel, parameter: float) -> np.ndarray:
        source.check_amplitudes(parameter, self.statistics)
        n_atoms = len(source.ideal)
        thermal = source.covariance(parameter, self.statistics)
        # As snapshots have it: the geometric centre is held.
        held = np.kron(np.eye(n_atoms) - 1 / n_atoms, np.eye(3))
        target = held @ thermal @ held
        if self.match == "global":
            return np.sqrt(np.trace(target) / (3 * n_atoms - 3)) * np.eye(3 * n_atoms)
        atom = np.arange(n_atoms)
        blocks = target.reshape(n_atoms, 3, n_atoms, 3)[atom, :, atom, :]
        if n_atoms > 2:
            # Holding the centre of independent atoms turns D_i into (1 - 2/N) D_i + sum D / N^2.
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


class RandomEnsemble(Sampler):
    """Independent displacements of every atom and direction: the usual control.

    Args:
        amplitudes: in Ang.
        distribution: ``uniform`` on [-amplitude, amplitude]; ``one_sided`` on [0, amplitude] as
            published (Benitez et al., arXiv:2511.15222), which is a rigid shift, that is removed,
            and half the amplitude; ``gaussian`` with the amplitude as standard deviation. Compare
            ensembles by their standard deviation: amplitude / sqrt(3), amplitude / sqrt(12) and
            the amplitude itself.
        options: of :class:`.Sampler`.
    """

    kind = "random"
    parameter_name = "amplitude"
    parameter_unit = "Å"

    def __init__(
        self, amplitudes: Sequence[float], distribution: str = "one_sided", **options: Any
    ):
        super().__init__(amplitudes, **options)
        if wrong := [a for a in self.parameters if not 0 < a < np.inf]:
            raise ValueError(f"amplitude is {wrong[0]} Ang; expected > 0")
        if distribution not in ("uniform", "one_sided", "gaussian"):
            raise ValueError(
                f"unknown distribution {distribution!r}; there are uniform, one_sided, gaussian"
            )
        self.distribution = distribution

    @property
    def settings(self) -> dict[str, Any]:
        return {**super().settings, "distribution": self.distribution}

    def temperature(self, parameter: float) -> None:
        return None

    def _random(self, stream: np.random.Generator, n_atoms: int, parameter: float) -> np.ndarray:
        if self.distribution == "gaussian":
            return parameter * stream.standard_normal(3 * n_atoms)
        low = 0.0 if self.distribution == "one_sided" else -parameter
        return stream.uniform(low, parameter, 3 * n_atoms)

    def _from_unit_cube(self, points: np.ndarray, parameter: float) -> np.ndarray:
        if self.distribution == "gaussian":
            return parameter * ndtri(points)
        low = 0.0 if self.distribution == "one_sided" else -parameter
        return low + (parameter - low) * points

    def _family(self, parameter: float) -> str:
        # The one-sided ones came first, and labels of them ship.
        name = super()._family(parameter)
        return name if self.distribution == "one_sided" else f"{self.distribution} {name}"

    def mean_square_displacements(self, source: Source, parameter: float) -> np.ndarray:
        share = {"uniform": 3, "one_sided": 12, "gaussian": 1}[self.distribution]
        n_atoms = len(ideal_of(source))
        # The centre is held: one part in n_atoms less.
        return np.full(n_atoms, parameter**2 / share * (1 - 1 / n_atoms))

    def _displacer(self, source: Source, parameter: float) -> Operator:
        limit = shortest_distance(source) / 2
        reach = parameter / 2 if self.distribution == "one_sided" else parameter
        if reach > limit:
            raise ValueError(
                f"data.ensemble.amplitudes has {parameter:g} Ang ({self.distribution}), which moves"
                f" atoms by {reach:g} Ang, more than half the shortest distance ({limit:.2f} Ang)"
            )
        return lambda displacements: displacements
