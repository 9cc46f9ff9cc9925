"""Snapshots from trajectories and other files."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms
from ase.geometry import find_mic
from ase.neighborlist import neighbor_list

from schnetpack_phonon.common.digests import contents_digest
from schnetpack_phonon.common.errors import check_at_least
from schnetpack_phonon.ensembles.base import SimpleEnsemble, Snapshot
from schnetpack_phonon.structures.atom_properties import check_same_moments
from schnetpack_phonon.structures.crystals import DECIMALS, Crystal, files_of_crystals
from schnetpack_phonon.structures.files import read_frames


class FileEnsemble(SimpleEnsemble):
    """Snapshots from a molecular-dynamics trajectory or any file of structures.

    Atoms must have the order of the supercell of ``data.structure`` (phonopy's order). A different
    cell is treated as a homogeneous strain. Masses and magnetic moments are those of the structure.

    Args:
        path: the file; ``{name}`` stands for the crystal's name if there are several.
        n_snapshots: number of frames to use.
        temperature: of the trajectory in K, for tables and figures.
        every: use each ``every``-th frame.
        skip: frames left out at the beginning.
        frames_per_parent: so many successive frames are similar and stay together when the data
            are split.
        format: ASE's name of the format, such as ``vasp-xml``; by default it is told from the name
            and the beginning of the file.
        work_dir: folder in which a relative path starts.
    """

    kind = "file"

    def __init__(
        self,
        path: str,
        n_snapshots: int,
        temperature: float,
        every: int = 1,
        skip: int = 0,
        frames_per_parent: int = 10,
        format: str | None = None,
        work_dir: str = ".",
    ):
        check_at_least(1, n_snapshots=n_snapshots, every=every)
        check_at_least(1, frames_per_parent=frames_per_parent)
        check_at_least(0, skip=skip)
        self.path = str(Path(work_dir, path))
        self.n_snapshots = n_snapshots
        self.every = every
        self.skip = skip
        self.frames_per_parent = frames_per_parent
        self.format = format
        self.parameters = [float(temperature)]

    @property
    def settings(self) -> dict[str, Any]:
        files = files_of_crystals(self.path)
        if not files:
            raise _no_file(Path(self.path))
        return {
            "kind": self.kind,
            "frames": contents_digest(files),
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
            raise _no_file(path)
        snapshot = self._maker(crystal, source, parameter)
        frames = read_frames(path, f"{self.skip}::{self.every}", self.format, "data.ensemble.")
        for index, frame in enumerate(frames):
            where = f"frame {self.skip + index * self.every} of {path}"
            ideal, atoms = _fitted(source, frame, where)
            yield snapshot(atoms, ideal, index, f"file/{index // self.frames_per_parent}")


def _no_file(path: Path) -> ValueError:
    return ValueError(f"no trajectory at {path.absolute()}: set data.ensemble.path")


def _fitted(ideal: Atoms, frame: Atoms, where: str) -> tuple[Atoms, Atoms]:
    """The ideal crystal in the frame's cell, and the frame with each atom close to its site."""
    if len(frame) != len(ideal):
        raise ValueError(
            f"{where} has {len(frame)} atoms; the supercell of data.structure has {len(ideal)}"
        )
    if (frame.numbers != ideal.numbers).any():
        atom = int(np.flatnonzero(frame.numbers != ideal.numbers)[0])
        raise ValueError(
            f"{where} has {frame.symbols[atom]} as atom {atom}; expected {ideal.symbols[atom]}, as "
            "in the supercell of data.structure: sort the atoms"
        )
    if frame.get_initial_magnetic_moments().any():
        check_same_moments(frame, ideal, where)
    cell = frame.cell.array if frame.cell.rank == 3 else ideal.cell.array
    strain = np.linalg.solve(ideal.cell.array, cell) - np.eye(3)
    if np.abs(strain).max() > 0.2:
        raise ValueError(
            f"the cell of {where}, {np.diag(cell).round(3)}, is strained by "
            f"{np.abs(strain).max():.2f} relative to that of data.structure, "
            f"{np.diag(ideal.cell.array).round(3)}; expected at most 0.2"
        )
    reference = ideal.copy()
    reference.set_cell(cell, scale_atoms=True)
    steps = frame.positions - reference.positions
    # Remove the drift of the whole crystal first: then the nearest image of each atom is its own.
    drift = _drift(steps, reference)
    u, lengths = find_mic(steps - drift, reference.cell)
    u -= u.mean(axis=0)
    # Of sites closer than the largest displacement; thermal ones leave none.
    i, j, distances = neighbor_list("ijd", reference, lengths.max())
    nearest = np.full(len(reference), np.inf)
    np.minimum.at(nearest, i[i != j], distances[i != j])
    far = lengths > nearest
    if far.any():
        atom = int(far.argmax())
        raise ValueError(
            f"{where}: atom {atom} ({ideal.symbols[atom]}) is {lengths[atom]:.2f} Ang from its "
            "site, beyond a neighbouring site: the atoms are in another order, or they diffuse"
        )
    atoms = reference.copy()
    atoms.positions = (reference.positions + u).round(DECIMALS)
    return reference, atoms


def _drift(steps: np.ndarray, reference: Atoms) -> np.ndarray:
    """Rigid shift of the crystal, from the circular mean of all displacements."""
    phases = 2 * np.pi * steps @ np.linalg.inv(reference.cell.array)
    mean = np.exp(1j * phases).mean(axis=0)
    return np.angle(mean) / (2 * np.pi) @ reference.cell.array
