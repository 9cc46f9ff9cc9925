"""Ensembles of one crystal: thermal, random, matched, special displacements, and single modes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from scipy.special import ndtri

from schnetpack_phonon.phonons import HarmonicModel, shortest_distance, to_matrix
from schnetpack_phonon.snapshots import (
    Ensemble,
    NormalSampler,
    Sampler,
    Snapshot,
    Source,
    describe_phonons,
    displaced_positions,
)
from schnetpack_phonon.structures import Crystal


class _Thermal(NormalSampler):
    """Base of the normal ensembles whose parameter is a temperature."""

    parameter_name = "temperature"
    parameter_unit = "K"

    def __init__(self, temperatures: Sequence[float], statistics: str, **options: Any):
        super().__init__(temperatures, **options)
        _check_thermal(self.parameters, statistics)
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
        options: of :class:`~schnetpack_phonon.snapshots.Sampler`.
    """

    kind = "phonon"

    def __init__(self, temperatures: Sequence[float], statistics: str = "quantum", **options: Any):
        super().__init__(temperatures, statistics, **options)

    def _matrix(self, source: HarmonicModel, parameter: float) -> np.ndarray:
        source.check_amplitudes(parameter, self.statistics)
        return source.displacement_matrix(parameter, self.statistics)


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
        options: of :class:`~schnetpack_phonon.snapshots.Sampler`.
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
        options: of :class:`~schnetpack_phonon.snapshots.Sampler`.
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

    def _variance(self, parameter: float) -> float:
        return parameter**2 / {"uniform": 3, "one_sided": 12, "gaussian": 1}[self.distribution]

    def _matrix(self, source: Source, parameter: float) -> None:
        limit = shortest_distance(source) / 2
        reach = parameter / 2 if self.distribution == "one_sided" else parameter
        if reach > limit:
            raise ValueError(
                f"data.ensemble.amplitudes has {parameter:g} Ang ({self.distribution}), which moves"
                f" atoms by {reach:g} Ang, more than half the shortest distance ({limit:.2f} Ang)"
            )


class _Displaced:
    """Base of the ensembles without random numbers."""

    kind: str
    parameter_name: str
    parameter_unit: str
    parameters: list[float]
    n_snapshots: int

    @property
    def members(self) -> list[Ensemble]:
        return [self]

    @property
    def settings(self) -> dict[str, Any]:
        raise NotImplementedError

    @property
    def temperatures(self) -> list[float]:
        return sorted({self.temperature(p) for p in self.parameters})

    def temperature(self, parameter: float) -> float:
        raise NotImplementedError

    def snapshots(
        self, crystal: Crystal, source: HarmonicModel, parameter: float
    ) -> Iterator[Snapshot]:
        raise NotImplementedError

    def _snapshot(
        self,
        crystal: Crystal,
        source: HarmonicModel,
        parameter: float,
        displacements: np.ndarray,
        index: int,
        family: str,
    ) -> Snapshot:
        atoms = source.ideal.copy()
        atoms.positions = displaced_positions(source.ideal, displacements)
        return Snapshot(
            atoms,
            source.ideal,
            crystal.composition or crystal.name,
            self.kind,
            self.parameter_name,
            parameter,
            0,
            index,
            crystal.parent or f"{crystal.name}/{family}",
            describe_phonons(source),
        )


class ModeEnsemble(_Displaced):
    """Single frozen modes, one a snapshot, u_i = Q V_i / sqrt(m) with Q in standard deviations.

    Args:
        amplitudes: Q in units of the mode's thermal standard deviation; the sign counts.
        temperature: of that standard deviation, in K.
        modes: indices in order of frequency, from 0.
        statistics: ``quantum`` or ``classical``.
    """

    kind = "mode"
    parameter_name = "amplitude"
    parameter_unit = "σ"

    def __init__(
        self,
        amplitudes: Sequence[float],
        temperature: float,
        modes: Sequence[int],
        statistics: str = "quantum",
    ):
        _check_thermal([temperature], statistics)
        if not amplitudes or 0 in amplitudes or len(set(amplitudes)) != len(amplitudes):
            raise ValueError(f"amplitudes are {list(amplitudes)}; expected different ones, not 0")
        if not modes or min(modes) < 0 or len(set(modes)) != len(modes):
            raise ValueError(f"modes are {list(modes)}; expected different indices from 0")
        self.parameters = [float(a) for a in amplitudes]
        self.modes = [int(m) for m in modes]
        self.n_snapshots = len(self.modes)
        self.statistics = statistics
        self._temperature = float(temperature)

    @property
    def settings(self) -> dict[str, Any]:
        return {
            "kind": self.kind,
            "amplitudes": self.parameters,
            "temperature": self._temperature,
            "modes": self.modes,
            "statistics": self.statistics,
        }

    def temperature(self, parameter: float) -> float:
        return self._temperature

    def snapshots(
        self, crystal: Crystal, source: HarmonicModel, parameter: float
    ) -> Iterator[Snapshot]:
        """One snapshot a mode."""
        n_modes = source.frequencies.size
        if max(self.modes) >= n_modes:
            raise ValueError(
                f"data.ensemble.modes has {max(self.modes)}; {crystal.name} has {n_modes} modes, "
                f"from 0 to {n_modes - 1}"
            )
        vectors = source.canonical_eigenvectors()
        sigma = source.mode_amplitudes(self._temperature, self.statistics)
        if still := [mode for mode in self.modes if sigma[mode] == 0]:
            raise ValueError(
                f"mode {still[0]} of {crystal.name} ({source.frequencies[still[0]]:.2f} THz) does "
                f"not move at {self._temperature:g} K with policy {source.policy!r}: take other "
                "modes, or policy 'floor' or 'abs'"
            )
        root = np.sqrt(np.repeat(source.ideal.get_masses(), 3))
        for mode in self.modes:
            u = (parameter * sigma[mode] * vectors[:, mode] / root).reshape(-1, 3)
            yield self._snapshot(crystal, source, parameter, u, mode, f"mode/{mode}")


