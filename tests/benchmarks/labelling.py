"""Labels per second of a full pool against that many times a single worker.

40-atom Ag3SBr, GFN1-xTB without halogen bonds, label store and bookkeeping included.
"""

import tempfile
import time
from pathlib import Path

import loky

from schnetpack_phonon.calculators import TightBinding
from schnetpack_phonon.ensembles import RandomEnsemble
from schnetpack_phonon.label_store import LabelStore
from schnetpack_phonon.labelling import Labeller, label_job, process_pool
from schnetpack_phonon.structures import Antiperovskites

LABELS_PER_WORKER = 12


def rate(n_workers: int, snapshots) -> float:
    """Labels per second; starting the pool and importing the code are not counted."""
    calculator = TightBinding()
    with tempfile.TemporaryDirectory() as folder, process_pool(n_workers) as pool:
        labeller = Labeller(pool, LabelStore(Path(folder) / "labels.jsonl"))
        jobs = [label_job(calculator, next(snapshots).atoms, "") for _ in range(2 * n_workers)]
        labeller.run(jobs, "warm-up")
        n_labels = LABELS_PER_WORKER * n_workers
        jobs = [label_job(calculator, next(snapshots).atoms, "") for _ in range(n_labels)]
        start = time.perf_counter()
        labeller.run(jobs, f"{n_workers} workers")
        return n_labels / (time.perf_counter() - start)


def main() -> None:
    crystal = Antiperovskites(["Ag3SBr"], lattice_constants={"Ag3SBr": 4.866}).crystals[0]
    snapshots = RandomEnsemble([0.4], 1, seed=0).snapshots("Ag3SBr", crystal.supercell, 0.4)
    n_workers = loky.cpu_count()
    before, full, after = (rate(n, snapshots) for n in (1, n_workers, 1))
    single = (before + after) / 2
    print(f"\nlabelling, {n_workers} cores")
    print(f"  one worker    {single:.2f} labels/s (before {before:.2f}, after {after:.2f})")
    print(f"  {n_workers} workers     {full:.2f} labels/s")
    print(f"  efficiency    {full / (n_workers * single):.1%} of {n_workers} x one worker")


if __name__ == "__main__":
    main()
