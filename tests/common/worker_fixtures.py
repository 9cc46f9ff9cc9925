"""Tasks that go wrong, for the tests of executors, and what to look for afterwards.

Workers import this module, so it does without the host and PyTorch.
"""

import hashlib
import os
import time
from pathlib import Path

import numpy as np
from ase.calculators.emt import EMT
from loky import process_executor


def calls(folder: Path) -> int:
    """How often the tasks of a folder were begun."""
    trace = folder / "trace"
    return trace.stat().st_size if trace.exists() else 0


def die(folder: Path, times: int) -> int:
    """Kills its process so many times, then gives how often it was called."""
    with (folder / "trace").open("a") as file:
        file.write(".")
    if calls(folder) <= times:
        os._exit(1)
    return calls(folder)


def endless() -> None:
    """Compiled code: no signal reaches it."""
    hashlib.pbkdf2_hmac("sha256", b"", b"", 2**31 - 1)


class Endless(EMT):
    def calculate(self, *_):
        endless()


def late() -> None:
    raise TimeoutError("of a licence server")


def process(seconds: float = 0.0) -> int:
    time.sleep(seconds)
    return os.getpid()


def grow() -> None:
    """Lets loky find that this process takes too much memory."""
    process_executor._MAX_MEMORY_LEAK_SIZE = -(2**40)


def hold(n_bytes: int) -> int:
    """As loading a large library does."""
    globals()["_HELD"] = np.ones(n_bytes // 8)
    return os.getpid()


def label_until(number: int, over: Path, last: int) -> dict[str, np.ndarray]:
    """The last label ends the job in which it is computed first."""
    if number == last:
        over.touch()
    time.sleep(0.2)
    return {"energy": np.array([float(number)])}


def environment(name: str) -> tuple[int, str]:
    return os.getpid(), os.environ[name]


def ended(processes: list[int], within: float) -> bool:
    """Whether all processes end within so many seconds."""
    end = time.monotonic() + within
    while any(_alive(pid) for pid in processes):
        if time.monotonic() > end:
            return False
        time.sleep(0.1)
    return True


def _alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False
