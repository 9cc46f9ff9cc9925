"""Samplers: crystal (and its vibrations) + seed -> displaced snapshots with provenance.

Snapshot ``k`` of a group (one crystal, one temperature or amplitude) is drawn from its own
random stream, so it is the same however many are drawn, in whatever order, by whatever process.
"""

from __future__ import annotations

import itertools
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol

import numpy as np
from ase import Atoms
from ase.geometry import get_distances

from schnetpack_phonon.phonons import HarmonicModel

# Positions are rounded to 1e-6 Ang, so that the rounding of linear algebra, which depends on the
# library and the number of threads, does not make another snapshot (and another label to pay).
_DECIMALS = 6


@dataclass(frozen=True)
class Snapshot:
    """A displaced supercell and where it comes from.

    Attributes:
        atoms: the displaced supercell; its geometric centre is that of ``ideal``.
        ideal: the undisplaced supercell, same order of atoms.
        structure: name of the crystal.
        kind: kind of the ensemble.
        parameter: temperature in K or amplitude in Ang.
        seed: of the ensemble.
        index: place of the snapshot in its group.
        parent: snapshots that share a parent resemble each other and are never split between
            training and test.
    """

    atoms: Atoms
    ideal: Atoms
    structure: str
    kind: str
    parameter: float
    seed: int
    index: int
    parent: str


class Ensemble(Protocol):
    """What the data module asks of a sampler."""

    kind: ClassVar[str]
    parameter_name: ClassVar[str]
    parameter_unit: ClassVar[str]
    parameters: list[float]
    n_snapshots: int
    needs_phonons: bool

    @property
    def settings(self) -> dict[str, Any]:
        """Everything that changes a snapshot, as plain values."""

    def snapshots(
        self, name: str, crystal: Atoms | HarmonicModel, parameter: float
    ) -> Iterator[Snapshot | None]:
        """An endless stream; None stands for a rejected snapshot, which keeps its index."""


def snapshot_stream(seed: int, group: str, index: int) -> np.random.Generator:
    """The random stream of snapshot ``index`` of a named group."""
    key = (zlib.crc32(group.encode()), index)
    return np.random.default_rng(np.random.SeedSequence(seed, spawn_key=key))


class _Sampler:
    kind: ClassVar[str]
    parameter_name: ClassVar[str]

    def __init__(
        self, parameters: Sequence[float], n_snapshots: int, seed: int, min_distance: float
    ):
        if not parameters:
            raise ValueError(f"data.ensemble.{self.parameter_name}s is empty")
        if len(set(parameters)) != len(parameters):
            raise ValueError(f"{self.parameter_name}s repeat a value: {list(parameters)}")
        if n_snapshots < 1:
            raise ValueError(f"data.ensemble.n_snapshots is {n_snapshots}; expected >= 1")
        if not isinstance(seed, int) or seed < 0:
            raise ValueError(f"data.ensemble.seed is {seed!r}; expected an integer >= 0")
        if not 0 <= min_distance < 1:
            raise ValueError(f"data.ensemble.min_distance is {min_distance}; expected 0 <= x < 1")
        self.parameters = [float(p) for p in parameters]
        self.n_snapshots = n_snapshots
        self.seed = seed
        self.min_distance = min_distance

    @property
    def settings(self) -> dict[str, Any]:
        return {
            "kind": self.kind,
            f"{self.parameter_name}s": self.parameters,
            "n_snapshots": self.n_snapshots,
            "seed": self.seed,
            "min_distance": float(self.min_distance),
        }

    def _stream(self, name, ideal, parameter, displacements) -> Iterator[Snapshot | None]:
        limit = self.min_distance * _shortest_distance(ideal)
        group = f"{name}/{self.kind}/{float(parameter)!r}"
        for index in itertools.count():
            u = displacements(snapshot_stream(self.seed, group, index))
            atoms = ideal.copy()
            positions = ideal.positions + u - u.mean(axis=0)
            atoms.positions = positions.round(_DECIMALS)
            if _shortest_distance(atoms) < limit:
                yield None
            else:
                parent = f"{group}/{index}"
                yield Snapshot(atoms, ideal, name, self.kind, parameter, self.seed, index, parent)


