"""Hashes by which settings, structures and files are recognised."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms


def hash_of(*parts: str | bytes | np.ndarray) -> str:
    """SHA-256 of texts, bytes and the bytes of arrays, one after the other."""
    digest = hashlib.sha256()
    for part in parts:
        if isinstance(part, np.ndarray):
            part = part.tobytes()
        digest.update(part.encode() if isinstance(part, str) else part)
    return digest.hexdigest()


def settings_hash(settings: Any) -> str:
    """Of plain values; starts with a letter, so that no reader takes it for a number."""
    return "h" + hash_of(json.dumps(settings, sort_keys=True))[:16]


def structure_hash(atoms: Atoms) -> str:
    """Of all in a structure that changes its label, for the keys of labels.

    Species, positions, cell and periodicity; magnetic moments, charges and tags where they are not
    zero. Masses change no label.

    Rounded to 1e-10 Ang: far below any label's accuracy, far above rounding of the same input.
    """
    arrays = (atoms.numbers, atoms.positions.round(10), atoms.cell.array.round(10), atoms.pbc)
    parts: list[str | np.ndarray] = [array + 0 for array in arrays]
    for name in ("initial_magmoms", "initial_charges", "tags"):
        if name in atoms.arrays and (values := atoms.arrays[name]).any():
            parts += [name, values.round(10) + 0.0]
    return hash_of(*parts)[:24]


def structure_digest(atoms: Atoms) -> str:
    """Of species, cell and positions, rounded to 1e-5 Ang, as after conversion of files."""
    arrays = (atoms.cell.array, atoms.positions)
    rounded = (np.asarray(array, float).round(5) + 0.0 for array in arrays)
    return hash_of(atoms.numbers.astype(np.int64), *rounded)[:16]


def file_digest(file: str | Path) -> str:
    """Of a file's content."""
    with open(file, "rb") as content:
        return hashlib.file_digest(content, "sha256").hexdigest()


def contents_digest(files: Iterable[Path]) -> str:
    """Of the contents of those files that exist, as one."""
    return hash_of(*(file.read_bytes() for file in files if file.is_file()))[:16]
