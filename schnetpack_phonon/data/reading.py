"""Rows of ASE databases; structures with their ideal crystals from databases and other files.

Everything is read in the units of :mod:`.common.properties`, whatever those of the file are.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any

import ase.db
import numpy as np
import pandas as pd
from ase import Atoms

from schnetpack_phonon.common.errors import DatabaseError
from schnetpack_phonon.common.properties import DISTANCE, stored_units, unit_factor
from schnetpack_phonon.data.database import Row
from schnetpack_phonon.structures.atom_properties import own_masses
from schnetpack_phonon.structures.files import formula, read_frames
from schnetpack_phonon.structures.matching import in_images_of


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
    Lengths and the properties of :mod:`.common.properties` come in the units of that module; others
    as they are stored.

    Args:
        path: of the database.
        indices: which rows, as SchNetPack counts them: 0 is the first. All in order by default.
        data: whether to read the arrays; without them rows have key-value pairs only and are read
            faster.

    Raises:
        FileNotFoundError: if there is no file.
        ValueError: for an index that is not there.
        UnitError: for a unit that is not known.
        DatabaseError: for a file that is no database, or is damaged.
    """
    if not Path(path).is_file():
        raise FileNotFoundError(f"no database at {Path(path).absolute()}")
    try:
        yield from _rows(path, indices, data)
    except sqlite3.DatabaseError as error:
        raise DatabaseError(
            f"{path} is no ASE database, or is damaged ({error}): give a database of ASE, "
            "SchNetPack or spkphonon; files of other formats need the ending of their format"
        ) from error


def read_structures(
    path: str | Path, indices: Sequence[int] | None = None, ideal: Atoms | None = None
) -> list[Structure]:
    """Structures of a database or of any file that ASE reads.

    Args:
        path: ASE database ``.db``, or a structure file with one or more frames.
        indices: which, all by default; 0 is the first.
        ideal: undisplaced crystal of all of them, the same atoms in the same order, in any
            periodic images; rows that store their own need none.

    Raises:
        FileNotFoundError: if there is no file.
        ValueError: for an index that is not there, a file that cannot be read, or atoms of the
            ideal crystal in another order.
    """
    if str(path).endswith(".db"):
        rows = zip(count() if indices is None else indices, read_rows(path, indices), strict=False)
        return [
            Structure(
                row.ideal if ideal is None else in_images_of(row.atoms, ideal),
                row.atoms,
                int(k),
                str(row.key_value_pairs.get("structure", row.atoms.get_chemical_formula())),
            )
            for k, row in rows
        ]
    frames = list(read_frames(path))
    chosen = range(len(frames)) if indices is None else indices
    _check_indices(chosen, len(frames), path)
    return [
        Structure(
            None if ideal is None else in_images_of(frames[k], ideal),
            frames[k],
            int(k),
            frames[k].get_chemical_formula(),
        )
        for k in chosen
    ]


def read_provenance(path: str | Path) -> pd.DataFrame:
    """Key-value pairs of all rows, one line a row, in the order of SchNetPack's indices.

    Rows of other programs have their formula as ``structure`` unless they say another one.
    """
    rows = read_rows(path, data=False)
    return pd.DataFrame([{"structure": formula(row.atoms), **row.key_value_pairs} for row in rows])


def read_labels(path: str | Path) -> pd.DataFrame:
    """Scalar labels of all rows, in the units of :func:`read_rows`, one line a row."""
    return pd.DataFrame(
        [{k: v.item() for k, v in row.data.items() if v.size == 1} for row in read_rows(path)]
    )


def _rows(path: str | Path, indices: Sequence[int] | None, data: bool) -> Iterator[Row]:
    with ase.db.connect(str(path), use_lock_file=False) as db:
        length, factors = _factors(path, db.metadata)
        if indices is None:
            rows = db.select(include_data=data)
        else:
            _check_indices(indices, db.count(), path)
            rows = (db.get(int(k) + 1) for k in indices)
        for row in rows:
            positions, cell = row.positions, row.cell
            if length != 1:  # rounded, so that the same structure in any unit has one digest
                positions, cell = (np.round(length * array, 9) for array in (positions, cell))
            atoms = Atoms(
                row.numbers,
                positions,
                masses=row.get("masses"),
                magmoms=row.get("initial_magmoms"),
                cell=cell,
                pbc=row.pbc,
            )
            atoms.set_masses(own_masses(atoms))
            found = dict(row.data) if data else {}
            for key in factors.keys() & found.keys():
                found[key] = factors[key] * found[key]
            yield Row(atoms, found, row.key_value_pairs)


def _factors(path: str | Path, metadata: Mapping[str, Any]) -> tuple[float, dict[str, float]]:
    """Those of lengths and of the properties in other units than ours."""
    units = stored_units(metadata)
    factors = {key: unit_factor(key, unit, path) for key, unit in units.items()}
    length = factors.pop(DISTANCE)
    return length, {key: factor for key, factor in factors.items() if factor != 1}


def _check_indices(indices: Sequence[int], n: int, path: str | Path) -> None:
    wrong = [int(k) for k in indices if not 0 <= k < n]
    if wrong:
        raise ValueError(f"{path} has {n} structures; there is no index {wrong[0]}")
