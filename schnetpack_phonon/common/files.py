"""Files that are written completely or not at all, locks, advice on errors, files of others."""

from __future__ import annotations

import errno
import fcntl
import logging
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np

log = logging.getLogger(__name__)

DATASETS = Path(__file__).parents[1] / "datasets"  #: label stores that come with the package
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_FORBIDDEN = (errno.EACCES, errno.EPERM, errno.EROFS)
_NO_LOCKS = (errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS)


@dataclass(frozen=True)
class Trust:
    """What files may do to the process that opens them.

    Attributes:
        everything: pickles are opened, which can run any program, programs are called, and any
            ``_target_`` is made.
        packages: of the user, whose classes a ``_target_`` may name beside those of
            :mod:`.models.trained.targets`.
    """

    everything: bool = False
    packages: tuple[str, ...] = ()

    def check(self, what: str) -> None:
        """Raises ValueError unless ``what``, which can run any program, may be opened."""
        if not self.everything:
            raise ValueError(
                f"{what}, which can run any program: give --trust (in Python "
                "trust=Trust(everything=True)) if you made it or trust its maker"
            )


#: Files of others: no pickle, no program, and only the classes of the list.
UNTRUSTED = Trust()


@contextmanager
def locked(path: Path, waiting: str = "") -> Iterator[None]:
    """Lock of a path between processes; the lock is a file beside it.

    Args:
        path: what is locked.
        waiting: message to log if another process has the lock.

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
    """A path to write to, which replaces ``path`` once it is on the disk, or is removed.

    Devices and pipes such as ``/dev/stdout`` are not replaced: the content goes into them.

    Raises:
        OSError: if it cannot be written or moved; names ``path``.
    """
    if path.exists() and not path.is_file() and not path.is_dir():
        with TemporaryDirectory() as folder:
            yield Path(folder, path.name)
            with open(Path(folder, path.name), "rb") as source, open(path, "wb") as target:
                shutil.copyfileobj(source, target)
        return
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
    except OSError as error:
        if error.filename is None or Path(error.filename) == part:  # it says nothing to a user
            raise OSError(error.errno, error.strerror, str(path)) from error
        raise
    finally:
        with suppress(OSError):  # on a full or read-only disk there is no part
            part.unlink()


def read_npz(path: Path) -> dict[str, np.ndarray]:
    """Arrays of a file that :func:`numpy.savez` wrote; no pickle is opened.

    Raises:
        OSError: if there is no such file, or it cannot be opened.
        ValueError: if it is damaged or another file; names it.
    """
    import numpy as np  # not for the commands that only need locks

    with open(path, "rb") as file:
        try:
            return dict(np.load(file, allow_pickle=False))
        except Exception as error:  # a damaged archive leads to many
            raise ValueError(f"{path} is damaged or no npz file: {error}") from error


def check_folder(path: Path, option: str) -> None:
    """Raises ValueError unless files can be written to a folder, which need not be there yet.

    Args:
        path: the folder; not made.
        option: that sets it, for the message.
    """
    there = next(p for p in (path.absolute(), *path.absolute().parents) if p.exists())
    kind = "a file" if not there.is_dir() else "read-only"
    if kind == "a file" or not os.access(there, os.W_OK | os.X_OK, effective_ids=True):
        raise ValueError(
            f"cannot write to {path} ({option}): {there} is {kind}; expected a folder that can be "
            "written"
        )


@contextmanager
def no_empty_file(path: Path, n_bytes: int) -> Iterator[None]:
    """On an error, removes a file that was not there before and has no more than ``n_bytes``."""
    new = not path.exists()
    try:
        yield
    except BaseException:
        with suppress(OSError):
            if new and path.stat().st_size <= n_bytes:
                path.unlink()
        raise


def sync_folder(folder: Path) -> None:
    """Waits until the names in a folder are on the disk, if the file system supports it."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno != errno.EINVAL:  # some network file systems sync files only
            raise
    finally:
        os.close(descriptor)


def advice(error: OSError, setting: str) -> str:
    """What to do about a path that cannot be written.

    Args:
        error: that was raised.
        setting: option with the path.
    """
    if error.errno in _FULL:
        return "make room and run again to continue"
    if error.errno in _FORBIDDEN:
        return f"make the folder writable, or set {setting} to a writable one"
    if error.errno in _NO_LOCKS:
        return (
            "the file system has no locks, which several processes need to write to one file: set "
            f"{setting} to a place on a local disk, or mount the file system with locks"
        )
    return f"set {setting} to a writable path"
