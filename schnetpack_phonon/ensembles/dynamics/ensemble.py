"""Snapshots of molecular dynamics with any potential."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor
from dataclasses import replace
from itertools import count
from math import ceil
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms
from ase.geometry import find_mic

from schnetpack_phonon.calculators.base import (
    POTENTIAL_LABELS,
    LabellingCalculator,
    check_gives,
)
from schnetpack_phonon.common.digests import hash_of, settings_hash, structure_hash
from schnetpack_phonon.common.errors import check_at_least, check_positive
from schnetpack_phonon.common.executors import process_pool
from schnetpack_phonon.ensembles.base import SimpleEnsemble, Snapshot, check_thermal
from schnetpack_phonon.ensembles.dynamics.langevin import Langevin
from schnetpack_phonon.ensembles.dynamics.trajectories import Trajectories
from schnetpack_phonon.structures.crystals import Crystal, displaced_positions
from schnetpack_phonon.structures.matching import assigned_order


class MolecularDynamics(SimpleEnsemble):
    """Snapshots of Langevin dynamics in the cell of the crystal (NVT), classical nuclei.

    The dynamics runs when snapshots are first drawn, and is kept in files; interrupted, it
    continues. Successive snapshots of a replica are two correlation times apart, of the energy and
    of the displacements, as measured in the second half of the equilibration. Snapshot k does not
    depend on the number of snapshots.

    Atoms that leave their site are counted (``n_off_site`` of a row): a snapshot has its atoms in
    that order in which the sum of squared displacements is smallest.

    Args:
        temperatures: in K.
        n_snapshots: per crystal and temperature.
        calculator: of energy and forces; None for ``label_calculator``.
        label_calculator: of the labels.
        seed: of the random numbers.
        time_step: in fs.
        friction: in 1/ps.
        equilibration: at the start of each replica, in ps.
        min_interval: between snapshots of a replica, in ps.
        n_replicas: that start from the ideal crystal with different velocities.
        frames_per_parent: so many successive snapshots of a replica stay together when the data are
            split.
        min_distance: of two atoms, as a fraction of the shortest distance in the ideal crystal;
            below it the dynamics is stopped.
        executor: makes the executor that runs the replicas; worker processes by default.
        folder: of the files.
        work_dir: folder in which a relative path starts.
    """

    kind = "md"
    setting_names = (
        "n_snapshots",
        "seed",
        "time_step",
        "friction",
        "equilibration",
        "min_interval",
        "n_replicas",
        "min_distance",
    )

    def __init__(
        self,
        temperatures: Sequence[float],
        n_snapshots: int,
        calculator: LabellingCalculator | None = None,
        label_calculator: LabellingCalculator | None = None,
        seed: int = 2511,
        time_step: float = 2.0,
        friction: float = 5.0,
        equilibration: float = 10.0,
        min_interval: float = 0.1,
        n_replicas: int = 2,
        frames_per_parent: int = 5,
        min_distance: float = 0.6,
        executor: Callable[[], Executor] = process_pool,
        folder: str = "data/dynamics",
        work_dir: str = ".",
    ):
        check_thermal(temperatures)
        check_positive("K", **{"data.ensemble.temperatures": min(temperatures)})
        check_positive("fs", time_step=time_step)
        check_positive("1/ps", friction=friction)
        check_positive("ps", equilibration=equilibration, min_interval=min_interval)
        check_at_least(1, n_snapshots=n_snapshots, n_replicas=n_replicas)
        check_at_least(1, frames_per_parent=frames_per_parent)
        check_at_least(0, seed=seed, min_distance=min_distance)
        potential = calculator or label_calculator
        if potential is None:
            raise ValueError("molecular dynamics needs a potential: set data.ensemble.calculator")
        self.parameters = [float(t) for t in temperatures]
        self.n_snapshots = n_snapshots
        self.calculator = potential
        self.seed = seed
        self.time_step, self.friction = float(time_step), float(friction)
        self.equilibration, self.min_interval = float(equilibration), float(min_interval)
        self.n_replicas, self.similar = n_replicas, frames_per_parent
        self.min_distance = float(min_distance)
        self.executor = executor
        self.folder = Path(work_dir, folder)
        self._known: dict[str, Trajectories] = {}

    @property
    def settings(self) -> dict[str, Any]:
        own = {"frames_per_parent": self.similar, "calculator": self.calculator.settings}
        return super().settings | own

    def temperature(self, parameter: float) -> None:
        return None

    def check(self, crystals: Sequence[Crystal]) -> None:
        """Raises ValueError for a potential without forces, or that does not know an element."""
        check_gives(self.calculator, POTENTIAL_LABELS, "molecular dynamics (data.ensemble)")
        for crystal in crystals:
            self.calculator.check(crystal.supercell)

    def snapshots(self, crystal: Crystal, source: Atoms, parameter: float) -> Iterator[Snapshot]:
        """The samples, a few of each replica after the other; endless."""
        run = self.trajectories(crystal, parameter)
        make = self._maker(crystal, source, parameter)
        run.ensure(run.needed(self._of_each_replica))
        for index in count():
            block, place = divmod(index, self.similar)
            round_, replica = divmod(block, self.n_replicas)
            positions, time = run.sample(replica, round_ * self.similar + place)
            atoms, n_off_site = on_sites(source, positions)
            one = make(atoms, source, index, f"{self.kind}/{parameter!r}/{replica}/{round_}")
            facts = {"replica": replica, "md_time": round(time, 3), "n_off_site": n_off_site}
            yield replace(one, phonons={**facts, "md_code": self.calculator.code_version})

    def trajectories(self, crystal: Crystal, temperature: float) -> Trajectories:
        """The replicas of a crystal at a temperature; run or read when they are needed."""
        ideal = crystal.supercell
        dynamics = Langevin(temperature, self.time_step, self.friction)
        masses = hash_of(ideal.get_masses())
        options = {key: value for key, value in self.settings.items() if key not in _OF_SAMPLES}
        identity = [structure_hash(ideal), masses, temperature, options, crystal.name]
        key = settings_hash([*identity, self.calculator.code_version])
        if key not in self._known:
            self._known[key] = Trajectories(
                f"{crystal.name} at {temperature:g} K",
                ideal,
                self.calculator,
                dynamics,
                self.n_replicas,
                self.equilibration,
                self.min_interval,
                self.min_distance,
                self.seed,
                self.folder / f"{crystal.name}-{temperature:g}K-{key[:9]}",
                self.executor,
            )
        return self._known[key]

    @property
    def _of_each_replica(self) -> int:
        """Samples of a replica among the requested snapshots, at most."""
        n_blocks = ceil(self.n_snapshots / self.similar)
        return ceil(n_blocks / self.n_replicas) * self.similar


# Change no trajectory:
_OF_SAMPLES = ("temperatures", "n_snapshots", "frames_per_parent", "min_interval")
_N_REFINED = 2  # times that the shift of the crystal is taken from the atoms on its sites


def on_sites(ideal: Atoms, positions: np.ndarray) -> tuple[Atoms, int]:
    """Atoms in the order of the sites that they are on, and how many have left their own."""
    shift = np.zeros(3)  # atoms that leave their sites push the others the other way
    for _ in range(_N_REFINED):
        order = assigned_order(ideal, positions - shift)
        u, _ = find_mic(positions[order] - shift - ideal.positions, ideal.cell, ideal.pbc)
        shift = shift + u.mean(axis=0)
    atoms = ideal.copy()
    atoms.positions = displaced_positions(ideal, u)
    return atoms, int((order != np.arange(len(order))).sum())
