"""Files that are whole or absent, locks between processes, and what to do where both fail."""

from __future__ import annotations

import errno
import fcntl
import logging
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

log = logging.getLogger(__name__)


_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


_FORBIDDEN = (errno.EACCES, errno.EPERM, errno.EROFS)


_NO_LOCKS = (errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS)


@contextmanager
def locked(path: Path, waiting: str = "") -> Iterator[None]:
    """Keeps other processes out that ask for the same path; the lock is a file beside it.

    Args:
        path: what is locked.
        waiting: logged where another process has the lock.

    Raises:
        OSError: if the lock cannot be made; :func:`advice` says what to do.
    """
    with open(f"{path}.lock", "a") as file:
        try:
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except (BlockingIOError, PermissionError):  # POSIX allows both
            if waiting:
                log.info(waiting)
            fcntl.lockf(file, fcntl.LOCK_EX)
        yield


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A path to write to, moved to ``path`` when all is written and on the disk, else removed.

    Raises:
        OSError: if it cannot be moved.
    """
    part = path.with_name(f".{path.stem}.part{path.suffix}")
    try:
        part.unlink(missing_ok=True)
        yield part
        with suppress(FileNotFoundError):
            shutil.copymode(path, part)
        with open(part, "rb") as file:
            os.fsync(file.fileno())
        part.replace(path)
        sync_folder(path.parent)
    finally:
        with suppress(OSError):  # where nothing could be written there is nothing to remove
            part.unlink()


def sync_folder(folder: Path) -> None:
    """Returns when the names in a folder are on the disk, where the file system can tell."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno != errno.EINVAL:  # some network file systems sync files only
            raise
    finally:
        os.close(descriptor)


def advice(error: OSError, setting: str) -> str:
    """What to do about a place that cannot be written to.

    Args:
        error: the refusal.
        setting: that names the place.
    """
    if error.errno in _FULL:
        return "make room and run again to go on"
    if error.errno in _FORBIDDEN:
        return f"make the folder writable, or set {setting} to a place that is"
    if error.errno in _NO_LOCKS:
        return (
            "the file system has no locks between processes, which may write to one file only "
            f"with them: set {setting} to a place on a local disk, or mount it with locks"
        )
    return f"set {setting} to a place that can be written to"
