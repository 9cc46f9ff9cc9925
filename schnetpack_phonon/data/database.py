"""Databases of labelled snapshots in SchNetPack's ASE format: writing them and checking them.

A database is written to a temporary file and moved into place when it is complete, so that one
that exists is complete. Units are in SchNetPack's metadata keys, our own metadata are under
``schnetpack_phonon``.
"""

from __future__ import annotations

import json
import logging
import sqlite3
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any, NamedTuple

import ase.db
import numpy as np
from ase import Atoms

from schnetpack_phonon.common.errors import DatabaseError
from schnetpack_phonon.common.files import replacing
from schnetpack_phonon.common.properties import (
    DISTANCE_UNIT,
    PARTLY_FILLED,
    PROPERTIES,
    Labels,
    array_shape,
    band_gap_spin,
    ideal_cell,
    ideal_positions,
    partial_occupation,
)
from schnetpack_phonon.ensembles.base import Snapshot

log = logging.getLogger(__name__)

METADATA_KEY = "schnetpack_phonon"
FORMAT_VERSION = 1


class Row(NamedTuple):
    """A labelled structure.

    Attributes:
        atoms: the structure.
        data: arrays by property, shaped as :mod:`.common.properties` says.
        key_value_pairs: where the structure comes from, for people and for selections.
    """

    atoms: Atoms
    data: Labels
    key_value_pairs: dict[str, Any]

    @property
    def ideal(self) -> Atoms | None:
        """The undisplaced crystal, same order of atoms; None where the row does not hold it."""
        if ideal_positions not in self.data:
            return None
        ideal = self.atoms.copy()
        ideal.positions = self.data[ideal_positions]
        if ideal_cell in self.data:
            ideal.set_cell(self.data[ideal_cell].reshape(3, 3))
        return ideal


def keys_of(labels: Iterable[Labels | None]) -> list[str]:
    """Keys that any labels have; the log says how many structures lack one.

    Args:
        labels: of each structure; None where a calculation failed.
    """
    counts = Counter(key for own in labels if own is not None for key in own)
    n_most = max(counts.values(), default=0)
    for key, n in counts.items():
        if n < n_most and key != band_gap_spin:  # of spins that do not differ there is none
            log.info("%s: NaN in %d of %d structures", key, n_most - n, n_most)
    return list(counts)


def complete(labels: Iterable[Labels | None]) -> Iterator[Labels]:
    """Labels that there are; warns of partly filled bands.

    Args:
        labels: of each structure; None where a calculation failed.
    """
    n_flagged = 0
    for own in labels:
        if own is not None:
            n_flagged += (
                partial_occupation in own and own[partial_occupation].item() > PARTLY_FILLED
            )
            yield own
    if n_flagged:
        log.warning(
            "%d structures have partly filled bands (partial_occupation > %g electrons): metals, "
            "or gaps that depend on the smearing",
            n_flagged,
            PARTLY_FILLED,
        )


def write_database(
    path: str | Path,
    snapshots: Iterable[Snapshot],
    labels: Iterable[Labels],
    provenance: dict[str, Any],
    metadata: dict[str, Any],
    keys: Sequence[str] = (),
) -> None:
    """Writes labelled snapshots, their ideal crystals and where they come from.

    Args:
        path: ends with ``.db``; must not exist.
        snapshots: one a row.
        labels: of the snapshots.
        provenance: key-value pairs of every row, beside those of the snapshot.
        metadata: stored under ``schnetpack_phonon`` beside SchNetPack's own keys.
        keys: of labels that every row gets, NaN where a snapshot lacks it.

    Raises:
        DatabaseError: if the file exists or cannot be written.
    """

    def row(snapshot: Snapshot, own: Labels) -> Row:
        shape, n_atoms = array_shape(ideal_cell, 1), len(snapshot.ideal)
        missing = {k: np.full(array_shape(k, n_atoms), np.nan) for k in keys if k not in own}
        data = {
            **missing,
            **own,
            ideal_positions: snapshot.ideal.positions,
            ideal_cell: snapshot.ideal.cell.array.reshape(shape),
        }
        pairs = {
            "structure": snapshot.structure,
            "kind": snapshot.kind,
            snapshot.parameter_name: snapshot.parameter,
            "seed": snapshot.seed,
            "snapshot": snapshot.index,
            "parent": snapshot.parent,
            **snapshot.phonons,
            **provenance,
        }
        return Row(snapshot.atoms, data, pairs)

    rows = (row(snapshot, own) for snapshot, own in zip(snapshots, labels, strict=True))
    write_db(path, rows, {METADATA_KEY: {"format": FORMAT_VERSION, **metadata}})


def write_db(path: str | Path, rows: Iterable[Row], metadata: dict[str, Any]) -> None:
    """Writes labelled structures as a database that SchNetPack reads.

    Args:
        path: ends with ``.db``; must not exist.
        rows: one is held in memory at a time.
        metadata: beside SchNetPack's own keys.

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
        with replacing(path) as part, ase.db.connect(str(part), use_lock_file=False) as db:
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
            "free disk space and run again"
        ) from error


def read_metadata(path: str | Path) -> dict[str, Any]:
    """Our metadata of a database.

    Raises:
        DatabaseError: for a file that is missing, damaged, truncated or not made by this package.
    """
    advice = "move it away, or set data.datapath to another name"
    if not Path(path).is_file():
        raise DatabaseError(f"no database at {Path(path).absolute()}")
    # Read without ase.db, which would create its tables in a file that has none.
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
            f"{path} is not an ASE database or is truncated ({error}): {advice}"
        ) from error
    if METADATA_KEY not in metadata:
        raise DatabaseError(
            f"{path} was not made by schnetpack_phonon: {advice}, or train on it with SchNetPack's "
            "own schnetpack.data.AtomsDataModule"
        )
    ours = metadata[METADATA_KEY]
    if ours["format"] != FORMAT_VERSION:
        raise DatabaseError(f"{path} has format {ours['format']}; expected {FORMAT_VERSION}")
    if n_rows != ours["n_rows"]:
        raise DatabaseError(f"{path} has {n_rows} rows; expected {ours['n_rows']}: {advice}")
    return ours


def check_settings(path: str | Path, settings: dict[str, Any]) -> None:
    """Raises DatabaseError, naming each difference, if a database was made with other settings."""
    lines = list(_differences(read_metadata(path)["settings"], settings))
    if lines:
        raise DatabaseError(
            f"the database at {path} was made with other settings:\n"
            + "\n".join(lines)
            + "\nNothing was changed. Set data.datapath to a new name to build another database "
            "(labels that both need are not computed again), or restore the settings"
        )


def _differences(there: dict[str, Any], asked: dict[str, Any], prefix: str = "") -> Iterator[str]:
    for key in sorted(there.keys() | asked.keys()):
        one, other = there.get(key, "nothing"), asked.get(key, "nothing")
        if isinstance(one, dict) and isinstance(other, dict):
            yield from _differences(one, other, f"{prefix}{key}.")
        elif one != other:
            yield f"  {prefix}{key}: {one} in the database, {other} requested"
