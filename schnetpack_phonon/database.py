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
from typing import Any, NamedTuple

import ase.db
import pandas as pd
from ase import Atoms
from ase.calculators.singlepoint import SinglePointCalculator
from ase.io import write
from ase.stress import full_3x3_to_voigt_6_stress

from schnetpack_phonon.calculators import Labels
from schnetpack_phonon.files import replacing
from schnetpack_phonon.properties import (
    DISTANCE_UNIT,
    PROPERTIES,
    array_shape,
    energy,
    forces,
    ideal_cell,
    ideal_positions,
    stress,
)
from schnetpack_phonon.snapshots import Snapshot

METADATA_KEY = "schnetpack_phonon"
FORMAT_VERSION = 1


class DatabaseError(RuntimeError):
    """The database at the given path is not the one that was asked for."""


class Row(NamedTuple):
    """A labelled structure.

    Attributes:
        atoms: the structure.
        data: arrays by property, shaped as :mod:`schnetpack_phonon.properties` says.
        key_value_pairs: what it is, for people and for selections.
    """

    atoms: Atoms
    data: Labels
    key_value_pairs: dict[str, Any]


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
    write_rows(path, rows, {METADATA_KEY: {"format": FORMAT_VERSION, **metadata}})


def write_rows(path: str | Path, rows: Iterable[Row], metadata: dict[str, Any]) -> None:
    """Writes any labelled structures as a database that the host reads.

    Args:
        path: ends with ``.db``; must not exist.
        rows: one is held at a time.
        metadata: beside the host's own keys.

    Raises:
        DatabaseError: if the file exists or cannot be written.
    """
    path = Path(path)
    if path.exists():
        raise DatabaseError(f"{path} exists already")
    keys: dict[str, None] = {}
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        # ase.db takes a lock of its own only around single writes; the caller holds one.
        with (
            replacing(path) as part,
            ase.db.connect(str(part), use_lock_file=False) as db,
        ):
            for row in rows:
                db.write(row.atoms, data=row.data, key_value_pairs=row.key_value_pairs)
                keys |= dict.fromkeys(row.data)
            db.metadata = {
                "_distance_unit": DISTANCE_UNIT,
                "_property_unit_dict": {key: PROPERTIES[key].unit for key in keys},
                "atomrefs": {},
                **metadata,
            }
    except (OSError, sqlite3.Error) as error:
        raise DatabaseError(
            f"cannot write {path}: {error}. The labels are safe in the label store; "
            "make room and run again"
        ) from error


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
    """All rows as an extended XYZ file: whole or not at all.

    Energy, forces and stress stand where ASE looks for them; other scalar labels and the
    provenance in the comment line, and ``ideal_positions`` as a column.

    Raises:
        DatabaseError: for a database that is damaged or not ours.
    """
    read_metadata(path)
    target = Path(target)
    part = target.with_name(f".{target.name}.part")
    try:
        with ase.db.connect(str(path), use_lock_file=False) as db, open(part, "w") as file:
            for row in db.select():
                atoms = Atoms(row.numbers, row.positions, cell=row.cell, pbc=row.pbc)
                data = dict(row.data)
                results = {key: data.pop(key) for key in (energy, forces, stress) if key in data}
                if energy in results:
                    results[energy] = results[energy].item()
                if stress in results:
                    results[stress] = full_3x3_to_voigt_6_stress(results[stress][0])
                atoms.calc = SinglePointCalculator(atoms, **results)
                atoms.new_array(ideal_positions, data.pop(ideal_positions))
                scalars = {key: v.item() if v.size == 1 else v[0] for key, v in data.items()}
                atoms.info = {**row.key_value_pairs, **scalars}
                write(file, atoms, format="extxyz")
        part.replace(target)
    finally:
        part.unlink(missing_ok=True)


def _differences(there: dict[str, Any], asked: dict[str, Any], prefix: str = "") -> Iterator[str]:
    for key in sorted(there.keys() | asked.keys()):
        one, other = there.get(key, "nothing"), asked.get(key, "nothing")
        if isinstance(one, dict) and isinstance(other, dict):
            yield from _differences(one, other, f"{prefix}{key}.")
        elif one != other:
            yield f"  {prefix}{key}: {one} there, {other} asked for"
