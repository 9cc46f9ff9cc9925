"""Labelled snapshots <-> SchNetPack's ASE database.

The file is written aside and moved into place when it is complete, so a database that exists is
a whole one. Units stand in the host's metadata keys, our own under ``schnetpack_phonon``.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import ase.db
import pandas as pd
from ase import Atoms

from schnetpack_phonon.common.errors import DatabaseError
from schnetpack_phonon.common.properties import Labels, array_shape, ideal_cell, ideal_positions
from schnetpack_phonon.ensembles.base import Snapshot
from schnetpack_phonon.rows import Row, write_db, write_xyz

METADATA_KEY = "schnetpack_phonon"


FORMAT_VERSION = 1


def write_database(
    path: str | Path,
    snapshots: Iterable[Snapshot],
    labels: Iterable[Labels],
    provenance: dict[str, Any],
    metadata: dict[str, Any],
) -> None:
    """Writes the whole database at once, row by row as they come.

    Args:
        path: ends with ``.db``; must not exist.
        snapshots: one a row.
        labels: of the snapshots, all with the same keys.
        provenance: key-value pairs of every row, beside those of the snapshot.
        metadata: stored under ``schnetpack_phonon`` beside the host's own keys.

    Raises:
        DatabaseError: if the file exists or cannot be written.
    """
    rows = (
        Row(
            snapshot.atoms,
            {
                **row,
                ideal_positions: snapshot.ideal.positions,
                ideal_cell: snapshot.ideal.cell.array.reshape(
                    array_shape(ideal_cell, len(snapshot.ideal))
                ),
            },
            {
                "structure": snapshot.structure,
                "kind": snapshot.kind,
                snapshot.parameter_name: snapshot.parameter,
                "seed": snapshot.seed,
                "snapshot": snapshot.index,
                "parent": snapshot.parent,
                **snapshot.phonons,
                **provenance,
            },
        )
        for snapshot, row in zip(snapshots, labels, strict=True)
    )
    write_db(path, rows, {METADATA_KEY: {"format": FORMAT_VERSION, **metadata}})


def read_metadata(path: str | Path) -> dict[str, Any]:
    """Our metadata of a database.

    Raises:
        DatabaseError: for a file that is damaged, cut off or not made by this package.
    """
    advice = "move it away, or set data.datapath to another name"
    if not Path(path).is_file():
        raise DatabaseError(f"no database at {Path(path).absolute()}")
    # Read without ase.db, which would make its tables in a file that has none.
    uri = f"{Path(path).absolute().as_uri()}?mode=ro"
    try:
        with closing(sqlite3.connect(uri, uri=True)) as connection:
            (complaint,) = connection.execute("PRAGMA quick_check(1)").fetchone()
            if complaint != "ok":
                raise DatabaseError(f"{path} is damaged ({complaint}): {advice}")
            (n_rows,) = connection.execute("SELECT COUNT(*) FROM systems").fetchone()
            found = connection.execute("SELECT value FROM information WHERE name = 'metadata'")
            metadata = json.loads((found.fetchone() or ("{}",))[0])
    except (sqlite3.Error, ValueError) as error:
        raise DatabaseError(
            f"{path} is no ASE database or is cut off ({error}): {advice}"
        ) from error
    if METADATA_KEY not in metadata:
        raise DatabaseError(
            f"{path} was not made by schnetpack_phonon: {advice}, or train on it with the host's "
            "own schnetpack.data.AtomsDataModule"
        )
    ours = metadata[METADATA_KEY]
    if ours["format"] != FORMAT_VERSION:
        raise DatabaseError(f"{path} has format {ours['format']}; expected {FORMAT_VERSION}")
    if n_rows != ours["n_rows"]:
        raise DatabaseError(f"{path} has {n_rows} rows and should have {ours['n_rows']}: {advice}")
    return ours


def check_settings(path: str | Path, settings: dict[str, Any]) -> None:
    """Raises DatabaseError, naming each difference, if the database was made otherwise."""
    lines = list(_differences(read_metadata(path)["settings"], settings))
    if lines:
        raise DatabaseError(
            f"the database at {path} was made with other settings:\n"
            + "\n".join(lines)
            + "\nNothing was changed. Set data.datapath to a new name to build it beside (labels "
            "that both share are not computed again), or restore the settings"
        )


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


def write_extxyz(path: str | Path, target: str | Path) -> None:
    """All rows as an extended XYZ file, their provenance in the comment lines.

    Raises:
        DatabaseError: for a database that is damaged or not ours.
        OSError: if the file cannot be written.
    """
    read_metadata(path)
    with ase.db.connect(str(path), use_lock_file=False) as db:
        rows = (
            Row(
                Atoms(row.numbers, row.positions, cell=row.cell, pbc=row.pbc),
                row.data,
                row.key_value_pairs,
            )
            for row in db.select()
        )
        write_xyz(target, rows)


def _differences(there: dict[str, Any], asked: dict[str, Any], prefix: str = "") -> Iterator[str]:
    for key in sorted(there.keys() | asked.keys()):
        one, other = there.get(key, "nothing"), asked.get(key, "nothing")
        if isinstance(one, dict) and isinstance(other, dict):
            yield from _differences(one, other, f"{prefix}{key}.")
        elif one != other:
            yield f"  {prefix}{key}: {one} there, {other} asked for"
