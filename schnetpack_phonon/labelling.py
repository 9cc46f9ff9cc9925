"""Jobs that give labels, and an executor that runs them and fills the label store."""

from __future__ import annotations

import hashlib
import json
import logging
import os
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Executor, Future, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from typing import Any, TypeVar

import loky
import numpy as np
from ase import Atoms
from tqdm import tqdm

from schnetpack_phonon.calculators import LabellingCalculator, Labels
from schnetpack_phonon.label_store import Input, LabellingError, LabelStore, Record
from schnetpack_phonon.relaxation import relax, relax_ions
from schnetpack_phonon.structures import Crystal

T = TypeVar("T")

log = logging.getLogger(__name__)

_WORKER_DEATH = (BrokenProcessPool, loky.BrokenProcessPool)
_LOG_INTERVAL = 30.0  # seconds between progress lines where there is no terminal


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


def settings_hash(settings: Any) -> str:
    """Short hash of plain values; starts with a letter, so that no reader takes it for a number."""
    text = json.dumps(settings, sort_keys=True)
    return "h" + hashlib.sha256(text.encode()).hexdigest()[:16]


def _structure_hash(atoms: Atoms) -> str:
    digest = hashlib.sha256()
    # Rounded to 1e-10 Ang: far below any label's accuracy, far above rounding of the same input.
    for array in (atoms.numbers, atoms.positions.round(10), atoms.cell.array.round(10), atoms.pbc):
        digest.update(np.ascontiguousarray(array + 0).tobytes())
    return digest.hexdigest()[:24]


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
    return settings_hash([task, settings, code_version, _structure_hash(atoms)])


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
    identity = [settings, code, _structure_hash(crystal.unitcell), crystal.supercell_matrix]
    key = settings_hash(["relax", *identity])
    given = Input("relax", crystal.name, code, settings, crystal.supercell)
    return Job(key, f"relax {crystal.name}", _relaxed, (calculator, crystal), given)


def _relaxed(calculator: LabellingCalculator, crystal: Crystal) -> Labels:
    atoms = relax(calculator, crystal)
    return {"cell": atoms.cell.array, "positions": atoms.positions}


