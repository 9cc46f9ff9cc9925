"""Cost of the label store and of the database, up to 100,000 records of 40 atoms.

Bookkeeping is what a label costs beside its calculation: its key, a look into the store and the
durable write. Beside it, in turn with it, what one would do otherwise: a line of JSON appended to
a file, as it is or forced to the disk, and a row written to an ASE database. A database is built
from a store that has all labels: drawn, hashed, read and written. Each of these has a process of
its own, whose memory is the largest that it ever had; the line of 0 records is what Python and
imports take.

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

from schnetpack_phonon.calculators.base import AseCalculator, labels_from_results
from schnetpack_phonon.data.generation import Generation
from schnetpack_phonon.data.preparation import Recipe
from schnetpack_phonon.ensembles.independent import RandomEnsemble
from schnetpack_phonon.labels.labelling import label_job
from schnetpack_phonon.labels.store import LabelStore, Record
from schnetpack_phonon.phonons.force_constants import FiniteDisplacements
from schnetpack_phonon.phonons.instabilities import Instabilities
from schnetpack_phonon.structures.crystals import Antiperovskites

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


def milliseconds(items: list, **runs: Callable[[Any], object]) -> dict[str, float]:
    """Of a call of each; medians of calls in turn, since other work makes some of them slow."""
    found: dict[str, list[float]] = {name: [] for name in runs}
    for item in items:
        for name, run in runs.items():
            start = time.perf_counter()
            run(item)
            found[name].append(time.perf_counter() - start)
    return {name: 1e3 * float(np.median(times)) for name, times in found.items()}


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

        print("\nms for a label, where there are so many already")
        print(
            "  records      key   lookup      add  without disk |     JSON  on disk  ASE row"
            "  add/on disk  add/ASE row  bytes a record"
        )
        for size, path in stores.items():
            store = LabelStore(path)
            found = milliseconds(
                list(records(SIZES[-1] + size, N_TIMED)),
                key=lambda record: label_job(CALCULATOR, record.input.atoms, ""),
                lookup=lambda record, store=store: record.key in store,
                add=store.add,
                line=partial(append_json, folder / "lines", False),
                durable=partial(append_json, folder / "durable lines", True),
                row=partial(write_row, folder / "rows.db"),
            )
            with patch("os.fsync"):
                more = list(records(2 * SIZES[-1] + size, N_TIMED))
                own = milliseconds(more, add=store.add)["add"]
            ours = "".join(f"{found[name]:9.3f}" for name in ("key", "lookup", "add"))
            others = "".join(f"{found[name]:9.3f}" for name in ("line", "durable", "row"))
            ratios = "".join(f"{found['add'] / found[name]:13.2f}" for name in ("durable", "row"))
            length = path.stat().st_size / len(store)
            print(f"{size:9d}{ours}{own:14.3f} |{others}{ratios}{length:16.0f}", flush=True)

        print("\nwhole stores and databases, s and MB")
        print("  records    open      MB    read      MB   build      MB  build / rows one by one")
        for size, path in ((0, folder / "none.jsonl"), *stores.items()):
            cells = [in_own_process(LabelStore, path), in_own_process(read_all, path)]
            if size:
                cells.append(in_own_process(build, path, size))
            line = "".join(f"{seconds:8.1f}{memory:8.0f}" for seconds, memory in cells)
            ratio = f"{1e3 * cells[-1][0] / (found['row'] * size):25.2f}" if size else ""
            print(f"{size:9d}{line}{ratio}", flush=True)


if __name__ == "__main__":
    main()