class SpecialEnsemble(_Displaced):
    """One special displacement a temperature, and its mirror image: for means, not for training.

    Every mode is displaced by its standard deviation, with signs that alternate along the
    frequencies (Zacharias and Giustino, Phys. Rev. B 94, 075125 (2016), eq. 4; their gauge at the
    Gamma point of the supercell). The harmonic energy is that of the whole ensemble.

    Args:
        temperatures: in K.
        statistics: ``quantum`` or ``classical``.
    """

    kind = "special"
    parameter_name = "temperature"
    parameter_unit = "K"
    n_snapshots = 2

    def __init__(self, temperatures: Sequence[float], statistics: str = "quantum"):
        _check_thermal(temperatures, statistics)
        self.parameters = [float(t) for t in temperatures]
        self.statistics = statistics

    @property
    def settings(self) -> dict[str, Any]:
        return {
            "kind": self.kind,
            "temperatures": self.parameters,
            "statistics": self.statistics,
        }

    def temperature(self, parameter: float) -> float:
        return parameter

    def snapshots(
        self, crystal: Crystal, source: HarmonicModel, parameter: float
    ) -> Iterator[Snapshot]:
        """The displacement and its mirror image."""
        source.check_amplitudes(parameter, self.statistics)
        vectors = source.canonical_eigenvectors()
        sigma = source.mode_amplitudes(parameter, self.statistics)
        signs = np.where(np.arange(sigma.size) % 2, -1.0, 1.0)
        root = np.sqrt(np.repeat(source.ideal.get_masses(), 3))
        u = (vectors @ (signs * sigma) / root).reshape(-1, 3)
        family = f"special/{parameter!r}"
        for index, sign in enumerate((1, -1)):
            yield self._snapshot(crystal, source, parameter, sign * u, index, family)


class RenormalisationEnsemble(_Displaced):
    """The structures that a renormalisation calculated, the newest first; their labels are paid.

    Early ones were drawn from other models than the final one: for training, not for averages.

    Args:
        temperatures: of the renormalisations, in K.
        n_snapshots: per crystal and temperature; fewer where there were not so many.
    """

    kind = "renormalisation"
    parameter_name = "temperature"
    parameter_unit = "K"

    def __init__(self, temperatures: Sequence[float], n_snapshots: int):
        _check_thermal(temperatures, "quantum")
        self.parameters = [float(t) for t in temperatures]
        self.n_snapshots = n_snapshots

    @property
    def settings(self) -> dict[str, Any]:
        return {
            "kind": self.kind,
            "temperatures": self.parameters,
            "n_snapshots": self.n_snapshots,
        }

    def temperature(self, parameter: float) -> float:
        return parameter

    def snapshots(
        self, crystal: Crystal, source: HarmonicModel, parameter: float
    ) -> Iterator[Snapshot]:
        """The structures, the newest first."""
        if source.renormalization is None:
            raise ValueError(
                f"the phonons of {crystal.name} are not renormalised: set "
                "data/phonons=renormalised, or take data/ensemble=phonon"
            )
        for index, positions in enumerate(source.renormalization.positions[::-1]):
            u = positions - source.ideal.positions
            family = f"renormalisation/{parameter!r}/{index}"
            yield self._snapshot(crystal, source, parameter, u, index, family)


def _check_thermal(temperatures: Sequence[float], statistics: str) -> None:
    if not temperatures:
        raise ValueError("data.ensemble.temperatures is empty")
    if wrong := [t for t in temperatures if not 0 <= t < np.inf]:
        raise ValueError(f"temperature is {wrong[0]} K; expected >= 0")
    if statistics not in ("quantum", "classical"):
        raise ValueError(f"unknown statistics {statistics!r}; there are quantum, classical")