def process_pool(max_workers: int | None = None, threads_per_worker: int = 1) -> Executor:
    """Worker processes on this machine, each with its own number of threads.

    Args:
        max_workers: all usable cores divided by ``threads_per_worker`` by default.
        threads_per_worker: OpenMP and BLAS threads of one worker. One is the fastest for small
            cells: a 40-atom label is no faster with four.
    """
    threads = str(threads_per_worker)
    names = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
    return loky.ProcessPoolExecutor(
        max_workers=max_workers or max(loky.cpu_count() // threads_per_worker, 1),
        env=dict.fromkeys(names, threads),
        initializer=_exit_with_parent,
        initargs=(os.getpid(),),
    )


def _exit_with_parent(parent: int) -> None:
    """Ends a worker whose parent was killed; it would wait for work for ever."""

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(1)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


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

    def run(self, jobs: Iterable[Job], description: str) -> Sequence[Record]:
        """Records of all jobs, in order, each read from the store when it is asked for.

        Args:
            jobs: may be made on the way; gone through twice, so no iterator.
            description: for progress and messages.

        Raises:
            LabellingError: when too many jobs fail, a worker dies or the store cannot be written.
        """
        order = [job.key for job in jobs]
        keys = set(order)
        missing = {key for key in keys if key not in self.store}
        failed = [key for key in keys - missing if self.store.failed(key)]
        if missing:
            self.store.prepare()
        with _Progress(description, total=len(keys), done=len(keys) - len(missing)) as progress:
            for job, record in self._completed(jobs, missing):
                self.store.add(record)
                if record.error:
                    failed.append(job.key)
                    log.warning("%s failed: %s", job.description, record.error)
                progress.update(len(failed))
                if len(failed) > max(self.max_failed_share * len(keys), 1):
                    break
        if len(failed) > max(self.max_failed_share * len(keys), 1):
            reasons = sorted({str(self.store[key].error) for key in failed})
            raise LabellingError(
                f"{description}: {len(failed)} of {len(keys)} calculations failed, more than the "
                f"share of {self.max_failed_share:g} that is allowed. Reasons: "
                + "; ".join(reasons[:3])
                + f". Finished labels are safe in {self.store.path}; look at the structure and the "
                "calculator's settings, or raise data.max_failed_share"
            )
        return _Records(self.store, order)

    def _completed(self, jobs: Iterable[Job], missing: set[str]) -> Iterator[tuple[Job, Record]]:
        """(job, record) as they complete, with a bounded number of jobs in flight."""
        todo = (job for job in jobs if job.key in missing)
        queue: Iterator[Job] = todo if missing else iter(())
        running: dict[Future, Job] = {}
        death: Exception | None = None
        try:
            while True:
                try:
                    n_most = 2 * _n_workers(self.executor)
                    while len(running) < n_most and (job := next(queue, None)):
                        missing.remove(job.key)
                        if job.key in self.store:  # another process was faster
                            yield job, self.store[job.key]
                        else:
                            future = self.executor.submit(_compute, job.compute, job.arguments)
                            running[future] = job
                except _WORKER_DEATH as error:
                    death, queue = error, iter(())
                if not running:
                    break
                for future in wait(running, return_when=FIRST_COMPLETED).done:
                    job = running.pop(future)
                    try:
                        labels, reason = future.result()
                    except _WORKER_DEATH as error:
                        death, queue = error, iter(())
                    except Exception as error:
                        # Not a calculation that failed, which is a record, but one that could not
                        # be done here: no executable, no memory, no disk.
                        raise LabellingError(
                            f"{job.description}: {type(error).__name__}: {error}. "
                            f"{len(self.store)} finished labels are safe in {self.store.path}"
                        ) from error
                    else:
                        yield job, Record(job.key, labels, reason, job.input)
        finally:
            for future in running:
                future.cancel()
        if death:
            raise LabellingError(
                "a worker process died, perhaps for want of memory. "
                f"{len(self.store)} finished labels are safe in {self.store.path}; run again to go "
                "on, with fewer workers (data.executor.max_workers) if memory was short"
            ) from death


class MissingLabelsError(LabellingError):
    """Labels are asked for that are not in the store, where none are computed."""


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
        todo = {job.key: job for job in jobs if job.key not in self.store}
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


def _compute(function: Callable[..., Labels], arguments: tuple) -> tuple[Labels | None, str | None]:
    """Runs in a worker: a calculation that fails is a record, not the end of the run."""
    try:
        return function(*arguments), None
    except (RuntimeError, ValueError, ArithmeticError, np.linalg.LinAlgError) as error:
        return None, f"{type(error).__name__}: {error}"


class _Progress:
    """A bar on a terminal, a line every half minute in a log file."""

    def __init__(self, description: str, total: int, done: int):
        self._terminal = sys.stderr.isatty()
        self._bar = tqdm(
            desc=description,
            total=total,
            initial=done,
            unit="label",
            disable=not self._terminal or done == total,
        )
        self._description, self._total = description, total
        self._initial = self._done = done
        self._start = self._logged = time.monotonic()
        self._failed = 0
        if done:
            log.info("%s: %d of %d are in the label store", description, done, total)

    def __enter__(self) -> _Progress:
        return self

    def update(self, failed: int) -> None:
        self._done += 1
        if failed != self._failed:
            self._failed = failed
            self._bar.set_postfix(failed=failed)
        self._bar.update()
        if not self._terminal and time.monotonic() - self._logged > _LOG_INTERVAL:
            self._logged = time.monotonic()
            self._log()

    def __exit__(self, *_: object) -> None:
        self._bar.close()
        if self._done > self._initial:
            self._log()

    def _log(self) -> None:
        seconds = time.monotonic() - self._start
        rate = (self._done - self._initial) / seconds
        log.info(
            "%s: %d of %d, %.2f per second, %.0f s left, %d failed",
            self._description,
            self._done,
            self._total,
            rate,
            (self._total - self._done) / rate,
            self._failed,
        )
