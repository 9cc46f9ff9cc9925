"""Displaced supercells, base classes of ensembles, and groups of snapshots."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import numpy as np
from ase import Atoms

from schnetpack_phonon.common.errors import check_choice
from schnetpack_phonon.common.properties import Labels
from schnetpack_phonon.labels.imported.frames import FileLabels, same_source
from schnetpack_phonon.phonons.harmonic import STATISTICS, HarmonicModel
from schnetpack_phonon.structures.crystals import Crystal

Source: TypeAlias = Atoms | HarmonicModel


@dataclass(frozen=True)
class Snapshot:
    """A displaced supercell and its origin.

    Attributes:
        atoms: the displaced supercell; its geometric centre is that of ``ideal``.
        ideal: the undisplaced supercell in the same order of atoms; strained if ``atoms`` is.
        structure: name of the crystal.
        kind: kind of the ensemble.
        parameter_name: ``temperature`` (K), ``amplitude`` (Ang or standard deviations).
        parameter: its value.
        seed: of the ensemble.
        index: of the snapshot in its group.
        parent: snapshots with one parent are similar, and are never split between training and
            test.
        phonons: policy for imaginary modes, their number, and the lowest frequency in THz, if the
            snapshot was drawn from a harmonic model; of molecular dynamics replica, time in ps,
            number of atoms that have left their sites, and version of the potential.
        labels: that came with the structure; None if they are to be calculated.
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
    labels: Labels | None = None


class Ensemble(ABC):
    """Base of all ensembles, which data generation uses."""

    @property
    @abstractmethod
    def settings(self) -> dict[str, Any]:
        """Everything that changes a snapshot, as plain values."""

    @property
    @abstractmethod
    def members(self) -> Sequence[SimpleEnsemble]:
        """The ensemble itself, or its parts."""

    @property
    def temperatures(self) -> list[float]:
        """Temperatures of the harmonic models that are needed, in K."""
        found = {m.temperature(p) for m in self.members for p in m.parameters}
        return sorted(t for t in found if t is not None)

    @property
    def source_of_labels(self) -> FileLabels | None:
        """What stands for the calculator if the snapshots bring their labels; else None.

        Raises:
            ValueError: if only some members bring them.
            LabellingError: if they are of several codes.
        """
        known = [own for member in self.members if (own := member.source_of_labels) is not None]
        if len(known) == len(self.members):
            return same_source(known)
        if not known:
            return None
        raise ValueError(
            "labels of some members of data.ensemble come from a file, others would be calculated: "
            "set data.ensemble.ensembles.NAME.labels=calculator, or make two databases"
        )

    def check(self, crystals: Sequence[Crystal]) -> None:
        """Raises ValueError for crystals of which no snapshot can be drawn."""
        for member in self.members:
            member.check(crystals)

    def draw(self, crystal: Crystal, model: HarmonicModel | None = None) -> list[Snapshot]:
        """All snapshots of one crystal, without those that are rejected for short distances.

        Args:
            crystal: that is displaced.
            model: its harmonic model, for ensembles that need one: :func:`.phonon_model`.

        Raises:
            ValueError: if there is no model and one is needed, or nearly all are rejected.
        """
        if self.temperatures and model is None:
            raise ValueError(
                f"{type(self).__name__} needs the harmonic model of {crystal.name}: give "
                "phonon_model(crystal, FiniteDisplacements(), calculator)"
            )
        models = {(crystal.name, t): model for t in self.temperatures if model is not None}
        groups = snapshot_groups(self, [crystal], models)
        return [s for group in groups for s in accepted(group.stream, group.n_snapshots)[0]]


