"""SLURM's commands for a machine without it: jobs run at once, and minutes are seconds.

The first job ends earlier once a file is there, as if its walltime were over.

A folder keeps the script of each job (``1.sh``), its process and the state that ``sacct`` tells.
"""

import os
import re
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path


def install(folder: Path) -> Path:
    """Commands to be put on the path; returns their folder."""
    commands = folder / "bin"
    commands.mkdir(parents=True)
    for name in ("sbatch", "sacct", "scancel"):
        command = commands / name
        command.write_text(f'#!/bin/sh\nexec {sys.executable} {__file__} {folder} {name} "$@"\n')
        command.chmod(0o755)
    return commands


def scripts(folder: Path) -> list[str]:
    """Of all jobs that were submitted."""
    return [path.read_text() for path in sorted(folder.glob("*.sh"))]


def walltime_over(folder: Path) -> Path:
    """The file that ends the first job."""
    return folder / "walltime_over"


def states(folder: Path) -> list[str]:
    return [path.read_text() for path in sorted(folder.glob("*.state"))]


def sbatch(folder: Path, script: str) -> None:
    number = str(1 + len(scripts(folder)))
    text = Path(script).read_text()
    (folder / f"{number}.sh").write_text(text)
    (folder / f"{number}.state").write_text("RUNNING")
    options = dict(re.findall(r"^#SBATCH --(\S+?)=(.+)$", text, re.M))
    with open(options["output"], "w") as output, open(options["error"], "w") as error:
        process = subprocess.Popen(
            [sys.executable, __file__, folder, "run", number, options["time"]],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=error,
            start_new_session=True,
        )
    (folder / f"{number}.process").write_text(str(process.pid))
    print(f"Submitted batch job {number}")


def run(folder: Path, number: str, seconds: str) -> None:
    """The job, in a process group of its own."""
    job = subprocess.Popen(["bash", folder / f"{number}.sh"])
    end = time.monotonic() + float(seconds)
    state = "TIMEOUT"
    while time.monotonic() < end and not (number == "1" and walltime_over(folder).exists()):
        if job.poll() is not None:
            state = "FAILED" if job.returncode else "COMPLETED"
            break
        time.sleep(0.1)
    (folder / f"{number}.state").write_text(state)
    os.killpg(0, signal.SIGKILL)


def sacct(folder: Path, *arguments: str) -> None:
    if arguments != ("-X",):  # without jobs it is asked whether there is an accounting
        for number in arguments[-1].split(","):
            print(number, (folder / f"{number}.state").read_text())


def scancel(folder: Path, *numbers: str) -> None:
    for number in numbers:
        (folder / f"{number}.state").write_text("CANCELLED")
        with suppress(ProcessLookupError):
            os.killpg(int((folder / f"{number}.process").read_text()), signal.SIGKILL)


if __name__ == "__main__":
    command = {"sbatch": sbatch, "run": run, "sacct": sacct, "scancel": scancel}[sys.argv[2]]
    command(Path(sys.argv[1]), *sys.argv[3:])
