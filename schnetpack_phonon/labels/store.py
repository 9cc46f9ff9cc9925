"""A durable store of labels: what was paid for once is never lost and never paid for again."""

from __future__ import annotations

import json
import os
import re
import weakref
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms

from schnetpack_phonon.common.errors import LabellingError
from schnetpack_phonon.common.files import advice, locked, replacing, sync_folder
from schnetpack_phonon.common.properties import Labels

FORMAT_VERSION = 1


_FORMAT = "schnetpack_phonon labels"


_HEADER = b'{"format":"%s","version":%d}\n' % (_FORMAT.encode(), FORMAT_VERSION)


# How a line with labels begins and ends as we write it; all others are decoded to be understood.
_START = re.compile(rb'\{"key":"([^"\\]+)","labels":\{')


_END = b',"error":null}\n'


@dataclass(frozen=True)
class Input:
    """What was calculated, for those who read a store without the run that made it.

    Attributes:
        task: kind of the calculation.
        description: of the structure, in words.
        code: name and version of the code.
        settings: of the calculator, plain values.
        atoms: the structure.
    """

    task: str
    description: str
    code: str
    settings: dict[str, Any]
    atoms: Atoms


@dataclass(frozen=True)
class Record:
    """Outcome of one job: labels, or the reason why there are none.

    Stores of the first versions hold neither input nor ``seconds``: those that the calculation took
    in its worker.
    """

    key: str
    labels: Labels | None
    error: str | None = None
    input: Input | None = None
    seconds: float | None = None


class LabelStore:
    """Append-only file of records, one JSON object a line, durable line by line.

    A line counts once its newline is on the disk. What a crash or a full disk cut off is
    dropped by the next writer. Several processes may append to one store: each sees what the
    others wrote when it writes itself, and none writes a key that is there. Memory holds the
    places of the records only. A failed record never stands in the way of a finished one.

    Args:
        path: the file; made on the first write.
        shipped: another store that is read and never written, such as one that comes with a
            package.

    Raises:
        LabellingError: for a file that is not a label store, of a newer format, or damaged.
    """

    def __init__(self, path: str | Path, shipped: str | Path | None = None):
        self.path = Path(path).resolve()
        # The store itself first, as far as it is there; then what it was before others replaced
        # it, and what is shipped.
        self._files = [] if shipped is None else [_opened(Path(shipped))]
        with suppress(FileNotFoundError):
            self._files.insert(0, _opened(self.path))

    def __len__(self) -> int:
        return len(set().union(*(file.places for file in self._files)))

    def __iter__(self) -> Iterator[str]:
        return iter(dict.fromkeys(key for file in self._files for key in file.places))

    def __contains__(self, key: str) -> bool:
        return any(key in file.places for file in self._files)

    def __getitem__(self, key: str) -> Record:
        return self._holder(key).record(key)

    def failed(self, key: str) -> bool:
        """Whether the record of a key has a reason instead of labels."""
        return key in self._holder(key).failed

    def line(self, key: str) -> bytes:
        """The record of a key as it stands in the file."""
        return self._holder(key).line(key)

    def where(self, key: str) -> str:
        """File and line of a record, for messages."""
        return self._holder(key).where(key)

    def add(self, record: Record) -> None:
        """Writes a record, unless it is there, and returns when it is on the disk."""
        with self._writing() as own:
            if record.key not in own.places or (record.labels and record.key in own.failed):
                own.append(_encode(record))

    def prepare(self) -> None:
        """Makes the file, or finds out that it cannot be written, before labels are paid for."""
        with self._writing():
            pass

    def rewrite(self, lines: Callable[[], Iterable[bytes]]) -> None:
        """Replaces all records at once, or none of them.

        Args:
            lines: what :meth:`line` gives, in the new order; called when the store is locked and
                holds what other processes wrote.
        """
        with self._writing() as own, replacing(self.path) as part, open(part, "wb") as file:
            self._files = [own]  # what another process dropped since does not come back
            file.write(_HEADER)
            file.writelines(lines())

    def _holder(self, key: str) -> _File:
        files = [file for file in self._files if key in file.places]
        if not files:
            raise KeyError(key)
        return min(files, key=lambda file: key in file.failed)

    @contextmanager
    def _writing(self) -> Iterator[_File]:
        """The store's own file, locked, with a header and all that other processes wrote."""
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with locked(self.path):
                yield self._own()
        except OSError as error:
            raise LabellingError(
                f"cannot write to {self.path}: {error.strerror}. {len(self)} finished labels "
                f"are safe; {advice(error, 'data.label_store')}"
            ) from error

    def _own(self) -> _File:
        open(self.path, "ab").close()
        if not (self._files and self._files[0].is_at(self.path)):
            self._files.insert(0, _File(self.path))
        own = self._files[0]
        own.catch_up()
        if own.end == 0:
            own.append(_HEADER)
            sync_folder(self.path.parent)
        return own


def existing_store(path: str | Path) -> LabelStore:
    """A store to look into.

    Raises:
        LabellingError: if there is none.
    """
    if not Path(path).exists():
        raise LabellingError(f"no label store at {Path(path).absolute()}")
    return LabelStore(path)


