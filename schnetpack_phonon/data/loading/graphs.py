"""Structures with their neighbour lists as flat arrays, from which batches are cut.

A folder holds them: one file a key, the rows of all structures one after the other, and an index
that is written last. Batches are what the host's collate function makes of the same structures,
to the last bit. Integers of 64 bits are kept in 32.
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


# What points to atoms, and what points to edges: shifted when structures are put side by side.
_TO_ATOMS = (structure_keys.idx_i, structure_keys.idx_j, structure_keys.idx_i_triples)


_TO_EDGES = (structure_keys.idx_j_triples, structure_keys.idx_k_triples)


class DifferentGraphsError(ValueError):
    """Structures do not have the same keys, types and shapes, so they cannot be put together."""


class DamagedGraphsError(ValueError):
    """The files of a folder are not those that its index describes."""


@dataclass(frozen=True)
class Column:
    """One key of all structures.

    Attributes:
        key: of the host's dictionaries.
        dtype: in batches.
        bounds: first row of each structure and the end, shape=(n + 1,).
        file: where the rows are; of type ``stored`` and shape ``row``.
        stored: type in the file.
        row: shape of a row.
        values: the rows, shape=(n_rows, *row), or (n, n_rows / n, *row) where all structures have
            as many; None where they are read from the file when asked for.
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
        """With its file in memory, page by page as it is used, shared with other processes."""
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
        """Rows of these structures, one structure after the other, shape=(rows, *row)."""
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
                        raise DamagedGraphsError(f"{self.file} is cut off")
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
            memory_budget: bytes; the smallest columns are in memory while they fit, the others are
                read for each batch.

        Raises:
            DamagedGraphsError: if files are missing, cut off or of another format.
        """
        try:
            index = json.loads((folder / INDEX).read_text())
            bounds = np.load(folder / _BOUNDS)
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
            sizes = [(column.file.stat().st_size, column.n_bytes) for column in columns]
        except (OSError, ValueError, KeyError) as error:
            raise DamagedGraphsError(f"{folder}: {error}") from error
        if any(there != expected for there, expected in sizes):
            raise DamagedGraphsError(f"{folder}: a file is cut off")
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
        """Whether nothing is left to be read."""
        return all(column.values is not None for column in self.columns)

    def to(self, device: torch.device) -> Graphs:
        """Those in memory, on a device; batches are made there."""
        moved = (
            replace(c, values=c.values.to(device)) for c in self.columns if c.values is not None
        )
        return replace(self, columns=tuple(moved)) if self.in_memory else self

    def item(self, number: int) -> Item:
        """One structure, as transforms left it; the caller's own to change."""
        index = np.array([number])
        return {column.key: column.take(index) for column in self.columns}

    def batch(self, numbers: Sequence[int]) -> Item:
        """Structures side by side, as the host's collate function puts them.

        Args:
            numbers: of the structures, at least one.

        Returns:
            Each key concatenated; ``idx_m``, the structure of each atom; and of indices of atoms
            both those within structures (``*_local``) and those within the batch.
        """
        index = np.asarray(numbers, dtype=np.int64)
        batch = {column.key: column.take(index) for column in self.columns}
        n_atoms = batch[structure_keys.n_atoms]
        batch[structure_keys.idx_m] = _spread(torch.arange(len(index)).to(n_atoms), n_atoms)
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
                sizes = torch.from_numpy(counts[structure_keys.idx_j]).to(n_atoms)
                sizes = sizes if to_edges else n_atoms
                shifts[which] = _spread(sizes.cumsum(0) - sizes, torch.from_numpy(rows).to(n_atoms))
            if not to_edges:
                batch[f"{key}_local"] = batch[key]
            batch[key] = batch[key] + shifts[which]
        return batch


def pack(items: Sequence[Item]) -> tuple[Item, dict[str, np.ndarray]]:
    """Structures put one after the other, without shifts, and the rows of each by key.

    Raises:
        DifferentGraphsError: if they have other keys, types or shapes of a row.
    """
    first = items[0]
    for item in items:
        if _form(item) != _form(first):
            raise _different(_form(item), _form(first))
    return (
        {key: torch.cat([item[key] for item in items]) for key in first},
        {key: np.array([len(item[key]) for item in items]) for key in first},
    )


def write(folder: Path, parts: Iterable[tuple[Item, dict[str, np.ndarray]]]) -> None:
    """Writes structures, part by part as :func:`pack` makes them, into an empty folder.

    Raises:
        DifferentGraphsError: if they have other keys, types or shapes of a row, or large integers.
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
            if _form(values) != form:
                raise _different(_form(values), form)
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


def _different(one: dict[str, Any], other: dict[str, Any]) -> DifferentGraphsError:
    odd = [
        f"{key}: {one.get(key, 'nothing')} beside {other.get(key, 'nothing')}"
        for key in one | other
        if one.get(key) != other.get(key)
    ]
    return DifferentGraphsError(
        "type or shape of a row differs between structures: "
        f"{'; '.join(odd)}. Mend the database, or let the host load it with data.loading=null"
    )


def _narrow(value: torch.Tensor) -> np.ndarray:
    if value.dtype != torch.int64:
        return value.numpy()
    narrow = value.to(torch.int32)
    if not torch.equal(narrow.to(torch.int64), value):
        raise DifferentGraphsError("integers above 2 147 483 647")
    return narrow.numpy()


def _spread(values: torch.Tensor, counts: torch.Tensor) -> torch.Tensor:
    return torch.repeat_interleave(values, counts, dim=0)
