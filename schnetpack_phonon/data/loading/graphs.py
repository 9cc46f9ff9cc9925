"""Structures with their neighbour lists as flat arrays, from which batches are cut.

A folder holds them: one file for each key, with the values of all structures one after the other,
and an index that is written last. Batches are bit for bit what SchNetPack's collate function makes
of the same structures. Integers of 64 bits are stored in 32.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import torch
from schnetpack import properties as structure_keys

Item = dict[str, torch.Tensor]

INDEX = "index.json"
_BOUNDS = "bounds.npy"
# Indices of atoms and indices of edges: shifted where structures are joined to a batch.
_TO_ATOMS = (structure_keys.idx_i, structure_keys.idx_j, structure_keys.idx_i_triples)
_TO_EDGES = (structure_keys.idx_j_triples, structure_keys.idx_k_triples)


class DifferentGraphsError(ValueError):
    """Structures have different keys, types or shapes, so that they cannot form batches."""


class DamagedGraphsError(ValueError):
    """The files of a folder are not those that its index describes."""


@dataclass(frozen=True)
class Column:
    """One key of all structures.

    Attributes:
        key: of SchNetPack's dictionaries.
        dtype: in batches.
        bounds: first row of each structure and the end, shape=(n + 1,).
        file: holds the rows, of type ``stored`` and shape ``row``.
        stored: type in the file.
        row: shape of a row.
        values: the rows, ``shape=(n_rows, *row)``, or ``(n, n_rows / n, *row)`` if all structures
            have equally many; None if they are read from the file when needed.
    """

    key: str
    dtype: torch.dtype
    bounds: np.ndarray
    file: Path
    stored: np.dtype
    row: tuple[int, ...]
    values: torch.Tensor | None = None

    @property
    def n_bytes(self) -> int:
        return int(self.bounds[-1]) * self._row_bytes

    def mapped(self) -> Column:
        """A copy whose file is mapped into memory, which other processes share."""
        n_rows, n = int(self.bounds[-1]), len(self.bounds) - 1
        shape: tuple[int, ...] = (n_rows, *self.row)
        if np.ptp(np.diff(self.bounds)) == 0:
            shape = (n, n_rows // n, *self.row)
        if 0 in shape:
            return replace(self, values=torch.from_numpy(np.zeros(shape, self.stored)))
        # Copy on write: torch takes no read-only arrays, and what it writes stays here.
        return replace(
            self, values=torch.from_numpy(np.memmap(self.file, self.stored, "c", shape=shape))
        )

    def take(self, index: np.ndarray) -> torch.Tensor:
        """Rows of these structures, one structure after the other, ``shape=(n_rows, *row)``."""
        if self.values is None:
            taken = self._read(index)
        elif self.values.ndim > 1 + len(self.row):
            chosen = torch.from_numpy(index).to(self.values.device)
            taken = self.values.index_select(0, chosen).flatten(0, 1)
        else:
            first, last = self.bounds[index].tolist(), self.bounds[index + 1].tolist()
            values = self.values
            taken = torch.cat(
                [values.narrow(0, a, b - a) for a, b in zip(first, last, strict=True)]
            )
        return taken.to(self.dtype)

    @property
    def _row_bytes(self) -> int:
        return self.stored.itemsize * int(np.prod(self.row))

    def _read(self, index: np.ndarray) -> torch.Tensor:
        counts = self.bounds[index + 1] - self.bounds[index]
        ends = np.cumsum(counts)
        rows = np.empty((int(ends[-1]), *self.row), self.stored)
        if rows.size:
            into = rows.reshape(-1).view(np.uint8).data
            with open(self.file, "rb", buffering=0) as file:
                places = zip(self.bounds[index], ends - counts, ends, strict=True)
                for source, first, last in places:
                    part = into[first * self._row_bytes : last * self._row_bytes]
                    if os.preadv(file.fileno(), [part], source * self._row_bytes) != len(part):
                        raise DamagedGraphsError(f"{self.file} is truncated")
        return torch.from_numpy(rows)


@dataclass(frozen=True)
class Graphs:
    """All structures of a folder.

    Attributes:
        columns: one a key, in the order in which transforms left them.
    """

    columns: tuple[Column, ...]

    @classmethod
    def load(cls, folder: Path, memory_budget: float) -> Graphs:
        """Structures that :func:`write` has put into a folder.

        Args:
            folder: holds nothing else.
            memory_budget: bytes; the smallest columns are kept in memory as far as they fit, the
                others are read for each batch.

        Raises:
            DamagedGraphsError: if files are missing, truncated or of another format.
        """
        try:
            index = json.loads((folder / INDEX).read_text())
            bounds = np.load(folder / _BOUNDS, allow_pickle=False)
            columns = [
                Column(
                    column["key"],
                    getattr(torch, column["dtype"]),
                    rows,
                    folder / f"{number}.bin",
                    np.dtype(column["stored"]),
                    tuple(column["row"]),
                )
                for number, (column, rows) in enumerate(zip(index, bounds, strict=True))
            ]
            whole = all(column.file.stat().st_size == column.n_bytes for column in columns)
        except (OSError, ValueError, KeyError) as error:
            raise DamagedGraphsError(f"{folder}: {error}") from error
        if not whole:
            raise DamagedGraphsError(f"{folder}: a file is truncated")
        left = memory_budget
        for number in np.argsort([column.n_bytes for column in columns]):
            if columns[number].n_bytes <= left:
                left -= columns[number].n_bytes
                columns[number] = columns[number].mapped()
        return cls(tuple(columns))

    def __len__(self) -> int:
        return len(self.columns[0].bounds) - 1

    @property
    def n_bytes(self) -> int:
        return sum(column.n_bytes for column in self.columns)

    @property
    def in_memory(self) -> bool:
        """Whether no file is left to be read."""
        return all(column.values is not None for column in self.columns)

    def to(self, device: torch.device) -> Graphs:
        """On a device, where batches are then made, if they are in memory."""
        own = self.columns if self.in_memory else ()
        moved = [replace(c, values=c.values.to(device)) for c in own if c.values is not None]
        return Graphs(tuple(moved)) if moved else self

    def item(self, number: int) -> Item:
        """One structure, as transforms left it; a copy that may be changed."""
        index = np.array([number])
        return {column.key: column.take(index) for column in self.columns}

    def batch(self, numbers: Sequence[int]) -> Item:
        """Structures joined to a batch, as SchNetPack's collate function joins them.

        Args:
            numbers: of the structures, at least one.

        Returns:
            Each key concatenated; ``idx_m``, the structure of each atom; and indices of atoms both
            within their structure (``*_local``) and within the batch.
        """
        index = np.asarray(numbers, dtype=np.int64)
        batch = {column.key: column.take(index) for column in self.columns}
        n_atoms = batch[structure_keys.n_atoms]
        order = torch.arange(len(index)).to(n_atoms)
        batch[structure_keys.idx_m] = order.repeat_interleave(n_atoms)
        counts = {
            c.key: c.bounds[index + 1] - c.bounds[index]
            for c in self.columns
            if c.key in (*_TO_ATOMS, *_TO_EDGES)
        }
        shifts: dict[tuple[bool, bytes], torch.Tensor] = {}  # the same for all keys of edges
        for key, rows in counts.items():
            to_edges = key in _TO_EDGES
            which = (to_edges, rows.tobytes())
            if which not in shifts:
                edges = torch.from_numpy(counts[structure_keys.idx_j]).to(n_atoms)
                sizes = edges if to_edges else n_atoms
                starts = sizes.cumsum(0) - sizes
                shifts[which] = starts.repeat_interleave(torch.from_numpy(rows).to(n_atoms))
            if not to_edges:
                batch[f"{key}_local"] = batch[key]
            batch[key] = batch[key] + shifts[which]
        return batch


def pack(items: Sequence[Item]) -> tuple[Item, dict[str, np.ndarray]]:
    """Structures one after the other, without shifts of indices, and the rows of each by key.

    Raises:
        DifferentGraphsError: if they have other keys, types or shapes of a row.
    """
    form = _form(items[0])
    for item in items:
        _check_form(item, form)
    return (
        {key: torch.cat([item[key] for item in items]) for key in form},
        {key: np.array([len(item[key]) for item in items]) for key in form},
    )


def write(folder: Path, parts: Iterable[tuple[Item, dict[str, np.ndarray]]]) -> None:
    """Writes structures into an empty folder, part by part as :func:`pack` makes them.

    Raises:
        DifferentGraphsError: if they have other keys, types or shapes of a row, or integers that
            need more than 32 bits.
        OSError: if it cannot be written.
    """
    form: dict[str, Any] = {}
    counts: list[dict[str, np.ndarray]] = []
    with ExitStack() as stack:
        files: list[BinaryIO] = []
        for values, rows in parts:
            if not counts:
                form = _form(values)
                names = (folder / f"{number}.bin" for number in range(len(form)))
                files = [stack.enter_context(open(name, "wb")) for name in names]
            _check_form(values, form)
            counts.append(rows)
            for file, value in zip(files, values.values(), strict=True):
                file.write(np.ascontiguousarray(_narrow(value)).data)
        for file in files:
            file.flush()
            os.fsync(file.fileno())
    rows_of = {key: np.concatenate([rows[key] for rows in counts]) for key in form}
    np.save(folder / _BOUNDS, [np.concatenate([[0], np.cumsum(rows)]) for rows in rows_of.values()])
    index = [
        {
            "key": key,
            "dtype": str(dtype).removeprefix("torch."),
            "stored": str(_narrow(torch.empty(0, dtype=dtype)).dtype),
            "row": row,
        }
        for key, (dtype, row) in form.items()
    ]
    (folder / INDEX).write_text(json.dumps(index))


def _form(item: Item) -> dict[str, Any]:
    return {key: (value.dtype, tuple(value.shape[1:])) for key, value in item.items()}


def _check_form(item: Item, form: dict[str, Any]) -> None:
    own = _form(item)
    odd = [
        f"{key}: {own.get(key, 'nothing')} and {form.get(key, 'nothing')}"
        for key in own | form
        if own.get(key) != form.get(key)
    ]
    if odd:
        raise DifferentGraphsError(
            f"type or shape of a row differs between structures: {'; '.join(odd)}. Correct the "
            "database, or let SchNetPack load it with data.loading=null"
        )


def _narrow(value: torch.Tensor) -> np.ndarray:
    if value.dtype != torch.int64:
        return value.numpy()
    narrow = value.to(torch.int32)
    if not torch.equal(narrow.to(torch.int64), value):
        raise DifferentGraphsError("integers above 2 147 483 647")
    return narrow.numpy()
