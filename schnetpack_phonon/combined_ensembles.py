"""Ensembles made of others, or of configurations that somebody else made."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms
from ase.geometry import find_mic
from ase.io import iread

from schnetpack_phonon.common.digests import contents_digest
from schnetpack_phonon.common.seeding import snapshot_stream
from schnetpack_phonon.phonons.harmonic import DECIMALS, shortest_distance
from schnetpack_phonon.snapshots import Ensemble, SimpleEnsemble, Snapshot, Source
from schnetpack_phonon.structures.crystals import Crystal, files_of_crystals
from schnetpack_phonon.structures.elasticity import strained, voigt_to_tensor


class StrainedEnsemble(SimpleEnsemble):
    """Another ensemble under random homogeneous strain, for stress and elastic labels.

    The symmetric strain eps has six independent components, uniform on [-strain, strain]; cell and
    atoms are mapped by 1 + eps, and so is the ideal crystal that the snapshot refers to.

    Args:
        base: the ensemble that displaces the atoms.
        strain: largest component, without unit.
        seed: of the strains.
        n_snapshots: for each crystal and parameter, in place of the base's own number.
    """

    kind = "strained"

    def __init__(
        self, base: SimpleEnsemble, strain: float, seed: int, n_snapshots: int | None = None
    ):
        if not isinstance(base, SimpleEnsemble):
            raise ValueError("data.ensemble.base is a mixture; strain its members one by one")
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

    @property
    def n_snapshots(self) -> int:
        return self.base.n_snapshots

    @n_snapshots.setter
    def n_snapshots(self, value: int) -> None:  # by a mixture; it belongs to the base's settings
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


class MixtureEnsemble(Ensemble):
    """Several ensembles side by side in one database.

    Args:
        ensembles: by any name.
        fractions: of the snapshots of a crystal, by the same names; they sum to one.
        n_snapshots: per crystal, over all ensembles and parameters. Each ensemble gets at least
            one per parameter.
    """

    def __init__(
        self,
        ensembles: Mapping[str, SimpleEnsemble],
        fractions: Mapping[str, float],
        n_snapshots: int,
    ):
        if set(ensembles) != set(fractions):
            raise ValueError(
                f"data.ensemble.fractions names {sorted(fractions)}; "
                f"data.ensemble.ensembles {sorted(ensembles)}: expected the same"
            )
        if min(fractions.values(), default=0) <= 0 or abs(sum(fractions.values()) - 1) > 1e-6:
            raise ValueError(
                f"data.ensemble.fractions are {dict(fractions)}; expected positive ones of sum 1"
            )
        if not all(isinstance(ensemble, SimpleEnsemble) for ensemble in ensembles.values()):
            raise ValueError("data.ensemble.ensembles has a mixture in a mixture; name its members")
        self.fractions = {name: float(f) for name, f in fractions.items()}
        self.n_snapshots = n_snapshots
        for name, ensemble in ensembles.items():
            share = n_snapshots * self.fractions[name] / len(ensemble.parameters)
            ensemble.n_snapshots = max(round(share), 1)
        self.ensembles = dict(ensembles)

    @property
    def members(self) -> list[SimpleEnsemble]:
        return list(self.ensembles.values())

    @property
    def settings(self) -> dict[str, Any]:
        return {
            "kind": "mixture",
            "ensembles": {name: e.settings for name, e in self.ensembles.items()},
        }


class FileEnsemble(SimpleEnsemble):
    """Snapshots from a molecular-dynamics trajectory or any file that ASE reads.

    Atoms must have the order of the supercell that ``data.structure`` and its supercell matrix
    give (phonopy's); a cell that differs is taken as a homogeneous strain.

    Args:
        path: the file; ``{name}`` stands for the crystal's name where there are several.
        n_snapshots: how many are taken.
        every: take each ``every``-th frame.
        skip: frames left out at the beginning.
        frames_per_parent: so many successive ones resemble each other and stay together when
            the data are split.
        temperature: of the trajectory in K, for tables and figures.
        work_dir: where a relative path starts.
    """

    kind = "file"
    parameter_name = "temperature"
    parameter_unit = "K"

    def __init__(
        self,
        path: str,
        n_snapshots: int,
        temperature: float,
        every: int = 1,
        skip: int = 0,
        frames_per_parent: int = 10,
        work_dir: str = ".",
    ):
        if n_snapshots < 1 or every < 1 or skip < 0 or frames_per_parent < 1:
            raise ValueError(
                f"n_snapshots {n_snapshots}, every {every}, frames_per_parent {frames_per_parent} "
                f"must be >= 1 and skip {skip} >= 0"
            )
        self.path = str(Path(work_dir, path))
        self.n_snapshots = n_snapshots
        self.every = every
        self.skip = skip
        self.frames_per_parent = frames_per_parent
        self.parameters = [float(temperature)]

    @property
    def settings(self) -> dict[str, Any]:
        return {
            "kind": self.kind,
            "frames": contents_digest(files_of_crystals(self.path)),
            "temperature": self.parameters[0],
            "n_snapshots": self.n_snapshots,
            "every": self.every,
            "skip": self.skip,
            "frames_per_parent": self.frames_per_parent,
        }

    def temperature(self, parameter: float) -> None:
        return None

    def snapshots(self, crystal: Crystal, source: Atoms, parameter: float) -> Iterator[Snapshot]:
        """The frames of the file."""
        path = Path(self.path.replace("{name}", crystal.name))
        if not path.is_file():
            raise ValueError(f"no trajectory at {path.absolute()}: set data.ensemble.path")
        snapshot = self._maker(crystal, source, parameter)
        for index, frame in enumerate(iread(path, index=f"{self.skip}::{self.every}")):
            where = f"frame {self.skip + index * self.every} of {path}"
            ideal, atoms = _fitted(source, frame, where)
            yield snapshot(atoms, ideal, index, f"file/{index // self.frames_per_parent}")


def _fitted(ideal: Atoms, frame: Atoms, where: str) -> tuple[Atoms, Atoms]:
    """The ideal crystal in the frame's cell, and the frame with each atom near its own site."""
    if len(frame) != len(ideal):
        raise ValueError(
            f"{where} has {len(frame)} atoms; the supercell of data.structure has {len(ideal)}"
        )
    if (frame.numbers != ideal.numbers).any():
        atom = int(np.flatnonzero(frame.numbers != ideal.numbers)[0])
        raise ValueError(
            f"{where} has {frame.symbols[atom]} as atom {atom}; the supercell of data.structure has"
            f" {ideal.symbols[atom]} there: sort the atoms as in it"
        )
    cell = frame.cell.array if frame.cell.rank == 3 else ideal.cell.array
    strain = np.linalg.solve(ideal.cell.array, cell) - np.eye(3)
    if np.abs(strain).max() > 0.2:
        raise ValueError(
            f"the cell of {where}, {np.diag(cell).round(3)}, is strained by "
            f"{np.abs(strain).max():.2f} from the one of data.structure, "
            f"{np.diag(ideal.cell.array).round(3)}: expected at most 0.2"
        )
    reference = ideal.copy()
    reference.set_cell(cell, scale_atoms=True)
    steps = frame.positions - reference.positions
    # Drift of the whole crystal first, so that the nearest image of each atom is the right one.
    drift = _drift(steps, reference)
    u, lengths = find_mic(steps - drift, reference.cell)
    u -= u.mean(axis=0)
    neighbours = reference.get_all_distances(mic=True)
    far = lengths > np.where(neighbours > 0, neighbours, np.inf).min(axis=1)
    if far.any():
        atom = int(far.argmax())
        raise ValueError(
            f"{where}: atom {atom} ({ideal.symbols[atom]}) is {lengths[atom]:.2f} Ang from its "
            "site, beyond the next one: the atoms are in another order, or they diffuse"
        )
    atoms = reference.copy()
    atoms.positions = (reference.positions + u).round(DECIMALS)
    return reference, atoms


def _drift(steps: np.ndarray, reference: Atoms) -> np.ndarray:
    """Rigid shift of the crystal, from the circular mean of all displacements."""
    phases = 2 * np.pi * steps @ np.linalg.inv(reference.cell.array)
    mean = np.exp(1j * phases).mean(axis=0)
    return np.angle(mean) / (2 * np.pi) @ reference.cell.array
