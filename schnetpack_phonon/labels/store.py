"""A durable store of labels, so that no label is lost or computed twice."""

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
from schnetpack_phonon.common.files import advice, locked, no_empty_file, replacing, sync_folder
from schnetpack_phonon.common.properties import Labels

FORMAT_VERSION = 1
_FORMAT = "schnetpack_phonon labels"
_HEADER = b'{"format":"%s","version":%d}\n' % (_FORMAT.encode(), FORMAT_VERSION)
_ARRAYS = ("numbers", "positions", "cell", "pbc", "magmoms")  # of a structure in a line

# Start and end of a line with labels, as written here; all other lines are decoded at once.
_START = re.compile(rb'\{"key":"([^"\\]+)","labels":\{')
_END = b',"error":null}\n'


@dataclass(frozen=True)
class Input:
    """Input of a calculation, for readers of a store who do not have the run that wrote it.

    Attributes:
        task: kind of the calculation.
        description: of the structure ``atoms``, in words.
        code: name and version of the code.
        settings: of the calculator, as plain values.
    """

    task: str
    description: str
    code: str
    settings: dict[str, Any]
    atoms: Atoms


@dataclass(frozen=True)
class Record:
    """Result of one job: labels, or the reason why there are none.

    ``seconds`` is the computing time, ``origin`` the file of imported labels. The first versions
    stored neither ``input`` nor ``seconds``.
    """

    key: str
    labels: Labels | None
    error: str | None = None
    input: Input | None = None
    seconds: float | None = None
    origin: str | None = None


class LabelStore:
    """Append-only file of records, one JSON object per line; each line is on the disk at once.

    A line is valid once its newline is on the disk. An incomplete line, after a crash or on a
    full disk, is removed by the next writer. Several processes may append to one store: each
    reads the records of the others when it writes, and none writes an existing key again. Only
    the offsets of the records are kept in memory. A finished record replaces a failed one.

    Args:
        path: the file; created on the first write.
        shipped: another store that is read and never written, such as one that comes with a
            package.

    Raises:
        LabellingError: if the file is not a label store, has a newer format, or is damaged.
    """

    def __init__(self, path: str | Path, shipped: str | Path | None = None):
        self.path, self.is_shipped = Path(path).resolve(), shipped is not None
        # First the store itself, if it exists; then its former files, which other processes
        # replaced, and the shipped store.
        self._files = [] if shipped is None else [_File(Path(shipped))]
        with suppress(FileNotFoundError):
            self._files.insert(0, _File(self.path))

    def __len__(self) -> int:
        return len(set().union(*(file.places for file in self._files)))

    def __iter__(self) -> Iterator[str]:
        return iter(dict.fromkeys(key for file in self._files for key in file.places))

    def __contains__(self, key: str) -> bool:
        return any(key in file.places for file in self._files)

    def __getitem__(self, key: str) -> Record:
        return self._holder(key).record(key)

    def failed(self, key: str) -> bool:
        """Whether the record of a key contains a reason instead of labels."""
        return key in self._holder(key).failed

    def line(self, key: str) -> bytes:
        """The line of the file with the record of a key."""
        return self._holder(key).line(key)

    def where(self, key: str) -> str:
        """File and line of a record, for messages."""
        return self._holder(key).where(key)

    def add(self, record: Record) -> None:
        """Writes a record, unless it exists, and returns when it is on the disk."""
        with self._writing() as own:
            if record.key not in own.places or (record.labels and record.key in own.failed):
                own.append(_encode(record))

    def prepare(self) -> None:
        """Creates the file, or raises LabellingError before labels are computed."""
        with self._writing():
            pass

    def rewrite(self, lines: Callable[[], Iterable[bytes]]) -> None:
        """Replaces all records at once, or none of them.

        Args:
            lines: returns lines as from :meth:`line`, in the new order; called while the store
                is locked, when the records of other processes have been read.
        """
        with self._writing() as own, replacing(self.path) as part, open(part, "wb") as file:
            self._files = [own]  # records that another process has removed do not come back
            file.write(_HEADER)
            file.writelines(lines())

    def _holder(self, key: str) -> _File:
        if not (files := [file for file in self._files if key in file.places]):
            raise KeyError(key)
        return min(files, key=lambda file: key in file.failed)

    @contextmanager
    def _writing(self) -> Iterator[_File]:
        """The file of the store, locked, with a header; records of other processes are read."""
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with locked(self.path), no_empty_file(self.path, len(_HEADER)):
                open(self.path, "ab").close()
                if not (self._files and self._files[0].is_at(self.path)):
                    self._files.insert(0, _File(self.path))
                own = self._files[0]
                own.catch_up()
                if own.end == 0:
                    own.append(_HEADER)
                    sync_folder(self.path.parent)
                yield own
        except OSError as error:
            raise LabellingError(
                f"cannot write to {self.path}: {error.strerror}. {len(self)} finished labels "
                f"are safe; {advice(error, 'data.label_store')}"
            ) from error


