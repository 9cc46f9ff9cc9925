"""Labels per second of a full pool against a single worker, and against bare loops.

40-atom Ag3SBr, GFN1-xTB without halogen bonds. The pool includes label store and bookkeeping; the
bare loops are as many processes, each labelling its own list with nothing in between. They are the
ceiling of the machine, whose cores slow each other down (shared caches, memory, hyper-threads).
"""

import tempfile
import time
from pathlib import Path

import loky

from schnetpack_phonon.ensembles import RandomEnsemble
from schnetpack_phonon.label_store import LabelStore
from schnetpack_phonon.labelling import Labeller, label_job, process_pool
from schnetpack_phonon.structures import Antiperovskites
from schnetpack_phonon.tight_binding import TightBinding

LABELS_PER_WORKER = 12


def bare_loop(calculator, structures) -> None:
    for atoms in structures:
        calculator.label(atoms)


def rates(n_workers: int, snapshots) -> tuple[float, float]:
    """Labels per second of the pool and of bare loops; starting and importing are not counted."""
    calculator = TightBinding()
    with tempfile.TemporaryDirectory() as folder, process_pool(n_workers) as pool:
        labeller = Labeller(pool, LabelStore(Path(folder) / "labels.jsonl"))
        jobs = [label_job(calculator, next(snapshots).atoms, "") for _ in range(2 * n_workers)]
        labeller.run(jobs, "warm-up")
        n_labels = LABELS_PER_WORKER * n_workers
        structures = [next(snapshots).atoms for _ in range(n_labels)]
        start = time.perf_counter()
        labeller.run([label_job(calculator, atoms, "") for atoms in structures], f"{n_workers}")
        ours = n_labels / (time.perf_counter() - start)
        start = time.perf_counter()
        loops = [
            pool.submit(bare_loop, calculator, structures[k::n_workers]) for k in range(n_workers)
        ]
        for loop in loops:
            loop.result()
        return ours, n_labels / (time.perf_counter() - start)


def main() -> None:
    crystal = Antiperovskites(["Ag3SBr"], lattice_constants={"Ag3SBr": 4.866}).crystals[0]
    snapshots = RandomEnsemble([0.4], 1, seed=0).snapshots("Ag3SBr", crystal.supercell, 0.4)
    n = loky.cpu_count()
    (before, _), (full, ceiling), (after, _) = (rates(workers, snapshots) for workers in (1, n, 1))
    single = (before + after) / 2
    print(f"\nlabelling, {n} cores, labels per second")
    print(f"  one worker           {single:.2f} (before {before:.2f}, after {after:.2f})")
    print(f"  {n} workers            {full:.2f}")
    print(f"  {n} bare loops         {ceiling:.2f}")
    print(f"  {n} workers / {n} x one  {full / (n * single):.1%}")
    print(f"  {n} workers / loops    {full / ceiling:.1%}")


if __name__ == "__main__":
    main()
