"""Displaced crystals with their ideal ones, from databases and structure files."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import ase.db
import ase.io
import pandas as pd
from ase import Atoms

from schnetpack_phonon.common.errors import DatabaseError
from schnetpack_phonon.common.properties import ideal_cell, ideal_positions


@dataclass(frozen=True)
class Structure:
    """A displaced crystal with its ideal one.

    Attributes:
        ideal: reference crystal; None if it is not known (masks need none).
        displaced: same atoms in the same order, not wrapped back into the cell.
        index: in its database.
        name: of the crystal.
    """

    ideal: Atoms | None
    displaced: Atoms
    index: int = 0
    name: str = ""


def read_structures(
    path: str | Path, indices: Sequence[int] | None = None, ideal: Atoms | None = None
) -> list[Structure]:
    """Structures of a database or of any file that ASE reads.

    Args:
        path: ASE database ``.db``, or a structure file with one or more frames.
        indices: which, all by default, by the host's index: 0 is the first.
        ideal: undisplaced crystal of all of them, the same atoms in the same order; rows that
            store their own need none.

    Raises:
        ValueError: if a structure has other atoms than ``ideal``, or an index is not there.
    """
    if str(path).endswith(".db"):
        return _from_database(path, indices, ideal)
    frames = ase.io.read(path, index=":")
    chosen = range(len(frames)) if indices is None else indices
    _check_indices(chosen, len(frames), path)
    return [Structure(ideal, frames[k], int(k), frames[k].get_chemical_formula()) for k in chosen]


def _check_indices(indices: Sequence[int], n: int, path: str | Path) -> None:
    wrong = [int(k) for k in indices if not 0 <= k < n]
    if wrong:
        raise ValueError(f"{path} has {n} structures; there is no index {wrong[0]}")


def _from_database(
    path: str | Path, indices: Sequence[int] | None, ideal: Atoms | None
) -> list[Structure]:
    if not Path(path).is_file():
        raise FileNotFoundError(f"no database at {Path(path).absolute()}")
    structures = []
    with ase.db.connect(str(path), use_lock_file=False) as db:
        chosen = range(db.count()) if indices is None else indices
        _check_indices(chosen, db.count(), path)
        for k in chosen:
            row = db.get(int(k) + 1)
            displaced = Atoms(row.numbers, row.positions, cell=row.cell, pbc=row.pbc)
            own = ideal
            if own is None and ideal_positions in row.data:
                own = displaced.copy()
                own.positions = row.data[ideal_positions]
                if ideal_cell in row.data:
                    own.set_cell(row.data[ideal_cell].reshape(3, 3))
            name = row.key_value_pairs.get("structure", displaced.get_chemical_formula())
            structures.append(Structure(own, displaced, int(k), str(name)))
    return structures


def read_provenance(path: str | Path) -> pd.DataFrame:
    """Key-value pairs of all rows, one line a row, in the order of the host's indices."""
    with ase.db.connect(str(path), use_lock_file=False) as db:
        return pd.DataFrame([row.key_value_pairs for row in db.select(include_data=False)])


def read_labels(path: str | Path) -> pd.DataFrame:
    """Scalar labels of all rows in the database's units, one line a row."""
    with ase.db.connect(str(path), use_lock_file=False) as db:
        return pd.DataFrame(
            [{k: v.item() for k, v in row.data.items() if v.size == 1} for row in db.select()]
        )


def read_displaced(path: str | Path, index: int) -> tuple[Atoms, Atoms]:
    """Ideal and displaced crystal of the row with the host's ``index``.

    Raises:
        DatabaseError: if the row does not hold the ideal crystal.
    """
    with ase.db.connect(str(path), use_lock_file=False) as db:
        row = db.get(index + 1)
    if ideal_positions not in row.data or ideal_cell not in row.data:
        raise DatabaseError(
            f"row {index} of {path} has no {ideal_positions!r} and {ideal_cell!r}: the undisplaced "
            "crystal, atom by atom, is needed as reference"
        )
    displaced = Atoms(row.numbers, row.positions, cell=row.cell, pbc=row.pbc)
    ideal = displaced.copy()
    ideal.positions = row.data[ideal_positions]
    ideal.set_cell(row.data[ideal_cell].reshape(3, 3))
    return ideal, displaced