def existing_store(path: str | Path) -> LabelStore:
    """An existing store.

    Raises:
        LabellingError: if it does not exist.
    """
    if not Path(path).exists():
        raise LabellingError(f"no label store at {Path(path).absolute()}")
    return LabelStore(path)


class _File:
    """Offsets of the records in one file; a record is read when it is needed."""

    def __init__(self, path: Path):
        self.path = path
        self.places: dict[str, tuple[int, int]] = {}  # key -> offset, number of bytes
        self.failed: set[str] = set()
        self.end = 0  # of the last complete line
        try:
            # Kept open, so that a file that another process has replaced can still be read.
            self._descriptor = os.open(path, os.O_RDONLY)
            weakref.finalize(self, os.close, self._descriptor)
            self.catch_up()
        except FileNotFoundError:
            raise
        except OSError as error:
            what = f"cannot read {path}: {error.strerror}; expected a file that can be read"
            raise LabellingError(what) from error

    def is_at(self, path: Path) -> bool:
        """Whether the path is still that of this file, with all lines that were read."""
        here, there = os.fstat(self._descriptor), os.stat(path)
        return os.path.samestat(here, there) and there.st_size >= self.end

    def catch_up(self) -> None:
        """Reads the lines that were added since the last call."""
        with open(self._descriptor, "rb", closefd=False) as file:
            file.seek(self.end)
            for line in file:
                if not line.endswith(b"\n"):  # cut off, or not yet complete
                    if self.end == 0 and not _HEADER.startswith(line):
                        raise self._damaged(0, "no header of a label store")
                    break
                self._take(line)
                self.end += len(line)

    def append(self, data: bytes) -> None:
        """Writes after the last complete line and returns when the data is on the disk."""
        with open(self.path, "ab", buffering=0) as file:
            if file.tell() > self.end:  # a line that was cut off
                file.truncate(self.end)
            try:
                rest = data
                while rest:
                    rest = rest[file.write(rest) :]  # a nearly full disk accepts only a part
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
        if (start := _START.match(line)) and line.endswith(_END):
            key, failed = start[1].decode(), False
        else:
            record = self._decoded(line, self.end)
            key, failed = record.key, record.labels is None
        if not (failed and key in self.places):
            self.places[key] = self.end, len(line)
            (self.failed.add if failed else self.failed.discard)(key)

    def _check_header(self, line: bytes) -> None:
        header = None
        with suppress(ValueError):
            header = json.loads(line)
        if not isinstance(header, dict) or header.get("format") != _FORMAT:
            raise self._damaged(0, "no header of a label store")
        if (version := header.get("version")) != FORMAT_VERSION:
            raise LabellingError(
                f"{self.path} has format version {version}; this version of schnetpack_phonon "
                f"reads {FORMAT_VERSION}: install the version that wrote it, or a newer one"
            )

    def _decoded(self, line: bytes, start: int) -> Record:
        try:
            return _decode(line)
        except (ValueError, KeyError, AttributeError, TypeError) as error:
            raise self._damaged(start, str(error)) from error

    def _damaged(self, start: int, what: str) -> LabellingError:
        return LabellingError(
            f"{self.path} is damaged or no label store (line {self._number(start)}: {what}): move "
            "it away to compute its labels again, or delete that line to keep the others"
        )

    def _number(self, start: int) -> int:
        return 1 + os.pread(self._descriptor, start, 0).count(b"\n")


def _encode(record: Record) -> bytes:
    line: dict[str, Any] = {"key": record.key}
    line["labels"] = record.labels and {k: v.tolist() for k, v in record.labels.items()}
    line |= {"energy": "free"} if "energy" in (record.labels or ()) else {}
    if record.input:
        given = dict(vars(record.input))
        atoms = given.pop("atoms")
        line["input"] = given | {k: np.asarray(getattr(atoms, k)).tolist() for k in _ARRAYS[:4]}
        if atoms.has("initial_magmoms"):
            line["input"]["magmoms"] = atoms.arrays["initial_magmoms"].tolist()
    line |= {} if record.seconds is None else {"seconds": round(record.seconds, 3)}
    line |= {"origin": record.origin} if record.origin else {}
    line["error"] = record.error
    return json.dumps(line, separators=(",", ":")).encode() + b"\n"


def _decode(line: bytes) -> Record:
    plain = json.loads(line)
    labels = plain["labels"] and {k: np.array(v) for k, v in plain["labels"].items()}
    if given := plain.get("input"):
        given = Input(atoms=Atoms(**{k: given.pop(k) for k in _ARRAYS if k in given}), **given)
    rest = plain.get("seconds"), plain.get("origin")
    return Record(plain["key"], labels, plain["error"], given, *rest)
