"""Jobs that give labels, and an executor that runs them and fills the label store."""

from __future__ import annotations

import logging
import os
import time
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, BrokenExecutor, Executor, Future, wait
from dataclasses import dataclass, field
from typing import Any, TypeVar

import numpy as np
from ase import Atoms

from schnetpack_phonon.calculators.base import LabellingCalculator
from schnetpack_phonon.common.digests import settings_hash, structure_hash
from schnetpack_phonon.common.errors import DeadWorkerError, LabellingError, MissingLabelsError
from schnetpack_phonon.common.progress import Progress, duration, rate
from schnetpack_phonon.common.properties import Labels
from schnetpack_phonon.labels.relaxation import relax, relax_ions
from schnetpack_phonon.labels.store import Input, LabelStore, Record
from schnetpack_phonon.structures.crystals import Crystal

T = TypeVar("T")


log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Job:
    """A picklable computation, identified by a hash of all that determines its result.

    Its input is kept beside the labels, for people.
    """

    key: str
    description: str
    compute: Callable[..., Labels]
    arguments: tuple[Any, ...]
    input: Input | None = None


def _job(
    task: str,
    calculator: LabellingCalculator,
    atoms: Atoms,
    description: str,
    compute: Callable[..., Labels],
    arguments: tuple[Any, ...],
) -> Job:
    given = Input(task, description, calculator.code_version, calculator.settings, atoms)
    key = _key(task, given.settings, given.code, atoms)
    return Job(key, description, compute, arguments, given)


def _key(task: str, settings: dict[str, Any], code_version: str, atoms: Atoms) -> str:
    return settings_hash([task, settings, code_version, structure_hash(atoms)])


def label_key(settings: dict[str, Any], code_version: str, atoms: Atoms) -> str:
    """Key of the labels that a calculator of these settings gives for a structure."""
    return _key("label", settings, code_version, atoms)


def label_job(calculator: LabellingCalculator, atoms: Atoms, description: str) -> Job:
    """The labels of one structure."""
    return _job("label", calculator, atoms, description, calculator.label, (atoms,))


def relaxed_label_job(calculator: LabellingCalculator, atoms: Atoms, description: str) -> Job:
    """The labels of one structure after its atoms relaxed in the cell as it is."""
    arguments = (calculator, atoms)
    return _job("label relaxed", calculator, atoms, description, _relaxed_label, arguments)


def _relaxed_label(calculator: LabellingCalculator, atoms: Atoms) -> Labels:
    return calculator.label(relax_ions(calculator, atoms))


def relax_job(calculator: LabellingCalculator, crystal: Crystal) -> Job:
    """Cell and positions of a crystal's unit cell relaxed with the calculator."""
    settings, code = calculator.settings, calculator.code_version
    identity = [settings, code, structure_hash(crystal.unitcell), crystal.supercell_matrix]
    key = settings_hash(["relax", *identity])
    given = Input("relax", crystal.name, code, settings, crystal.supercell)
    return Job(key, f"relax {crystal.name}", _relaxed, (calculator, crystal), given)


def _relaxed(calculator: LabellingCalculator, crystal: Crystal) -> Labels:
    atoms = relax(calculator, crystal)
    return {"cell": atoms.cell.array, "positions": atoms.positions}