class _File:
    """Where the records of one file lie; they are read when they are asked for."""

    def __init__(self, path: Path):
        self.path = path
        self.places: dict[str, tuple[int, int]] = {}  # key -> offset, number of bytes
        self.failed: set[str] = set()
        self.end = 0  # of the last whole line
        # Held open: a file that another process replaced can still be read.
        self._descriptor = os.open(path, os.O_RDONLY)
        weakref.finalize(self, os.close, self._descriptor)
        self.catch_up()

    def is_at(self, path: Path) -> bool:
        """Whether the path still leads to this file, and all that was read is there."""
        here, there = os.fstat(self._descriptor), os.stat(path)
        return os.path.samestat(here, there) and there.st_size >= self.end

    def catch_up(self) -> None:
        """Takes in the lines that were added since."""
        with open(self._descriptor, "rb", closefd=False) as file:
            file.seek(self.end)
            for line in file:
                if not line.endswith(b"\n"):  # cut off, or not yet whole
                    if self.end == 0 and not _HEADER.startswith(line):
                        raise self._damaged(0, "no header of a label store")
                    break
                self._take(line)
                self.end += len(line)

    def append(self, data: bytes) -> None:
        """Writes behind the last whole line and returns when it is on the disk."""
        with open(self.path, "ab", buffering=0) as file:
            if file.tell() > self.end:  # a line that was cut off
                file.truncate(self.end)
            try:
                rest = data
                while rest:
                    rest = rest[file.write(rest) :]  # a nearly full disk takes less
                os.fsync(file.fileno())
            except OSError:
                file.truncate(self.end)
                raise
        self.catch_up()

    def line(self, key: str) -> bytes:
        start, length = self.places[key]
        return os.pread(self._descriptor, length, start)

    def record(self, key: str) -> Record:
        return self._decoded(self.line(key), self.places[key][0])

    def where(self, key: str) -> str:
        return f"{self.path}, line {self._number(self.places[key][0])}"

    def _take(self, line: bytes) -> None:
        if self.end == 0:
            self._check_header(line)
            return
        start = _START.match(line)
        if start and line.endswith(_END):
            key, failed = start[1].decode(), False
        else:
            record = self._decoded(line, self.end)
            key, failed = record.key, record.labels is None
        if failed and key in self.places:
            return
        self.places[key] = self.end, len(line)
        (self.failed.add if failed else self.failed.discard)(key)

    def _check_header(self, line: bytes) -> None:
        try:
            header = json.loads(line)
            if header.get("format") != _FORMAT:
                raise ValueError("no header of a label store")
            version = header["version"]
        except (ValueError, KeyError, AttributeError) as error:
            raise self._damaged(0, str(error)) from error
        if version != FORMAT_VERSION:
            raise LabellingError(
                f"{self.path} has format version {version}; this version of schnetpack_phonon "
                f"reads {FORMAT_VERSION}: install the one that wrote it, or a newer one"
            )

    def _decoded(self, line: bytes, start: int) -> Record:
        try:
            return _decode(line)
        except (ValueError, KeyError, AttributeError, TypeError) as error:
            raise self._damaged(start, str(error)) from error

    def _damaged(self, start: int, what: str) -> LabellingError:
        return LabellingError(
            f"{self.path} is damaged or no label store (line {self._number(start)}: {what}): move "
            "it away to compute its labels anew, or delete that line to keep the others"
        )

    def _number(self, start: int) -> int:
        return 1 + os.pread(self._descriptor, start, 0).count(b"\n")


def _opened(path: Path) -> _File:
    try:
        return _File(path)
    except FileNotFoundError:
        raise
    except OSError as error:
        raise LabellingError(
            f"cannot read {path}: {error.strerror}; expected a file that can be read"
        ) from error


def _encode(record: Record) -> bytes:
    line: dict[str, Any] = {"key": record.key}
    line["labels"] = record.labels and {k: v.tolist() for k, v in record.labels.items()}
    if record.input:
        atoms = record.input.atoms
        line["input"] = {
            "task": record.input.task,
            "description": record.input.description,
            "code": record.input.code,
            "settings": record.input.settings,
            "numbers": atoms.numbers.tolist(),
            "positions": atoms.positions.tolist(),
            "cell": atoms.cell.array.tolist(),
            "pbc": atoms.pbc.tolist(),
        }
    if record.seconds is not None:
        line["seconds"] = round(record.seconds, 3)
    line["error"] = record.error
    return json.dumps(line, separators=(",", ":")).encode() + b"\n"


def _decode(line: bytes) -> Record:
    plain = json.loads(line)
    labels = plain["labels"] and {k: np.array(v) for k, v in plain["labels"].items()}
    given = plain.get("input")
    if given:
        arrays = {key: given.pop(key) for key in ("numbers", "positions", "cell", "pbc")}
        given = Input(**given, atoms=Atoms(**arrays))
    return Record(plain["key"], labels, plain["error"], given, plain.get("seconds"))
