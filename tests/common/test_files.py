"""Locks between processes, and files that are whole or absent."""

import errno
import os
import re
import time
from contextlib import nullcontext, suppress
from pathlib import Path

import numpy as np
import pytest

from schnetpack_phonon.common import files
from schnetpack_phonon.common.files import (
    Trust,
    advice,
    check_folder,
    locked,
    read_npz,
    replacing,
    sync_folder,
)


def hold(path: Path) -> None:
    """Adds one to the number in a file, slowly."""
    with locked(path):
        number = int(path.read_text())
        time.sleep(0.002)
        path.write_text(str(number + 1))


def test_lock_keeps_other_processes_out(tmp_path, pool):
    path = tmp_path / "number"
    path.write_text("0")
    for future in [pool.submit(hold, path) for _ in range(60)]:
        future.result()
    assert path.read_text() == "60"


def block(path: Path) -> None:
    with locked(path):
        path.touch()
        time.sleep(0.5)


def test_who_waits_says_so(tmp_path, pool, caplog):
    path = tmp_path / "data.db"
    holder = pool.submit(block, path)
    while not path.exists():
        time.sleep(0.01)
    with caplog.at_level("INFO", "schnetpack_phonon"), locked(path, "waiting for it"):
        assert caplog.messages == ["waiting for it"]
    holder.result()
    with locked(path, "waiting for it"):
        assert len(caplog.messages) == 1


def test_replaced_whole_or_not_at_all(tmp_path):
    path = tmp_path / "table.csv"
    for text in ("first", "second"):
        with replacing(path) as part:
            part.write_text(text)
            assert part.parent == tmp_path
            assert part.suffix == ".csv"
        assert path.read_text() == text
    with suppress(KeyboardInterrupt), replacing(path) as part:
        part.write_text("third")
        raise KeyboardInterrupt
    assert path.read_text() == "second"
    assert list(tmp_path.iterdir()) == [path]


def test_all_files_are_replaced():
    """Whatever the package writes for a user goes to a part first: no file is cut off."""
    package = Path(files.__file__).parents[1]
    # Written to folders that are renamed when they are complete, or thrown away.
    other = {package / "data" / "loading" / "graphs.py", *(package / "calculators").iterdir()}
    other.add(Path(files.__file__))
    writes = re.compile(r"(to_csv|savefig)\((?!part|file|content)|(?<!part)\.write_(text|bytes)\(")
    found = [
        f"{module.relative_to(package)}: {line.strip()}"
        for module in sorted({*package.rglob("*.py")} - other)
        for line in module.read_text().splitlines()
        if writes.search(line) or re.search(r"open\((?!part)\w.*\"w", line)
    ]
    assert not found


def test_arrays_are_read_whole_or_refused(tmp_path):
    path = tmp_path / "x.npz"
    np.savez(path, a=np.arange(30), b=np.array("text"))
    whole = path.read_bytes()
    assert read_npz(path)["a"].tolist() == [*range(30)]
    np.savez(path, a=np.array([{}], dtype=object))
    pickled = path.read_bytes()
    np.save(tmp_path / "x.npy", np.arange(3))
    for k in range(0, len(whole), 40):
        path.write_bytes(whole[:k])
        with pytest.raises(ValueError, match=r"x\.npz is damaged or no npz file: "):
            read_npz(path)
    for content in (pickled, (tmp_path / "x.npy").read_bytes()):
        path.write_bytes(content)
        with pytest.raises(ValueError, match=r"x\.npz is damaged or no npz file: "):
            read_npz(path)
    with pytest.raises(FileNotFoundError):
        read_npz(tmp_path / "nowhere.npz")


def test_folders_that_can_be_written(tmp_path, read_only):
    """They need not exist, and are not made."""
    (tmp_path / "file").touch()
    check_folder(tmp_path / "new" / "page", "--out")
    assert not (tmp_path / "new").exists()
    for path in (tmp_path / "file", tmp_path / "file" / "page"):
        with pytest.raises(ValueError, match=r"--out.*/file is a file; expected a folder"):
            check_folder(path, "--out")
    with read_only(), pytest.raises(ValueError, match="is read-only; expected a folder"):
        check_folder(read_only.folder / "page", "--out")


@pytest.mark.parametrize(("code", "error"), [(errno.EINVAL, None), (errno.EIO, OSError)])
def test_folder_that_cannot_be_synced(tmp_path, monkeypatch, code, error):
    """A file system that syncs no folders is no reason to stop; a broken disk is."""

    def refuse(descriptor):
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(os, "fsync", refuse)
    with pytest.raises(error) if error else nullcontext():
        sync_folder(tmp_path)


@pytest.mark.parametrize(
    ("code", "what"),
    [
        (errno.ENOSPC, "make room"),
        (errno.EROFS, "make the folder writable, or set data.datapath"),
        (errno.ENOLCK, "no locks, .*set data.datapath to a place on a local disk"),
        (errno.ENOTDIR, "set data.datapath to a writable path"),
    ],
)
def test_advice(code, what):
    assert re.search(what, advice(OSError(code, os.strerror(code)), "data.datapath"))


def test_pickles_are_a_question_of_trust():
    with pytest.raises(ValueError, match=r"x is a pickle, which can run any program: give --trust"):
        Trust(packages=("mine",)).check("x is a pickle")
    Trust(everything=True).check("x is a pickle")


def test_pipes_and_devices_are_written_to_and_not_replaced(tmp_path):
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    for target in (pipe, Path("/dev/null")):
        with replacing(target) as part:
            part.write_text("content")
        assert not target.is_file()
    assert os.read(reader, 100) == b"content"
    os.close(reader)
    assert pipe.is_fifo()
    with pytest.raises(OSError, match=str(tmp_path)), replacing(tmp_path) as part:
        part.write_text("content")
    assert list(tmp_path.iterdir()) == [pipe]