class Labeller:
    """Runs jobs that are not in the store yet and stores what they give.

    Args:
        executor: any ``concurrent.futures.Executor``.
        store: where records go, one by one, as they come.
        max_failed_share: stop when more than this share of the jobs of a run failed.
    """

    def __init__(self, executor: Executor, store: LabelStore, max_failed_share: float = 0.1):
        self.executor = executor
        self.store = store
        self.max_failed_share = max_failed_share
        self.tally = Tally()

    def run(self, jobs: Iterable[Job], description: str) -> Sequence[Record]:
        """Records of all jobs, in order, each read from the store when it is asked for.

        A job whose worker died each time that it was tried is recorded as failed, but tried again
        by the next labeller, which may have more memory.

        Args:
            jobs: may be made on the way; gone through twice, so no iterator.
            description: for progress and messages.

        Raises:
            LabellingError: when too many jobs fail, all workers are gone or the store cannot be
                written.
        """
        order = [job.key for job in jobs]
        keys = set(order)
        missing = {key for key in keys if not self._settled(key)}
        failed = {k: str(self.store[k].error) for k in keys - missing if self.store.failed(k)}
        self.tally.n_stored += len(keys - missing - self.tally.keys)
        self.tally.keys |= keys
        self.tally.failed |= failed
        if missing:
            self.store.prepare()
        start = time.monotonic()
        try:
            with Progress(description, len(keys), len(keys) - len(missing)) as progress:
                for job, record in self._completed(jobs, missing):
                    self.store.add(record)
                    if record.error:
                        self.tally.failed[job.key] = failed[job.key] = record.error
                        log.warning("%s failed: %s", job.description, record.error)
                    progress.update(failed=len(failed))
                    if self._too_many(failed, keys):
                        break
        finally:
            self.tally.seconds += time.monotonic() - start
        if self._too_many(failed, keys):
            raise LabellingError(
                f"{description}: {len(failed)} of {len(keys)} calculations failed, more than the "
                f"share of {self.max_failed_share:g} that is allowed. Reasons: "
                + "; ".join(reasons(failed.values()))
                + f". Finished labels are safe in {self.store.path}; look at the structure and the "
                "calculator's settings, or raise data.max_failed_share"
            )
        return _Records(self.store, order)

    def _settled(self, key: str) -> bool:
        """Whether there is nothing more to be found out about a job."""
        if key not in self.store:
            return False
        if key in self.tally.failed or not self.store.failed(key):
            return True
        return not str(self.store[key].error).startswith(DeadWorkerError.__name__)

    def _too_many(self, failed: Collection[str], keys: Collection[str]) -> bool:
        return len(failed) > max(self.max_failed_share * len(keys), 1)

    def _completed(self, jobs: Iterable[Job], missing: set[str]) -> Iterator[tuple[Job, Record]]:
        """(job, record) as they complete, with a bounded number of jobs in flight."""
        todo = (job for job in jobs if job.key in missing)
        queue: Iterator[Job] = todo if missing else iter(())
        running: dict[Future, Job] = {}
        broken: Exception | None = None
        try:
            while True:
                try:
                    n_most = 2 * _n_workers(self.executor)
                    while len(running) < n_most and (job := next(queue, None)):
                        missing.remove(job.key)
                        if self._settled(job.key):  # another process was faster
                            self.tally.n_stored += 1
                            yield job, self.store[job.key]
                        else:
                            future = self.executor.submit(_compute, job.compute, job.arguments)
                            running[future] = job
                except BrokenExecutor as error:
                    broken, queue = error, iter(())
                if not running:
                    break
                for future in wait(running, return_when=FIRST_COMPLETED).done:
                    job = running.pop(future)
                    try:
                        yield job, self._record(job, future)
                    except BrokenExecutor as error:
                        broken, queue = error, iter(())
        finally:
            for future in running:
                future.cancel()
        if broken:
            raise LabellingError(
                f"the workers are gone: {str(broken).strip() or type(broken).__name__}\n"
                f"{len(self.store)} finished labels are safe in {self.store.path}; run again to go "
                "on"
            ) from broken

    def _record(self, job: Job, future: Future) -> Record:
        try:
            labels, reason, seconds = future.result()
        except DeadWorkerError as error:
            labels, reason, seconds = None, _reason(error), None
        except BrokenExecutor:
            raise
        except Exception as error:
            # Not a calculation that failed, which is a record, but one that could not be done
            # here: no executable, no memory, no disk.
            raise LabellingError(
                f"{job.description}: {_reason(error)}. "
                f"{len(self.store)} finished labels are safe in {self.store.path}"
            ) from error
        self.tally.n_computed += 1
        self.tally.worker_seconds += seconds or 0.0
        return Record(job.key, labels, reason, job.input, seconds)


