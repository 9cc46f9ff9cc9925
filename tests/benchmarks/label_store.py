"""Cost of the label store and of the database, up to 100,000 records of 40 atoms.

Bookkeeping is what a label costs beside its calculation: its key, a look into the store and the
durable write. Beside it what one would do otherwise: a line of JSON appended to a file, as it is
or forced to the disk, and a row written to an ASE database. A database is built from a store that
has all labels: drawn, hashed, read and written. Each of these has a process of its own, whose
memory is the largest that it ever had; the first line of a table is what Python and imports take.

    OMP_NUM_THREADS=1 python -m tests.benchmarks.label_store
"""

import json
import os
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from functools import partial
from itertools import islice
from multiprocessing import get_context
from pathlib import Path
from typing import Any
from unittest.mock import patch

import ase.db
import numpy as np
from ase.calculators.emt import EMT

from schnetpack_phonon.calculators import AseCalculator, labels_from_results
from schnetpack_phonon.ensembles import RandomEnsemble
from schnetpack_phonon.force_constants import FiniteDisplacements
from schnetpack_phonon.generation import Generation
from schnetpack_phonon.label_store import LabelStore, Record
from schnetpack_phonon.labelling import label_job
from schnetpack_phonon.phonons import Instabilities
from schnetpack_phonon.preparation import Recipe
from schnetpack_phonon.structures import Antiperovskites

SIZES = (1_000, 10_000, 100_000)
N_TIMED = 300
AMPLITUDE = 0.3
CALCULATOR = AseCalculator(EMT)
STRUCTURE = Antiperovskites(["Cu3PdAu"], relax=False, lattice_constants={"Cu3PdAu": 4.35})


def ensemble(n: int) -> RandomEnsemble:
    return RandomEnsemble([AMPLITUDE], n_snapshots=n, seed=0, min_distance=0.0)


def records(first: int, n: int) -> Iterator[Record]:
    """Of the ensemble's snapshots, with random numbers for labels."""
    (crystal,) = STRUCTURE.crystals
    drawn = ensemble(1).snapshots(crystal, crystal.supercell, AMPLITUDE)
    rng = np.random.default_rng(first)
    for snapshot in islice(drawn, first, first + n):
        job = label_job(CALCULATOR, snapshot.atoms, f"Cu3PdAu, random, snapshot {snapshot.index}")
        results = {
            "energy": rng.normal(),
            "forces": rng.normal(size=(40, 3)),
            "stress": rng.normal(size=(3, 3)),
            "vbm": rng.normal(),
            "cbm": 3 + rng.normal(),
        }
        yield Record(job.key, labels_from_results(snapshot.atoms, results), None, job.input)


def milliseconds(run: Callable[[Any], object], items: list) -> float:
    """Of a call; the median, since other work on the machine makes some calls slow."""
    found = []
    for item in items:
        start = time.perf_counter()
        run(item)
        found.append(time.perf_counter() - start)
    return 1e3 * float(np.median(found))


def append_json(path: Path, durable: bool, record: Record) -> None:
    labels = {key: value.tolist() for key, value in record.labels.items()}
    with open(path, "a") as file:
        file.write(json.dumps({"key": record.key, "labels": labels}) + "\n")
        if durable:
            file.flush()
            os.fsync(file.fileno())


def write_row(path: Path, record: Record) -> None:
    with ase.db.connect(path) as db:
        db.write(record.input.atoms, data=record.labels, key_value_pairs={"key": record.key})


def fill(path: Path, size: int) -> None:
    """A store of so many records, written without waiting for the disk."""
    store = LabelStore(path)
    with patch("os.fsync"):
        for record in records(0, size):
            store.add(record)


def in_own_process(run: Callable[..., object], *arguments: object) -> tuple[float, float]:
    """Seconds that a call takes, and the largest memory of its process in MB."""
    with ProcessPoolExecutor(1, get_context("spawn")) as pool:
        return pool.submit(_timed, run, arguments).result()


def _timed(run: Callable[..., object], arguments: tuple) -> tuple[float, float]:
    start = time.perf_counter()
    run(*arguments)
    elapsed = time.perf_counter() - start
    # Not of getrusage, which starts from what the parent process had.
    (line,) = (s for s in Path("/proc/self/status").read_text().splitlines() if "VmHWM" in s)
    return elapsed, int(line.split()[1]) / 1024


def read_all(path: Path) -> None:
    store = LabelStore(path)
    for key in store:
        _ = store[key].labels


def build(path: Path, size: int) -> None:
    recipe = Recipe(STRUCTURE, FiniteDisplacements(Instabilities()), ensemble(size), CALCULATOR)
    executor = partial(ThreadPoolExecutor, 1)
    Generation(recipe, path.with_suffix(".db"), executor, path, 0.1).ensure()


def main() -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        stores = {size: folder / f"{size}.jsonl" for size in SIZES}
        for size, path in stores.items():
            fill(path, size)

        print("\nbookkeeping of a label, ms, where there are so many already")
        print("  records      key   lookup      add      sum  without disk  bytes per record")
        for size, path in stores.items():
            store = LabelStore(path)
            timed = list(records(SIZES[-1] + size, N_TIMED))
            times = [
                milliseconds(lambda r: label_job(CALCULATOR, r.input.atoms, ""), timed),
                milliseconds(store.__contains__, [r.key for r in timed]),
                milliseconds(store.add, timed),
            ]
            with patch("os.fsync"):
                own = milliseconds(store.add, list(records(2 * SIZES[-1] + size, N_TIMED)))
            columns = "".join(f"{t:9.3f}" for t in (*times, sum(times)))
            per_record = path.stat().st_size / len(store)
            print(f"{size:9d}{columns}{own:14.3f}{per_record:18.0f}", flush=True)

        timed = list(records(0, N_TIMED))
        own = milliseconds(LabelStore(folder / "new.jsonl").add, timed)
        line = milliseconds(partial(append_json, folder / "lines", False), timed)
        durable = milliseconds(partial(append_json, folder / "durable lines", True), timed)
        row = milliseconds(partial(write_row, folder / "rows.db"), timed)
        print(f"\nwriting a label, ms: {own:.3f}")
        for what, other in (
            ("line of JSON", line),
            ("line of JSON, on the disk", durable),
            ("row of an ASE database", row),
        ):
            print(f"  {what:27s}{other:9.3f}  ours / it {own / other:7.2f}")

        print("\nwhole stores and databases, s and MB")
        print("  records    open      MB    read      MB   build      MB  build / rows one by one")
        for size, path in ((0, folder / "none.jsonl"), *stores.items()):
            cells = [in_own_process(LabelStore, path), in_own_process(read_all, path)]
            if size:
                cells.append(in_own_process(build, path, size))
            line = "".join(f"{seconds:8.1f}{memory:8.0f}" for seconds, memory in cells)
            ratio = f"{1e3 * cells[-1][0] / (row * size):25.2f}" if size else ""
            print(f"{size:9d}{line}{ratio}", flush=True)


if __name__ == "__main__":
    main()
