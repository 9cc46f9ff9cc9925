"""Jobs that compute labels, and the labeller that runs them and fills the label store."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, BrokenExecutor, Executor, Future, wait
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
from ase import Atoms

from schnetpack_phonon.calculators.base import LabellingCalculator
from schnetpack_phonon.common.digests import settings_hash, structure_hash
from schnetpack_phonon.common.errors import DeadWorkerError, LabellingError, MissingLabelsError
from schnetpack_phonon.common.progress import Progress
from schnetpack_phonon.common.properties import Labels
from schnetpack_phonon.labels.monitor.durations import Durations
from schnetpack_phonon.labels.monitor.gaps import Gaps
from schnetpack_phonon.labels.monitor.tally import Tally, reasons
from schnetpack_phonon.labels.store import Input, LabelStore, Record

T = TypeVar("T")
log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Job:
    """A picklable calculation; its key is a hash of everything that determines the result.

    The input is stored with the labels, for readers of the store. The group, of snapshots, is the
    name of the crystal and the temperature or another parameter in words.
    """

    key: str
    description: str
    compute: Callable[..., Labels]
    arguments: tuple[Any, ...]
    input: Input | None = None
    group: tuple[str, str] | None = None


def label_key(settings: dict, code_version: str, atoms: Atoms, task: str = "label") -> str:
    """Key of the labels that a calculator with these settings computes for a structure."""
    return settings_hash([task, settings, code_version, structure_hash(atoms)])


def label_job(
    calculator: LabellingCalculator,
    atoms: Atoms,
    description: str,
    task: str = "label",
    compute: Callable[[Atoms], Labels] | None = None,
    group: tuple[str, str] | None = None,
) -> Job:
    """The labels of one structure.

    Another ``compute`` than the method ``label`` of the calculator needs a ``task`` of its own.
    """
    given = Input(task, description, calculator.code_version, calculator.settings, atoms)
    key = label_key(given.settings, given.code, atoms, task)
    return Job(key, description, compute or calculator.label, (atoms,), given, group)


class Labeller:
    """Runs jobs whose labels are not in the store yet, and stores their labels.

    Args:
        executor: any ``concurrent.futures.Executor``.
        store: receives each record as soon as its job is finished.
        max_failed_share: labelling stops when a larger share of the jobs of a run has failed.
    """

    def __init__(self, executor: Executor, store: LabelStore, max_failed_share: float = 0.1):
        self.executor = executor
        self.store = store
        self.max_failed_share = max_failed_share
        self.tally = Tally()
        self._durations = Durations()

    def run(self, jobs: Iterable[Job], description: str) -> Sequence[Record]:
        """Records of all jobs, in order; each is read from the store when it is needed.

        A job whose worker died in every attempt is recorded as failed, but the next labeller tries
        it again, since it may have more memory.

        Args:
            jobs: may be created during iteration; iterated twice, so not an iterator.
            description: for progress and messages.

        Raises:
            LabellingError: if too many jobs fail, all workers died or the store cannot be
                written.
        """
        order = [job.key for job in jobs]
        keys = set(order)
        missing = {key for key in keys if not self._settled(key)}
        failed = {k: str(self.store[k].error) for k in keys - missing if self.store.failed(k)}
        n_stored = len(keys - missing) if keys - self.tally.keys else 0  # told once
        self.tally.n_stored += len(keys - missing - self.tally.keys)
        self.tally.keys |= keys
        self.tally.failed |= failed
        if missing:
            self.store.prepare()
        if n_stored:
            log.info("%s: %d of %d are in the label store", description, n_stored, len(keys))
        if missing:
            first = next(job.input for job in jobs if job.key in missing)
            known = len(missing), self._n_workers, self.store
            expected = self._durations.expected(first, *known)
            log.info("%s: %d to compute, %s", description, len(missing), expected)
        start, gaps, n_done = time.monotonic(), Gaps(), len(keys) - len(missing)
        try:
            with Progress(description, len(keys), n_done, "calculations") as progress:
                for job, record in self._completed(jobs, missing):
                    self.store.add(record)
                    self._durations.add(record)
                    if record.error:
                        self.tally.failed[job.key] = failed[job.key] = record.error
                        log.warning("%s failed: %s", job.description, record.error)
                    gap = gaps.add(job.group, record.labels)
                    told = [f"{len(failed)} failed"] * bool(failed) + [gap] * bool(gap)
                    progress.update(note=", ".join(told))
                    if self._too_many(failed, keys):
                        break
        finally:
            self.tally.seconds += time.monotonic() - start
        for line in gaps.lines():
            log.info("%s", line)
        if self._too_many(failed, keys):
            raise LabellingError(
                f"{description}: {len(failed)} of {len(keys)} calculations failed, more than the "
                f"allowed share of {self.max_failed_share:g}. Reasons: "
                + "; ".join(reasons(failed.values()))
                + f". Finished labels are safe in {self.store.path}; check the structure and the "
                "settings of the calculator, or raise data.max_failed_share"
            )
        return _Records(self.store, order)

    @property
    def _n_workers(self) -> int:
        return getattr(self.executor, "_max_workers", None) or os.cpu_count() or 1

    def _settled(self, key: str) -> bool:
        """Whether a job need not be run (again)."""
        if key not in self.store:
            return False
        if key in self.tally.failed or not self.store.failed(key):
            return True
        return not str(self.store[key].error).startswith(DeadWorkerError.__name__)

    def _too_many(self, failed: Collection[str], keys: Collection[str]) -> bool:
        return len(failed) > max(self.max_failed_share * len(keys), 1)

    def _completed(self, jobs: Iterable[Job], missing: set[str]) -> Iterator[tuple[Job, Record]]:
        """(job, record) as they finish; a limited number of jobs is submitted at a time."""
        queue: Iterator[Job] = (job for job in (jobs if missing else ()) if job.key in missing)
        running: dict[Future, Job] = {}
        broken: Exception | None = None
        try:
            while True:
                try:
                    while len(running) < 2 * self._n_workers and (job := next(queue, None)):
                        missing.remove(job.key)
                        if self._settled(job.key):  # another process was faster
                            self.tally.n_stored += 1
                            yield job, self.store[job.key]
                        else:
                            future = self.executor.submit(_compute, job.compute, job.arguments)
                            running[future] = job
                    if not running:
                        break
                    for future in wait(running, return_when=FIRST_COMPLETED).done:
                        job = running.pop(future)
                        yield job, self._record(job, future)
                except BrokenExecutor as error:
                    broken, queue = error, iter(())
        finally:
            for future in running:
                future.cancel()
        if broken:
            raise LabellingError(
                f"the workers died: {str(broken).strip() or type(broken).__name__}\n"
                f"{len(self.store)} finished labels are safe in {self.store.path}; run again to "
                "continue"
            ) from broken

    def _record(self, job: Job, future: Future) -> Record:
        try:
            labels, reason, seconds = future.result()
        except DeadWorkerError as error:
            labels, reason, seconds = None, _reason(error), None
        except BrokenExecutor:
            raise
        except Exception as error:
            # Not a failed calculation, which would be a record, but one that cannot be run here:
            # no executable, no memory, no disk.
            raise LabellingError(
                f"{job.description}: {_reason(error)}. "
                f"{len(self.store)} finished labels are safe in {self.store.path}"
            ) from error
        self.tally.n_computed += 1
        self.tally.worker_seconds += seconds or 0.0
        return Record(job.key, labels, reason, job.input, seconds)


class Planner(Labeller):
    """Computes nothing, but finds out which labels are missing.

    Attributes:
        jobs: all that are known, by key.
        missing: purpose -> jobs that are not in the store.
    """

    def __init__(self, store: LabelStore, max_failed_share: float = 0.1):
        super().__init__(Executor(), store, max_failed_share)  # the base class runs nothing
        self.jobs: dict[str, Job] = {}
        self.missing: dict[str, list[Job]] = {}

    def run(self, jobs: Iterable[Job], description: str) -> Sequence[Record]:
        """Records of all jobs, in order.

        Raises:
            MissingLabelsError: if a job is not in the store.
            LabellingError: if too many of them failed.
        """
        own = {job.key: job for job in jobs}
        self.jobs |= own
        if todo := [job for key, job in own.items() if not self._settled(key)]:
            self.missing[description] = todo
            raise MissingLabelsError(f"labels that are not in the store yet: {len(todo)}")
        return super().run(jobs, description)


@dataclass(frozen=True)
class Repeated(Iterable[T]):
    """Items that are created again in each iteration."""

    make: Callable[[], Iterator[T]]

    def __iter__(self) -> Iterator[T]:
        return self.make()


class _Records(Sequence[Record]):
    """Records by their keys, so that labels of 100,000 structures need not be in memory."""

    def __init__(self, store: LabelStore, keys: Sequence[str]):
        self._store = store
        self._keys = keys

    def __len__(self) -> int:
        return len(self._keys)

    def __getitem__(self, index):
        if isinstance(index, slice):
            return _Records(self._store, self._keys[index])
        return self._store[self._keys[index]]


def _compute(
    function: Callable[..., Labels], arguments: tuple
) -> tuple[Labels | None, str | None, float]:
    """Labels or the reason why there are none, and the seconds that the calculation took.

    Runs in a worker. A failed calculation does not stop the run.
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
