"""TODO: describe."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms


def settings_hash(settings: Any) -> str:
    """Short hash of plain values; starts with a letter, so that no reader takes it for a number."""
    text = json.dumps(settings, sort_keys=True)
    return "h" + hashlib.sha256(text.encode()).hexdigest()[:16]


def structure_hash(atoms: Atoms) -> str:
    digest = hashlib.sha256()
    # Rounded to 1e-10 Ang: far below any label's accuracy, far above rounding of the same input.
    for array in (atoms.numbers, atoms.positions.round(10), atoms.cell.array.round(10), atoms.pbc):
        digest.update(np.ascontiguousarray(array + 0).tobytes())
    return digest.hexdigest()[:24]


_DECIMALS = 5  # of positions in Ang: what differs by less is one structure


def structure_digest(atoms: Atoms) -> str:
    """Hash of species, cell and positions, rounded."""
    digest = hashlib.sha256(atoms.numbers.astype(np.int64).tobytes())
    for array in (atoms.cell.array, atoms.positions):
        digest.update((np.asarray(array, float).round(_DECIMALS) + 0.0).tobytes())
    return digest.hexdigest()[:16]


def contents_digest(files: Iterable[Path]) -> str:
    """Hash of the contents of those files that there are."""
    found = hashlib.sha256()
    for file in files:
        if file.is_file():
            found.update(file.read_bytes())
    return found.hexdigest()[:16]


def file_digest(file: Path) -> str:
    """SHA-256 of a file's content."""
    return hashlib.sha256(file.read_bytes()).hexdigest()
