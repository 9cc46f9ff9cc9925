"""Displaced supercells, the ensembles that give streams of them, and how streams are read."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import numpy as np
from ase import Atoms

from schnetpack_phonon.phonons.harmonic import HarmonicModel
from schnetpack_phonon.structures.crystals import Crystal

Source: TypeAlias = Atoms | HarmonicModel


@dataclass(frozen=True)
class Snapshot:
    """A displaced supercell and where it comes from.

    Attributes:
        atoms: the displaced supercell; its geometric centre is that of ``ideal``.
        ideal: the undisplaced supercell, same order of atoms; strained where ``atoms`` is.
        structure: name of the crystal.
        kind: kind of the ensemble.
        parameter_name: ``temperature`` (K), ``amplitude`` (Ang or standard deviations).
        parameter: its value.
        seed: of the ensemble.
        index: place of the snapshot in its group.
        parent: snapshots that share a parent resemble each other and are never split between
            training and test.
        phonons: policy for imaginary modes, their number, and the lowest frequency in THz, where
            the snapshot was drawn from a harmonic model.
    """

    atoms: Atoms
    ideal: Atoms
    structure: str
    kind: str
    parameter_name: str
    parameter: float
    seed: int
    index: int
    parent: str
    phonons: Mapping[str, str | int | float] = field(default_factory=dict)


class Ensemble(ABC):
    """What data generation asks of a sampler, simple or made of others."""

    @property
    @abstractmethod
    def settings(self) -> dict[str, Any]:
        """Everything that changes a snapshot, as plain values."""

    @property
    @abstractmethod
    def members(self) -> Sequence[SimpleEnsemble]:
        """The ensemble itself, or those that it is made of."""

    @property
    def temperatures(self) -> list[float]:
        """At which harmonic models are needed, in K; empty where none is."""
        found = [m.temperature(p) for m in self.members for p in m.parameters]
        return sorted({t for t in found if t is not None})


class SimpleEnsemble(Ensemble):
    """Base of the ensembles that are not made of others.

    Attributes:
        kind: of ensemble.
        parameter_name: ``temperature`` or ``amplitude``.
        parameter_unit: its unit, for people.
        parameters: its values; snapshots of one crystal and value form a group.
        n_snapshots: of a group.
        seed: of its random numbers.
        min_distance: snapshots with two atoms closer than this fraction of the shortest distance
            in the ideal crystal are rejected.
    """

    kind: str
    parameter_name: str
    parameter_unit: str
    parameters: list[float]
    n_snapshots: int
    seed: int = 0
    min_distance: float = 0.0

    @property
    def members(self) -> list[SimpleEnsemble]:
        return [self]

    @abstractmethod
    def temperature(self, parameter: float) -> float | None:
        """Of the harmonic model that one parameter needs."""

    @abstractmethod
    def snapshots(
        self, crystal: Crystal, source: Source, parameter: float
    ) -> Iterator[Snapshot | None]:
        """A stream, endless or not; None stands for a rejected snapshot, which keeps its index.

        Args:
            crystal: that is displaced.
            source: its harmonic model, or the ideal supercell where no temperature is needed.
            parameter: one of ``parameters``.
        """

    def _maker(
        self, crystal: Crystal, source: Source, parameter: float
    ) -> Callable[[Atoms, Atoms, int, str], Snapshot]:
        """(displaced, ideal, index, family of snapshots alike) -> snapshot of one group."""
        phonons = _describe(source)

        def snapshot(atoms: Atoms, ideal: Atoms, index: int, family: str) -> Snapshot:
            return Snapshot(
                atoms,
                ideal,
                crystal.composition or crystal.name,
                self.kind,
                self.parameter_name,
                parameter,
                self.seed,
                index,
                crystal.parent or f"{crystal.name}/{family}",
                phonons,
            )

        return snapshot


def _describe(source: Source) -> dict[str, str | int | float]:
    """What a snapshot keeps of the harmonic model that it was drawn from."""
    if not isinstance(source, HarmonicModel):
        return {}
    return {
        "phonon_policy": source.policy,
        "n_imaginary": source.n_imaginary,
        "lowest_frequency": float(source.frequencies.min()),
    }


def ideal_of(source: Source) -> Atoms:
    """The undisplaced supercell."""
    return source.ideal if isinstance(source, HarmonicModel) else source


def check_thermal(temperatures: Sequence[float], statistics: str = "quantum") -> None:
    """Raises ValueError for temperatures or statistics that are none."""
    if not temperatures:
        raise ValueError("data.ensemble.temperatures is empty")
    if wrong := [t for t in temperatures if not 0 <= t < np.inf]:
        raise ValueError(f"temperature is {wrong[0]} K; expected >= 0")
    if statistics not in ("quantum", "classical"):
        raise ValueError(f"unknown statistics {statistics!r}; there are quantum, classical")


@dataclass(frozen=True)
class Group:
    """Snapshots of one crystal, ensemble and parameter.

    Attributes:
        ensemble: none that is made of others.
        crystal: its name.
        parameter: temperature or amplitude.
        source: harmonic model or ideal supercell.
        stream: snapshots in order, None for rejected ones.
    """

    ensemble: SimpleEnsemble
    crystal: str
    parameter: float
    source: Source
    stream: Iterator[Snapshot | None]

    @property
    def n_snapshots(self) -> int:
        return self.ensemble.n_snapshots


def snapshot_groups(
    ensemble: Ensemble,
    crystals: Sequence[Crystal],
    models: Mapping[tuple[str, float], HarmonicModel],
) -> Iterator[Group]:
    """All groups of an ensemble in the order of database rows.

    Args:
        ensemble: may be made of others.
        crystals: relaxed ones.
        models: by crystal and temperature in K.
    """
    for crystal in crystals:
        supercell = crystal.supercell
        for member in ensemble.members:
            for parameter in member.parameters:
                temperature = member.temperature(parameter)
                source: Source = supercell
                if temperature is not None:
                    source = models[crystal.name, temperature]
                stream = member.snapshots(crystal, source, parameter)
                yield Group(member, crystal.name, parameter, source, stream)


def until_accepted(stream: Iterator[Snapshot | None], n: int) -> Iterator[Snapshot | None]:
    """A stream until n snapshots were accepted; None stands for a rejected one.

    Raises:
        ValueError: if nearly all are rejected.
    """
    n_accepted = n_rejected = 0
    while n_accepted < n:
        try:
            snapshot = next(stream)
        except StopIteration:
            return
        yield snapshot
        if snapshot is not None:
            n_accepted += 1
            continue
        n_rejected += 1
        if n_rejected > 100 * n:
            raise ValueError(
                f"{n_rejected} of {n_rejected + n_accepted} snapshots had two atoms too close "
                "or one too far from its site: the displacements are too large for this "
                "crystal; lower the temperature or amplitude, data.ensemble.min_distance, or "
                "raise data.ensemble.max_displacement"
            )


def accepted(stream: Iterator[Snapshot | None], n: int) -> tuple[list[Snapshot], int]:
    """The next n accepted snapshots, fewer at the end of a stream, and how many were rejected."""
    found = list(until_accepted(stream, n))
    snapshots = [snapshot for snapshot in found if snapshot is not None]
    return snapshots, len(found) - len(snapshots)
