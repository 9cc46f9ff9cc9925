"""Rows of ASE databases; structures with their ideal crystals from databases and other files."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import count
from pathlib import Path

import ase.db
import pandas as pd
from ase import Atoms

from schnetpack_phonon.data.database import Row
from schnetpack_phonon.structures.atom_properties import own_masses
from schnetpack_phonon.structures.files import read_frames


@dataclass(frozen=True)
class Structure:
    """A displaced crystal with its ideal one.

    Attributes:
        ideal: reference crystal; None if it is not known (masks need none).
        displaced: same atoms in the same order, not wrapped back into the cell.
        index: in its file.
        name: of the crystal.
    """

    ideal: Atoms | None
    displaced: Atoms
    index: int = 0
    name: str = ""


def read_rows(
    path: str | Path, indices: Sequence[int] | None = None, data: bool = True
) -> Iterator[Row]:
    """Rows of an ASE database, made by this package or any other program.

    Their atoms have magnetic moments, and masses where these are not those of natural elements.

    Args:
        path: of the database.
        indices: which rows, as SchNetPack counts them: 0 is the first. All in order by default.
        data: whether to read the arrays; without them rows have key-value pairs only and are read
            faster.

    Raises:
        FileNotFoundError: if there is no file.
        ValueError: for an index that is not there.
    """
    if not Path(path).is_file():
        raise FileNotFoundError(f"no database at {Path(path).absolute()}")
    with ase.db.connect(str(path), use_lock_file=False) as db:
        if indices is None:
            rows = db.select(include_data=data)
        else:
            _check_indices(indices, db.count(), path)
            rows = (db.get(int(k) + 1) for k in indices)
        for row in rows:
            atoms = Atoms(
                row.numbers,
                row.positions,
                masses=row.get("masses"),
                magmoms=row.get("initial_magmoms"),
                cell=row.cell,
                pbc=row.pbc,
            )
            atoms.set_masses(own_masses(atoms))
            yield Row(atoms, row.data if data else {}, row.key_value_pairs)


def read_structures(
    path: str | Path, indices: Sequence[int] | None = None, ideal: Atoms | None = None
) -> list[Structure]:
    """Structures of a database or of any file that ASE reads.

    Args:
        path: ASE database ``.db``, or a structure file with one or more frames.
        indices: which, all by default; 0 is the first.
        ideal: undisplaced crystal of all of them, the same atoms in the same order; rows that
            store their own need none.

    Raises:
        FileNotFoundError: if there is no file.
        ValueError: for an index that is not there, or a file that cannot be read.
    """
    if str(path).endswith(".db"):
        rows = zip(count() if indices is None else indices, read_rows(path, indices), strict=False)
        return [
            Structure(
                row.ideal if ideal is None else ideal,
                row.atoms,
                int(k),
                str(row.key_value_pairs.get("structure", row.atoms.get_chemical_formula())),
            )
            for k, row in rows
        ]
    frames = list(read_frames(path))
    chosen = range(len(frames)) if indices is None else indices
    _check_indices(chosen, len(frames), path)
    return [Structure(ideal, frames[k], int(k), frames[k].get_chemical_formula()) for k in chosen]


def read_provenance(path: str | Path) -> pd.DataFrame:
    """Key-value pairs of all rows, one line a row, in the order of SchNetPack's indices."""
    return pd.DataFrame([row.key_value_pairs for row in read_rows(path, data=False)])


def read_labels(path: str | Path) -> pd.DataFrame:
    """Scalar labels of all rows in the database's units, one line a row."""
    return pd.DataFrame(
        [{k: v.item() for k, v in row.data.items() if v.size == 1} for row in read_rows(path)]
    )


def _check_indices(indices: Sequence[int], n: int, path: str | Path) -> None:
    wrong = [int(k) for k in indices if not 0 <= k < n]
    if wrong:
        raise ValueError(f"{path} has {n} structures; there is no index {wrong[0]}")
