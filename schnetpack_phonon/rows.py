"""Labelled structures as files: the host's ASE database and extended XYZ, whole or not at all."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

import ase.db
from ase import Atoms
from ase.calculators.singlepoint import SinglePointCalculator
from ase.io import write
from ase.stress import full_3x3_to_voigt_6_stress

from schnetpack_phonon.common.errors import DatabaseError
from schnetpack_phonon.common.files import replacing
from schnetpack_phonon.common.properties import (
    DISTANCE_UNIT,
    PROPERTIES,
    Labels,
    energy,
    forces,
    ideal_positions,
    stress,
)


class Row(NamedTuple):
    """A labelled structure.

    Attributes:
        atoms: the structure.
        data: arrays by property, shaped as :mod:`.common.properties` says.
        key_value_pairs: what it is, for people and for selections.
    """

    atoms: Atoms
    data: Labels
    key_value_pairs: dict[str, Any]


def write_db(path: str | Path, rows: Iterable[Row], metadata: dict[str, Any]) -> None:
    """Writes labelled structures as a database that the host reads.

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


def write_xyz(path: str | Path, rows: Iterable[Row]) -> None:
    """Writes labelled structures for other codes.

    Energy, forces and stress stand where ASE looks for them; other scalar labels and the
    key-value pairs in the comment line, and ``ideal_positions`` as a column.

    Raises:
        OSError: if the file cannot be written.
    """
    with replacing(Path(path)) as part, open(part, "w") as file:
        for row in rows:
            write(file, _with_results(row), format="extxyz")


def _with_results(row: Row) -> Atoms:
    atoms, data = row.atoms.copy(), dict(row.data)
    results: dict[str, Any] = {k: data.pop(k) for k in (energy, forces, stress) if k in data}
    if energy in results:
        results[energy] = results[energy].item()
    if stress in results:
        results[stress] = full_3x3_to_voigt_6_stress(results[stress][0])
    if results:
        atoms.calc = SinglePointCalculator(atoms, **results)
    if ideal_positions in data:
        atoms.new_array(ideal_positions, data.pop(ideal_positions))
    scalars = {key: v.item() if v.size == 1 else v[0] for key, v in data.items()}
    atoms.info = {**row.key_value_pairs, **scalars}
    return atoms
