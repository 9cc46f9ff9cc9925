"""Ensembles under random homogeneous strain."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
from ase import Atoms

from schnetpack_phonon.common.random import snapshot_stream
from schnetpack_phonon.ensembles.base import SimpleEnsemble, Snapshot, Source
from schnetpack_phonon.structures.crystals import DECIMALS, Crystal, shortest_distance
from schnetpack_phonon.structures.elasticity import strained, voigt_to_tensor


class StrainedEnsemble(SimpleEnsemble):
    """Another ensemble under random homogeneous strain, for stress and elastic labels.

    The six components of the symmetric strain eps are uniform on [-strain, strain]. Cell and atoms
    of the snapshot and of its ideal crystal are mapped by 1 + eps.

    Args:
        base: the ensemble that displaces the atoms.
        strain: largest component, without unit.
        seed: of the strains.
        n_snapshots: for each crystal and parameter, instead of the base's number.
    """

    kind = "strained"

    def __init__(
        self, base: SimpleEnsemble, strain: float, seed: int, n_snapshots: int | None = None
    ):
        if not isinstance(base, SimpleEnsemble):
            raise ValueError("data.ensemble.base is a mixture; expected one of its members")
        if getattr(base, "labels", None) == "file":
            raise ValueError(
                "data.ensemble.base.labels is 'file', but strained structures have other labels "
                "than those of the file: set data.ensemble.base.labels=calculator"
            )
        if not 0 < strain < 0.2:
            raise ValueError(f"data.ensemble.strain is {strain}; expected 0 < strain < 0.2")
        self.base = base
        if n_snapshots is not None:
            self.base.n_snapshots = n_snapshots
        self.strain = float(strain)
        self.seed = seed
        self.parameter_name = base.parameter_name
        self.parameter_unit = base.parameter_unit
        self.parameters = base.parameters
        self.min_distance = base.min_distance
        self.similar = base.similar

    @property
    def n_snapshots(self) -> int:
        return self.base.n_snapshots

    @n_snapshots.setter
    def n_snapshots(self, value: int) -> None:  # by a mixture; stored in the base's settings
        self.base.n_snapshots = value

    @property
    def settings(self) -> dict[str, Any]:
        return {
            "kind": self.kind,
            "base": self.base.settings,
            "strain": self.strain,
            "seed": self.seed,
        }

    def temperature(self, parameter: float) -> float | None:
        return self.base.temperature(parameter)

    def snapshots(
        self, crystal: Crystal, source: Source, parameter: float
    ) -> Iterator[Snapshot | None]:
        group = f"{crystal.name}/strained {self.base.kind}/{float(parameter)!r}"
        limit = self.min_distance * shortest_distance(crystal.supercell)
        for snapshot in self.base.snapshots(crystal, source, parameter):
            if snapshot is None:
                yield None
                continue
            stream = snapshot_stream(self.seed, group, snapshot.index)
            components = stream.uniform(-self.strain, self.strain, 6).round(DECIMALS)
            strain = voigt_to_tensor(components)
            atoms = _strained(snapshot.atoms, strain)
            if limit and shortest_distance(atoms) < limit:
                yield None
                continue
            ideal = _strained(snapshot.ideal, strain)
            yield replace(snapshot, kind=self.kind, atoms=atoms, ideal=ideal)


def _strained(atoms: Atoms, strain: np.ndarray) -> Atoms:
    atoms = strained(atoms, strain)
    atoms.set_cell(atoms.cell.array.round(DECIMALS))
    atoms.positions = atoms.positions.round(DECIMALS)
    return atoms
