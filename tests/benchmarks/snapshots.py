"""Snapshots per second and peak memory against phonopy, in one process.

Thermal displacements of Ag3SBr held by springs, so that no calculator is needed. Ours include the
check of distances and, as objects, an ASE structure with its origin each. Phonopy's are bare
displacements, all of one call; or one call a structure, as in published scripts. "Start" is the
time to a model and to the first batch of a stream (once per crystal and temperature, not in the
rates), and to phonopy's sampler. Memory is what Python and NumPy allocate from the start of a
stream on, while so many snapshots are drawn.

    OMP_NUM_THREADS=1 python -m tests.benchmarks.snapshots    # 5 minutes, 8 GB at 4,000 atoms
"""

import time
import tracemalloc
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import islice

import numpy as np
from ase import Atoms
from ase.neighborlist import neighbor_list
from phonopy.phonon.random_displacements import RandomDisplacements

from schnetpack_phonon.ensembles.sampler import BATCH
from schnetpack_phonon.ensembles.thermal import PhononEnsemble
from schnetpack_phonon.phonons.harmonic import HarmonicModel, harmonic_model
from schnetpack_phonon.phonons.instabilities import Instabilities
from schnetpack_phonon.structures.crystals import Antiperovskites, Crystal

TEMPERATURE = 300.0
SPRINGS = {2.4: 4.0, 2.4 * 2**0.5: 1.0}  # Ang -> eV/Ang^2
# Supercell, snapshots in batches, structures in phonopy's loop.
SIZES = [
    ((2, 2, 2), 12800, 50),
    ((4, 4, 4), 1280, 10),
    ((6, 6, 6), 320, 3),
    ((10, 10, 8), 64, 1),
]
REPEATS = 3


@dataclass
class Row:
    """One size; rates in snapshots per second, memory in MB, start in seconds."""

    n_atoms: int
    n_snapshots: int
    batches: float
    objects: float
    phonopy: float
    loop: float
    memory: float
    phonopy_memory: float
    model: float
    first: float
    phonopy_start: float


def force_constants(atoms: Atoms) -> np.ndarray:
    """Of springs along the bonds, eV/Ang^2, shape=(n_atoms, n_atoms, 3, 3)."""
    result = np.zeros((len(atoms), len(atoms), 3, 3))
    i, j, length, vector = neighbor_list("ijdD", atoms, max(SPRINGS) + 0.01)
    for rest, stiffness in SPRINGS.items():
        bond = np.abs(length - rest) < 0.01
        unit = vector[bond] / length[bond, None]
        block = stiffness * unit[:, :, None] * unit[:, None, :]
        np.add.at(result, (i[bond], j[bond]), -block)
        np.add.at(result, (i[bond], i[bond]), block)
    return result


def seconds(run: Callable[[], object], repeats: int = REPEATS) -> float:
    """Of the fastest run: other work on the machine only ever adds."""
    found = []
    for _ in range(repeats):
        start = time.perf_counter()
        run()
        found.append(time.perf_counter() - start)
    return min(found)


def peak(run: Callable[[], object]) -> float:
    """Memory in MB that is allocated at the worst moment."""
    tracemalloc.start()
    run()
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    return most / 2**20


def exhaust(stream: Iterator, n: int) -> None:
    for _ in islice(stream, n):
        pass


def rate(stream: Iterator, n_steps: int, per_step: int) -> float:
    """Snapshots per second of a stream that has begun."""
    next(stream)
    return n_steps * per_step / seconds(lambda: exhaust(stream, n_steps))


class Size:
    """Everything that is measured at one size."""

    def __init__(self, supercell: tuple[int, int, int]):
        structure = Antiperovskites(["Ag3SBr"], supercell, lattice_constants={"Ag3SBr": 4.8})
        self.crystal: Crystal = structure.crystals[0]
        self.ideal = self.crystal.supercell
        self.springs = force_constants(self.ideal)
        self.ensemble = PhononEnsemble([TEMPERATURE], n_snapshots=1, seed=1)
        self.phonon = self.crystal.phonopy()
        self.phonon.force_constants = self.springs
        self.sampler: RandomDisplacements | None = None
        self.model: HarmonicModel | None = None

    def make_model(self) -> None:
        self.model = harmonic_model(
            self.ideal, self.springs, Instabilities("error", 0.1), self.crystal.translations
        )

    def make_sampler(self) -> None:
        self.sampler = RandomDisplacements(
            self.phonon.supercell, self.phonon.primitive, self.springs, cutoff_frequency=0.01
        )

    def batches(self) -> Iterator:
        return self.ensemble.batches("Ag3SBr", self.model, TEMPERATURE)

    def objects(self) -> Iterator:
        return self.ensemble.snapshots(self.crystal, self.model, TEMPERATURE)

    def phonopy(self, n: int) -> None:
        self.sampler.run(TEMPERATURE, number_of_snapshots=n, random_seed=1)

    def loop(self, n: int) -> None:
        """Phonopy forgets the force constants with each call, so they are set again."""
        for seed in range(n):
            self.phonon.force_constants = self.springs
            self.phonon.generate_displacements(
                number_of_snapshots=1, temperature=TEMPERATURE, random_seed=seed
            )
            assert len(self.phonon.supercells_with_displacements) == 1

    def measured(self, n: int, n_loop: int) -> Row:
        return Row(
            n_atoms=len(self.ideal),
            model=seconds(self.make_model, 1),
            first=seconds(lambda: next(self.batches()), 1),
            phonopy_start=seconds(self.make_sampler, 1),
            n_snapshots=n,
            batches=rate(self.batches(), n // BATCH, BATCH),
            objects=rate(self.objects(), n, 1),
            phonopy=n / seconds(lambda: self.phonopy(n)),
            loop=n_loop / seconds(lambda: self.loop(n_loop), 1),
            memory=peak(lambda: exhaust(self.batches(), n // BATCH)),
            phonopy_memory=peak(lambda: self.phonopy(n)),
        )


def main() -> None:
    print("\nsnapshots per second, Ag3SBr at 300 K, drawn so many at a time")
    print(
        "  atoms snapshots  batches  objects  phonopy    loop  batches/phonopy  batches/loop"
        "    MB  MB phonopy  start s: model  stream  phonopy"
    )
    for supercell, n, n_loop in SIZES:
        row = Size(supercell).measured(n, n_loop)
        print(
            f"{row.n_atoms:7d} {row.n_snapshots:9d} {row.batches:8.0f} {row.objects:8.0f} "
            f"{row.phonopy:8.0f} {row.loop:7.1f} {row.batches / row.phonopy:16.1f} "
            f"{row.batches / row.loop:13.0f} {row.memory:5.0f} {row.phonopy_memory:11.0f} "
            f"{row.model:15.1f} {row.first:7.1f} {row.phonopy_start:8.1f}",
            flush=True,
        )
    small = Size((2, 2, 2))
    small.make_model()
    n = 100_000 // BATCH * BATCH + BATCH
    elapsed = seconds(lambda: exhaust(small.objects(), n), 1)
    print(f"\nstream of {n} snapshots of 40 atoms: {elapsed:.1f} s, ", end="", flush=True)
    print(f"peak {peak(lambda: exhaust(small.objects(), n)):.1f} MB")


if __name__ == "__main__":
    main()
