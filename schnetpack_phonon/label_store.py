"""A durable store of labels: what was paid for once is never lost and never paid for again."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import fasteners
import numpy as np

from schnetpack_phonon.calculators import Labels

_HEADER = {"format": "schnetpack_phonon labels", "version": 1}


class LabellingError(RuntimeError):
    """Labelling cannot go on; what was finished is in the store."""


@dataclass(frozen=True)
class Record:
    """Outcome of one job: labels, or the reason why there are none."""

    key: str
    labels: Labels | None
    error: str | None = None


class LabelStore:
    """Append-only file of records, one JSON object a line, durable line by line.

    A line counts once its newline is on the disk. What a crash or a full disk cut off is
    dropped by the next writer. Several processes may append to one store.

    Args:
        path: the file; made on the first write.
        shipped: another store that is read and never written, such as one that comes with a
            package.

    Raises:
        LabellingError: for a file that is not a label store, of a newer format, or damaged.
    """

    def __init__(self, path: str | Path, shipped: str | Path | None = None):
        self.path = Path(path)
        self._lock = fasteners.InterProcessLock(self.path.with_name(self.path.name + ".lock"))
        self._records: dict[str, Record] = {}
        if shipped is not None:
            self._load(Path(shipped))
        if self.path.exists():
            self._load(self.path)

    def __len__(self) -> int:
        return len(self._records)

    def __contains__(self, key: str) -> bool:
        return key in self._records

    def __getitem__(self, key: str) -> Record:
        return self._records[key]

    def add(self, record: Record) -> None:
        """Writes a record and returns when it is on the disk."""
        labels = record.labels and {key: value.tolist() for key, value in record.labels.items()}
        line = _encode({"key": record.key, "labels": labels, "error": record.error})
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with self._lock, open(self.path, "a+b", buffering=0) as file:
                end = _drop_cut_off_line(file)
                try:
                    _write(file, line if end else _encode(_HEADER) + line)
                except OSError:
                    file.truncate(end)
                    raise
        except OSError as error:
            raise LabellingError(
                f"cannot write to {self.path}: {error.strerror}. {len(self)} finished labels "
                "are safe there; make room and run again to go on"
            ) from error
        self._records[record.key] = record

    def _load(self, path: Path) -> None:
        *lines, last = path.read_bytes().split(b"\n")
        if not lines and not _encode(_HEADER).startswith(last):
            lines = [last]  # not a header of ours that was cut off
        for number, text in enumerate(lines, start=1):
            try:
                line = json.loads(text)
                if number == 1:
                    if line.get("format") != _HEADER["format"]:
                        raise ValueError("no header of a label store")
                    if line["version"] != _HEADER["version"]:
                        raise LabellingError(
                            f"{path} has format version {line['version']}; this version of "
                            f"schnetpack_phonon reads {_HEADER['version']}"
                        )
                    continue
                labels = line["labels"] and {k: np.array(v) for k, v in line["labels"].items()}
                self._records[line["key"]] = Record(line["key"], labels, line["error"])
            except (ValueError, KeyError, AttributeError, TypeError) as error:
                raise LabellingError(
                    f"{path} is damaged or no label store (line {number}: {error}): move it "
                    "away to compute its labels anew, or delete that line to keep the others"
                ) from error


def _drop_cut_off_line(file: BinaryIO) -> int:
    """Truncates a file to its last newline; returns its size."""
    end = file.seek(0, os.SEEK_END)
    if end:
        file.seek(end - 1)
        if file.read(1) != b"\n":
            file.seek(0)
            end = file.truncate(file.read().rfind(b"\n") + 1)
            file.seek(0, os.SEEK_END)
    return end


def _write(file: BinaryIO, data: bytes) -> None:
    """Writes all of it and returns when it is on the disk; a nearly full one takes less first."""
    while data:
        data = data[file.write(data) :]
    os.fsync(file.fileno())


def _encode(line: dict[str, Any]) -> bytes:
    return json.dumps(line, separators=(",", ":")).encode() + b"\n"