class Planner(Labeller):
    """Computes nothing: tells which labels would have to be.

    Attributes:
        missing: what for -> jobs that are not in the store.
    """

    def __init__(self, store: LabelStore, max_failed_share: float = 0.1):
        super().__init__(Executor(), store, max_failed_share)  # the base class, which runs nothing
        self.missing: dict[str, list[Job]] = {}

    def run(self, jobs: Iterable[Job], description: str) -> Sequence[Record]:
        """Records of all jobs, in order.

        Raises:
            MissingLabelsError: if they are not all in the store.
            LabellingError: if too many of them failed.
        """
        todo = {job.key: job for job in jobs if not self._settled(job.key)}
        if todo:
            self.missing[description] = list(todo.values())
            raise MissingLabelsError(f"labels that are not in the store yet: {len(todo)}")
        return super().run(jobs, description)


@dataclass(frozen=True)
class Repeated(Iterable[T]):
    """Items that are made anew each time that they are gone through."""

    make: Callable[[], Iterator[T]]

    def __iter__(self) -> Iterator[T]:
        return self.make()


class _Records(Sequence[Record]):
    """Records by their keys; labels of 100,000 structures need not be in memory at once."""

    def __init__(self, store: LabelStore, keys: Sequence[str]):
        self._store = store
        self._keys = keys

    def __len__(self) -> int:
        return len(self._keys)

    def __getitem__(self, index):
        if isinstance(index, slice):
            return _Records(self._store, self._keys[index])
        return self._store[self._keys[index]]


def _n_workers(executor: Executor) -> int:
    return getattr(executor, "_max_workers", None) or os.cpu_count() or 1


def _compute(
    function: Callable[..., Labels], arguments: tuple
) -> tuple[Labels | None, str | None, float]:
    """Runs in a worker: a calculation that fails is a record, not the end of the run.

    Returns:
        Labels or the reason why there are none, and the seconds that it took.
    """
    start = time.perf_counter()
    labels, reason = None, None
    try:
        labels = function(*arguments)
    except (RuntimeError, ValueError, ArithmeticError, np.linalg.LinAlgError) as error:
        reason = _reason(error)
    return labels, reason, time.perf_counter() - start


def _reason(error: Exception) -> str:
    return f"{type(error).__name__}: {error}"


_N_REASONS = 3  # of failures that are told, the most frequent ones


@dataclass
class Tally:
    """What became of the jobs of a labeller.

    Attributes:
        keys: of all jobs that were asked for.
        n_stored: how many were in the store, also because another process computed them.
        n_computed: how many were computed, successfully or not.
        failed: key -> reason.
        seconds: that it took.
        worker_seconds: that the calculations took, all workers together.
    """

    keys: set[str] = field(default_factory=set)
    n_stored: int = 0
    n_computed: int = 0
    failed: dict[str, str] = field(default_factory=dict)
    seconds: float = 0.0
    worker_seconds: float = 0.0

    def __str__(self) -> str:
        text = f"{len(self.keys)} calculations: {self.n_stored} in the store"
        if self.n_computed:
            hours = f"{self.worker_seconds / 3600:.3g} hours of workers"
            text += (
                f", {self.n_computed} computed in {duration(self.seconds)} "
                f"({rate(self.n_computed, self.seconds)}; {hours})"
            )
        text += f", {len(self.failed)} failed"
        if left := len(self.keys) - self.n_stored - self.n_computed:
            text += f", {left} not done"
        return text + "".join(f"\n    {reason}" for reason in reasons(self.failed.values()))


def reasons(errors: Iterable[str]) -> list[str]:
    """The most frequent ones, with how often they occur."""
    return [f"{count} x {error}" for error, count in Counter(errors).most_common(_N_REASONS)]
