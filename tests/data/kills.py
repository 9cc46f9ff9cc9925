"""Builds of a database that are killed at random moments, each started again until it ends.

A program of its own, which imports once and forks for each start. It prints a line for each kill:
number of the build, lines in its label store, whether the database was being written.

    python -m tests.data.kills FOLDER N_KILLS
"""

import os
import random
import signal
import sys
import time
import traceback
from pathlib import Path

from schnetpack_phonon.ensembles.thermal import PhononEnsemble
from tests.data.data_fixtures import ensemble_data


def start(folder: Path) -> int:
    """A build in a process of its own; returns its id."""
    folder.mkdir(exist_ok=True)
    pid = os.fork()
    if pid:
        return pid
    try:
        ensemble_data(folder, PhononEnsemble([100, 300], n_snapshots=10, seed=1)).prepare_data()
    except BaseException:
        traceback.print_exc()
        os._exit(1)
    os._exit(0)


def ended(pid: int) -> bool:
    """Whether a process came to its end, rather than being killed."""
    _, status = os.waitpid(pid, 0)
    if status not in (0, signal.SIGKILL):
        sys.exit(f"a build failed with status {status}")
    return status == 0


def main(folder: Path, n_kills: int) -> None:
    """Kills builds in 0, 1, ... at moments that are as likely anywhere in an undisturbed one."""
    begin = time.monotonic()
    ended(start(folder / "undisturbed"))
    duration = time.monotonic() - begin
    rng = random.Random(n_kills)
    number = kills = 0
    while kills < n_kills:
        build = folder / str(number)
        pid = start(build)
        time.sleep(rng.uniform(0, duration))
        os.kill(pid, signal.SIGKILL)
        if ended(pid):
            number += 1
            continue
        kills += 1
        store, part = build / "data" / "labels.jsonl", build / "data" / ".test.part.db"
        n_lines = store.read_bytes().count(b"\n") if store.exists() else 0
        print(number, n_lines, part.exists(), flush=True)
    ended(start(folder / str(number)))


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))