class SimpleEnsemble(Ensemble):
    """Base of all ensembles but mixtures. By default the parameter is the model's temperature.

    Attributes:
        kind: of ensemble.
        setting_names: names of the attributes that change a snapshot, besides ``parameters``.
        parameter_name: ``temperature`` or ``amplitude``.
        parameter_unit: its unit, for tables and figures.
        parameters: its values; the snapshots of one crystal and value form a group.
        n_snapshots: of a group.
        seed: of the random numbers.
        similar: so many successive snapshots of a group have one parent.
        min_distance: snapshots with two atoms closer than this fraction of the shortest distance
            in the ideal crystal are rejected.
    """

    kind: str
    setting_names: tuple[str, ...] = ()
    parameter_name: str = "temperature"
    parameter_unit: str = "K"
    parameters: list[float]
    n_snapshots: int
    seed: int = 0
    similar: int = 1
    min_distance: float = 0.0

    @property
    def settings(self) -> dict[str, Any]:
        own = {name: getattr(self, name) for name in self.setting_names}
        return {"kind": self.kind, f"{self.parameter_name}s": self.parameters, **own}

    @property
    def members(self) -> list[SimpleEnsemble]:
        return [self]

    @property
    def source_of_labels(self) -> FileLabels | None:
        return None

    def temperature(self, parameter: float) -> float | None:
        """Of the harmonic model that one parameter needs, None if it needs none."""
        return parameter

    def check(self, crystals: Sequence[Crystal]) -> None:
        """Raises ValueError for crystals of which no snapshot can be drawn."""

    @abstractmethod
    def snapshots(
        self, crystal: Crystal, source: Source, parameter: float
    ) -> Iterator[Snapshot | None]:
        """Snapshots of one group, endless or not; None for a rejected one, which keeps its index.

        Args:
            crystal: that is displaced.
            source: its harmonic model, or the ideal supercell if no model is needed.
            parameter: one of ``parameters``.
        """

    def _maker(
        self, crystal: Crystal, source: Source, parameter: float
    ) -> Callable[[Atoms, Atoms, int, str], Snapshot]:
        """(displaced, ideal, index, family of similar snapshots) -> snapshot of one group."""
        structure, phonons = crystal.composition or crystal.name, _describe(source)

        def snapshot(atoms: Atoms, ideal: Atoms, index: int, family: str) -> Snapshot:
            group = structure, self.kind, self.parameter_name, parameter, self.seed
            parent = crystal.parent or f"{crystal.name}/{family}"
            return Snapshot(atoms, ideal, *group, index, parent, phonons)

        return snapshot


def _describe(source: Source) -> dict[str, str | int | float]:
    """Facts about the harmonic model from which a snapshot was drawn."""
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
    """Raises ValueError for invalid temperatures or statistics."""
    if not temperatures:
        raise ValueError("data.ensemble.temperatures is empty")
    if wrong := [t for t in temperatures if not 0 <= t < np.inf]:
        raise ValueError(f"temperature is {wrong[0]} K; expected >= 0")
    check_choice(STATISTICS, statistics=statistics)


@dataclass(frozen=True)
class Group:
    """Snapshots of one crystal, ensemble and parameter.

    Attributes:
        ensemble: no mixture.
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
        ensemble: simple or a mixture.
        crystals: relaxed ones.
        models: by name of the crystal and temperature in K.
    """
    for crystal in crystals:
        supercell = crystal.supercell
        for member in ensemble.members:
            for parameter in member.parameters:
                t = member.temperature(parameter)
                source = supercell if t is None else models[crystal.name, t]
                stream = member.snapshots(crystal, source, parameter)
                yield Group(member, crystal.name, parameter, source, stream)


def planned_parents(ensemble: Ensemble, crystals: Sequence[Crystal]) -> list[str]:
    """A parent for each snapshot that will be drawn, known before anything is computed.

    Their names are not those of the snapshots.
    """
    return [
        crystal.parent or f"{crystal.name}/{k}/{parameter}/{index // member.similar}"
        for crystal in crystals
        for k, member in enumerate(ensemble.members)
        for parameter in member.parameters
        for index in range(member.n_snapshots)
    ]


def until_accepted(stream: Iterator[Snapshot | None], n: int) -> Iterator[Snapshot | None]:
    """A stream until n snapshots were accepted; None stands for a rejected one.

    Raises:
        ValueError: if nearly all are rejected.
    """
    n_accepted = n_rejected = 0
    for snapshot in stream if n > 0 else ():
        yield snapshot
        n_accepted += snapshot is not None
        n_rejected += snapshot is None
        if n_accepted == n:
            return
        if n_rejected > 100 * n:
            raise ValueError(
                f"{n_rejected} of {n_rejected + n_accepted} snapshots had two atoms too close or "
                "one too far from its site: the displacements are too large for this crystal. "
                "Lower the temperature, the amplitude or data.ensemble.min_distance, or raise "
                "data.ensemble.max_displacement"
            )


def accepted(stream: Iterator[Snapshot | None], n: int) -> tuple[list[Snapshot], int]:
    """The next n accepted snapshots, fewer at the end of a stream, and how many were rejected."""
    found = list(until_accepted(stream, n))
    snapshots = [snapshot for snapshot in found if snapshot is not None]
    return snapshots, len(found) - len(snapshots)
