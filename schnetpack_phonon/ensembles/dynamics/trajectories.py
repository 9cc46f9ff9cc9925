"""Trajectories of one crystal at one temperature, kept in files stretch by stretch."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import FIRST_COMPLETED, Executor, Future, wait
from dataclasses import asdict, dataclass, field
from functools import cached_property
from math import ceil
from pathlib import Path

import numpy as np
from ase import Atoms
from ase.calculators.calculator import CalculationFailed

from schnetpack_phonon.calculators.base import LabellingCalculator
from schnetpack_phonon.common.executors import shut_down
from schnetpack_phonon.common.files import locked, read_npz, replacing
from schnetpack_phonon.common.progress import Progress
from schnetpack_phonon.common.random import snapshot_stream
from schnetpack_phonon.ensembles.dynamics.checks import (
    DynamicsError,
    EndedError,
    check_equilibrium,
    check_stretch,
)
from schnetpack_phonon.ensembles.dynamics.langevin import (
    Langevin,
    State,
    Stretch,
    advance,
    initial_state,
)
from schnetpack_phonon.ensembles.dynamics.sampling import correlation_time

log = logging.getLogger(__name__)
_ENOUGH = 5.0  # correlation times in the time over which they are measured


@dataclass
class Trajectories:
    """Replicas of one dynamics: each stretch depends on the one before it and on the seed only.

    Attributes:
        what: crystal and temperature, for messages.
        ideal: the supercell at rest, where all start.
        calculator: of energy and forces.
        dynamics: options of the integrator.
        n_replicas: that start with different velocities.
        equilibration: left out of the samples, in ps; twice at least two stretches. In its second
            half temperature and correlation times are measured.
        min_interval: between samples, in ps.
        min_distance: :func:`.check_stretch`.
        seed: of the random numbers.
        folder: of the files; whose name holds all that changes a trajectory.
        executor: makes the executor that runs the replicas; called only if needed.
    """

    what: str
    ideal: Atoms
    calculator: LabellingCalculator
    dynamics: Langevin
    n_replicas: int
    equilibration: float
    min_interval: float
    min_distance: float
    seed: int
    folder: Path
    executor: Callable[[], Executor]
    replicas: list[list[Stretch]] = field(init=False)

    def __post_init__(self) -> None:
        self.replicas = [[] for _ in range(self.n_replicas)]

    @property
    def n_equilibration(self) -> int:
        """Stretches of equilibration; an even number."""
        return 2 * max(ceil(self.equilibration / self.dynamics.stretch_time / 2), 1)

    @cached_property
    def correlation_times(self) -> dict[str, float]:
        """Of energy and displacements in the second half of the equilibration, in ps."""
        self.ensure(self.n_equilibration)
        every = self.dynamics.record_time
        found: dict[str, list[float]] = {"energy": [], "displacements": []}
        for stretches in self.replicas:
            own = stretches[self.n_equilibration // 2 : self.n_equilibration]
            energies = np.concatenate([stretch.potential for stretch in own])
            positions = np.concatenate([stretch.positions for stretch in own])
            found["energy"].append(correlation_time(energies[:, None], every))
            motion = correlation_time(positions.reshape(len(positions), -1), every)
            found["displacements"].append(motion)
        return {name: float(np.mean(times)) for name, times in found.items()}

    @cached_property
    def interval(self) -> int:
        """Records between samples: two correlation times of energy and displacements."""
        times = self.correlation_times
        longest, measured = max(times.values()), self.measured_time
        log.info(
            "dynamics of %s: correlation times %s", self.what, _in_words(times, self.min_interval)
        )
        if _ENOUGH * longest > measured:
            log.warning(
                "dynamics of %s: a correlation time of %.2g ps is not certain from %.3g ps: raise "
                "data.ensemble.equilibration to %.3g (ps)",
                self.what,
                longest,
                measured,
                2 * _ENOUGH * longest,
            )
        return max(ceil(max(self.min_interval, 2 * longest) / self.dynamics.record_time), 1)

    @property
    def measured_time(self) -> float:
        """Half of the equilibration, in ps."""
        return self.n_equilibration / 2 * self.dynamics.stretch_time

    def sample(self, replica: int, number: int) -> tuple[np.ndarray, float]:
        """Positions in Ang, not wrapped, shape=(n_atoms, 3), and the time in ps of a sample."""
        record = (number + 1) * self.interval - 1
        self.ensure(self.needed(number + 1))
        stretch, row = divmod(record, self.dynamics.n_records)
        found = self.replicas[replica][self.n_equilibration + stretch]
        first = self.n_equilibration * self.dynamics.n_records
        return found.positions[row], (first + record + 1) * self.dynamics.record_time

    def needed(self, n_samples: int) -> int:
        """Stretches of a replica that hold its first samples."""
        return self.n_equilibration + ceil(n_samples * self.interval / self.dynamics.n_records)

    def ensure(self, n_stretches: int) -> None:
        """Reads or runs the first stretches of all replicas.

        Raises:
            DynamicsError: if a replica leaves what is sane, or its forces cannot be calculated; the
                stretches before are kept.
        """
        for error in self._ended(n_stretches):
            raise error

    def explore(self, n_stretches: int) -> dict[int, str]:
        """As :meth:`ensure`, but a replica that leaves what is sane ends alone.

        Returns:
            Of each such replica, why; its stretches before that are kept, and it is not run again.
        """
        for error in self._ended(n_stretches):
            file = self._why(error.replica)
            file.parent.mkdir(exist_ok=True)
            with replacing(file) as part:
                part.write_text(str(error))
        found = {k: self._why(k) for k in range(self.n_replicas)}
        return {k: file.read_text() for k, file in found.items() if file.is_file()}

    def _ended(self, n_stretches: int) -> Iterator[EndedError]:
        """Reads or runs what is missing; errors of the replicas that end."""
        if min(map(len, self.replicas)) >= n_stretches:
            return
        self.folder.mkdir(parents=True, exist_ok=True)
        waiting = f"another process runs the dynamics of {self.what}: waiting for it"
        with locked(self.folder / "dynamics", waiting):
            missing = {}
            for number, stretches in enumerate(self.replicas):
                while (file := self._file(number, len(stretches))).is_file():
                    stretches.append(Stretch(**read_npz(file)))
                if (n_missing := n_stretches - len(stretches)) > 0:
                    if self._why(number).is_file():
                        yield EndedError(self._why(number).read_text(), number)
                    else:
                        missing[number] = n_missing
            if missing:
                yield from self._run(n_stretches, missing)

    def _run(self, n_stretches: int, missing: Mapping[int, int]) -> Iterator[EndedError]:
        executor = self.executor()
        running: dict[Future[Stretch], int] = {}

        def submit(replica: int) -> None:
            if len(self.replicas[replica]) < n_stretches:
                running[executor.submit(_advance, *self._arguments(replica))] = replica

        title, n_missing = f"dynamics of {self.what}", sum(missing.values())
        with shut_down(executor), Progress(title, n_missing, unit="stretches") as progress:
            for replica in missing:
                submit(replica)
            while running:
                for future in wait(running, return_when=FIRST_COMPLETED).done:
                    replica = running.pop(future)
                    try:
                        self._add(replica, future)
                    except DynamicsError as error:
                        yield EndedError(str(error), replica)
                        continue
                    progress.update()
                    submit(replica)

    def _add(self, replica: int, future: Future[Stretch]) -> None:
        stretches = self.replicas[replica]
        time = len(stretches) * self.dynamics.stretch_time
        where = f"dynamics of {self.what}, replica {replica} after {time:.3g} ps"
        try:
            stretch = future.result()
        except (CalculationFailed, ValueError, ArithmeticError) as error:
            raise DynamicsError(f"{where}: {type(error).__name__}: {error}") from error
        settled = len(stretches) >= self.n_equilibration // 2
        check_stretch(where, self.ideal, self.dynamics, stretch, self.min_distance, settled)
        found = [*stretches, stretch]
        if len(found) >= self.n_equilibration:
            last = found[-(self.n_equilibration // 2) :]
            check_equilibrium(where, self.ideal, self.dynamics, last)
        file = self._file(replica, len(stretches))
        file.parent.mkdir(exist_ok=True)
        with replacing(file) as part:
            np.savez(part, **asdict(stretch))
        stretches.append(stretch)

    def _arguments(self, replica: int) -> tuple:
        stretches = self.replicas[replica]
        if stretches:
            state = stretches[-1].end
        else:
            stream = snapshot_stream(self.seed, f"{self.what}/md/start", replica)
            state = initial_state(self.ideal, self.dynamics.temperature, stream)
        stream = snapshot_stream(self.seed, f"{self.what}/md/{replica}", len(stretches))
        return self.ideal, self.calculator, self.dynamics, state, stream

    def _file(self, replica: int, number: int) -> Path:
        return self.folder / f"replica_{replica}" / f"{number:05d}.npz"

    def _why(self, replica: int) -> Path:
        return self.folder / f"replica_{replica}" / "ended.txt"


def _advance(
    ideal: Atoms,
    calculator: LabellingCalculator,
    dynamics: Langevin,
    state: State,
    stream: np.random.Generator,
) -> Stretch:
    return advance(ideal, calculator.ase_calculator(), dynamics, state, stream)


def _in_words(times: dict[str, float], least: float) -> str:
    found = ", ".join(f"{name} {time:.2f} ps" for name, time in times.items())
    interval = max(2 * max(times.values()), least)
    return f"{found}: a snapshot each {interval:.2f} ps"
