"""Label stores and databases as files that other programs read."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from ase import Atoms
from ase.calculators.singlepoint import SinglePointCalculator
from ase.io import write
from ase.stress import full_3x3_to_voigt_6_stress

from schnetpack_phonon.common.errors import DatabaseError, LabellingError
from schnetpack_phonon.common.files import replacing
from schnetpack_phonon.common.properties import (
    PROPERTIES,
    array_shape,
    energy,
    forces,
    ideal_positions,
    levels,
    stress,
)
from schnetpack_phonon.data.database import Row, read_metadata, write_db
from schnetpack_phonon.data.reading import read_rows
from schnetpack_phonon.labels.store import Record, existing_store


def export(path: str | Path, target: str | Path, failed: bool = False) -> str:
    """Writes structures with their labels, or those that failed with the reasons.

    Args:
        path: the store.
        target: ``.extxyz``, ``.db`` (which SchNetPack reads; NaN where a structure has no such
            label) or ``.csv`` (the scalars, a line a record, also where a store of the first
            versions holds no structure).
        failed: the failed ones.

    Returns:
        What was written and what was left out.

    Raises:
        LabellingError: if there is no store, nothing to export, a file in its way, or labels with
            different ``n_levels`` for a database.
        DatabaseError: if the database cannot be written.
        OSError: if another file cannot be written.
    """
    target = Path(target)
    if target.suffix not in (".extxyz", ".db", ".csv"):
        raise LabellingError(f"cannot export to {target}: expected .extxyz, .db or .csv")
    if target.exists():
        raise LabellingError(f"{target} exists already: take another name, or move it away")
    store = existing_store(path)
    keys: list[str] = []
    shapes: dict[str, tuple[int, ...]] = {}  # the largest of each label
    left_out: Counter[str] = Counter()
    for record in map(store.__getitem__, store):
        labels = record.labels or {}
        if (record.labels is None) != failed:
            continue
        task = record.input.task if record.input else ""
        if not failed and (task not in ("label", "") or not labels.keys() <= PROPERTIES.keys()):
            # The labels are not those of the structure that was given.
            left_out[task or "relax"] += 1
        elif record.input is None and target.suffix != ".csv":
            left_out["records of old stores, which hold no structure"] += 1
        else:
            keys.append(record.key)
            for name, value in labels.items():
                shapes[name] = tuple(np.maximum(value.shape, shapes.get(name, value.shape)))
    without = ", ".join(f"{what} ({n})" for what, n in left_out.items())
    without = f"; left out: {without}" if without else ""
    if not keys:
        raise LabellingError(f"nothing to export from {store.path}{without}")
    records = map(store.__getitem__, keys)
    if target.suffix == ".csv":
        with replacing(target) as part:
            pd.DataFrame(map(_line, records)).to_csv(part, index=False)
    elif target.suffix == ".db":
        write_db(target, (_row(record, shapes) for record in records), {})
    else:
        write_xyz(target, (_row(record, {}) for record in records))
    return f"{target}: {len(keys)} records{without}"


def _row(record: Record, shapes: Mapping[str, tuple[int, ...]]) -> Row:
    """With the labels of these shapes, unless they are of atoms; NaN where there are none."""
    assert record.input is not None
    atoms, data = record.input.atoms, dict(record.labels or {})
    for name, shape in shapes.items():
        own = array_shape(name, len(atoms)) if "N" in PROPERTIES[name].shape else shape
        value = data.get(name, np.full(own, np.nan))
        if name == levels and value.shape[-1] != own[-1]:
            raise LabellingError(
                f"the store has labels with n_levels={value.shape[-1] // 2} and {own[-1] // 2}; "
                "expected one number in a database: export to .extxyz or .csv"
            )
        rest = [(0, most - n) for most, n in zip(own, value.shape, strict=True)]
        data[name] = np.pad(value, rest, constant_values=np.nan)
    return Row(atoms, data, _provenance(record))


def _line(record: Record) -> dict[str, Any]:
    line: dict[str, Any] = _provenance(record)
    if record.input:
        atoms = record.input.atoms
        line |= {"formula": atoms.get_chemical_formula(), "n_atoms": len(atoms)}
    labels = record.labels or {}
    return line | {name: value.item() for name, value in labels.items() if value.size == 1}


def _provenance(record: Record) -> dict[str, str | float]:
    found: dict[str, str | float] = {"key": record.key}
    if record.input:
        found |= {name: getattr(record.input, name) for name in ("task", "code", "description")}
    if record.seconds is not None:
        found["seconds"] = record.seconds
    if record.origin:
        found["origin"] = record.origin
    if record.error:
        found["error"] = record.error
    return found


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


def write_extxyz(path: str | Path, target: str | Path) -> None:
    """Writes all rows of a database as extended XYZ, with their provenance in the comment lines.

    Raises:
        DatabaseError: for a database that is damaged or not ours, or the target itself.
        OSError: if the file cannot be written.
    """
    read_metadata(path)
    if Path(target).resolve() == Path(path).resolve():
        raise DatabaseError(f"{target} is the database itself: write to another file")
    write_xyz(target, read_rows(path))