class PhononEnsemble(_Sampler):
    """Thermal displacements of a harmonic crystal, u = E diag(sigma(T)) z.

    Args:
        temperatures: in K; 0 is zero-point motion.
        n_snapshots: per crystal and temperature.
        seed: of all snapshots.
        statistics: ``quantum`` (Bose-Einstein, zero-point motion included) or ``classical``.
        min_distance: snapshots with two atoms closer than this fraction of the shortest
            distance in the ideal crystal are rejected and counted.
    """

    kind = "phonon"
    parameter_name = "temperature"
    parameter_unit = "K"
    needs_phonons = True

    def __init__(
        self,
        temperatures: Sequence[float],
        n_snapshots: int,
        seed: int,
        statistics: str = "quantum",
        min_distance: float = 0.6,
    ):
        super().__init__(temperatures, n_snapshots, seed, min_distance)
        if wrong := [t for t in self.parameters if not 0 <= t < np.inf]:
            raise ValueError(f"temperature is {wrong[0]} K; expected >= 0")
        if statistics not in ("quantum", "classical"):
            raise ValueError(f"unknown statistics {statistics!r}; there are quantum, classical")
        self.statistics = statistics

    @property
    def settings(self) -> dict[str, Any]:
        return {**super().settings, "statistics": self.statistics}

    def snapshots(
        self, name: str, crystal: HarmonicModel, parameter: float
    ) -> Iterator[Snapshot | None]:
        matrix = crystal.displacement_matrix(parameter, self.statistics)
        return self._stream(
            name,
            crystal.ideal,
            parameter,
            lambda rng: (matrix @ rng.standard_normal(matrix.shape[1])).reshape(-1, 3),
        )


class RandomEnsemble(_Sampler):
    """Independent uniform displacements of every atom and direction: the control.

    Args:
        amplitudes: in Ang.
        n_snapshots: per crystal and amplitude.
        seed: of all snapshots.
        distribution: ``uniform`` on [-amplitude, amplitude], or ``one_sided`` on
            [0, amplitude] as published (Benitez et al., arXiv:2511.15222). The latter is a
            rigid shift, which is removed, and half the amplitude: compare ensembles by their
            standard deviation per component, amplitude / sqrt(3) and amplitude / sqrt(12).
        min_distance: as for :class:`PhononEnsemble`.
    """

    kind = "random"
    parameter_name = "amplitude"
    parameter_unit = "Å"
    needs_phonons = False

    def __init__(
        self,
        amplitudes: Sequence[float],
        n_snapshots: int,
        seed: int,
        distribution: str = "one_sided",
        min_distance: float = 0.6,
    ):
        super().__init__(amplitudes, n_snapshots, seed, min_distance)
        if wrong := [a for a in self.parameters if not 0 < a < np.inf]:
            raise ValueError(f"amplitude is {wrong[0]} Ang; expected > 0")
        if distribution not in ("uniform", "one_sided"):
            raise ValueError(f"unknown distribution {distribution!r}; there are uniform, one_sided")
        self.distribution = distribution

    @property
    def settings(self) -> dict[str, Any]:
        return {**super().settings, "distribution": self.distribution}

    def snapshots(self, name: str, crystal: Atoms, parameter: float) -> Iterator[Snapshot | None]:
        low = 0.0 if self.distribution == "one_sided" else -parameter
        return self._stream(
            name, crystal, parameter, lambda rng: rng.uniform(low, parameter, (len(crystal), 3))
        )


def _shortest_distance(atoms: Atoms) -> float:
    """Shortest distance between two different atoms of the cell, periodic images included."""
    _, distances = get_distances(atoms.positions, cell=atoms.cell, pbc=atoms.pbc)
    return float(distances[np.triu_indices(len(atoms), 1)].min(initial=np.inf))
