"""Labels per second of worker processes against the rates of single ones in the same run.

40-atom Ag3SBr, GFN1-xTB without halogen bonds. Ours includes label store and bookkeeping. What it
is compared with, both on whatever else the machine does meanwhile:

- the sum of single-process rates: each label is timed in its worker, and nothing else. The ratio
  is the share of time in which the workers compute.
- bare loops: as many processes at the same time, each labelling a list of its own with nothing in
  between. They take turns with ours, so on a busy machine this ratio is rough.

Four times a process that has the machine to itself is no ceiling: cores slow each other down
(shared caches, memory, hyper-threads).

    OMP_NUM_THREADS=1 python -m tests.benchmarks.labelling             all cores
    OMP_NUM_THREADS=1 python -m tests.benchmarks.labelling --workers 2
"""

import argparse
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import loky
import numpy as np

from schnetpack_phonon.calculators.tight_binding import TightBinding
from schnetpack_phonon.common.executors import process_pool
from schnetpack_phonon.ensembles.independent import RandomEnsemble
from schnetpack_phonon.labels.labelling import Labeller, label_job
from schnetpack_phonon.labels.store import LabelStore
from schnetpack_phonon.structures.crystals import Antiperovskites

TURNS = 4
LABELS_PER_WORKER = 15  # in a turn


def timed_label(calculator, atoms):
    start = time.perf_counter()
    labels = calculator.label(atoms)
    return labels | {"seconds": np.array([time.perf_counter() - start])}


def bare_loop(calculator, structures) -> float:
    """Labels per second of this process."""
    start = time.perf_counter()
    for atoms in structures:
        calculator.label(atoms)
    return len(structures) / (time.perf_counter() - start)


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--workers", type=int, default=loky.cpu_count())
    n = parser.parse_args(arguments).workers
    crystal = Antiperovskites(["Ag3SBr"], lattice_constants={"Ag3SBr": 4.866}).crystals[0]
    ensemble = RandomEnsemble([0.4], n_snapshots=1, seed=0)
    snapshots = filter(None, ensemble.snapshots(crystal, crystal.supercell, 0.4))
    calculator = TightBinding()
    ours, single, loops = [], [], []
    with tempfile.TemporaryDirectory() as folder, process_pool(n) as pool:
        labeller = Labeller(pool, LabelStore(Path(folder) / "labels.jsonl"))

        def label(n_labels: int) -> tuple[float, float]:
            """Labels per second, and the sum of the workers' own rates."""
            structures = [next(snapshots).atoms for _ in range(n_labels)]
            jobs = [label_job(calculator, atoms, "") for atoms in structures]
            jobs = [
                replace(job, compute=timed_label, arguments=(calculator, *job.arguments))
                for job in jobs
            ]
            start = time.perf_counter()
            records = labeller.run(jobs, "ours")
            elapsed = time.perf_counter() - start
            busy = sum(record.labels["seconds"].item() for record in records)
            return n_labels / elapsed, n * n_labels / busy

        label(2 * n)  # starts the processes and loads the code
        for _ in range(TURNS):
            rate, rates = label(n * LABELS_PER_WORKER)
            ours.append(rate)
            single.append(rates)
            lists = [[next(snapshots).atoms for _ in range(LABELS_PER_WORKER)] for _ in range(n)]
            running = [pool.submit(bare_loop, calculator, atoms) for atoms in lists]
            loops.append(sum(loop.result() for loop in running))
    print(f"\nlabelling with {n} workers, {TURNS} turns, labels per second")
    print(f"  ours                          {spread(ours)}")
    print(f"  sum of single-process rates   {spread(single)}")
    print(f"  sum of bare loops             {spread(loops)}")
    print(f"  ours / single-process rates   {np.mean(np.divide(ours, single)):.1%}")
    print(f"  ours / bare loops             {np.mean(ours) / np.mean(loops):.1%}")


def spread(rates: list[float]) -> str:
    return f"{np.mean(rates):.2f} ({min(rates):.2f} to {max(rates):.2f})"


if __name__ == "__main__":
    main()
