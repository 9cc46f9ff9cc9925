"""Worker processes: their threads, time limits and crashes."""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import BrokenExecutor, Executor, Future, ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from multiprocessing.util import Finalize
from typing import Any, TypeVar

import loky
import loky.process_executor
from ase.calculators.calculator import CalculationFailed

from schnetpack_phonon.common.errors import N_TRIES, DeadWorkerError, check_at_least

log = logging.getLogger(__name__)

THREAD_VARIABLES = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
_GROWTH = 2**31  # bytes by which a worker process may grow; PyTorch takes 6e8
Result = TypeVar("Result")


def process_pool(max_workers: int | None = None, threads_per_worker: int = 1) -> Executor:
    """Worker processes on this machine, each with its own number of threads.

    A worker that dies is replaced and its job repeated; other jobs are not affected. A job whose
    worker dies every time raises :class:`DeadWorkerError`.

    Args:
        max_workers: all usable cores divided by ``threads_per_worker`` by default.
        threads_per_worker: OpenMP and BLAS threads of one worker. One is the fastest for small
            cells: a 40-atom label is no faster with four.

    Raises:
        ValueError: for less than one of either.
    """
    check_at_least(1, threads_per_worker=threads_per_worker)
    if max_workers is not None:
        check_at_least(1, max_workers=max_workers)
    n_workers = max_workers or max(loky.cpu_count() // threads_per_worker, 1)
    return _ProcessPool(n_workers, dict.fromkeys(THREAD_VARIABLES, str(threads_per_worker)))


@contextmanager
def shut_down(executor: Executor) -> Iterator[None]:
    """Shuts an executor down at the end; on errors its workers are killed, where it can do that."""
    try:
        yield
    except BaseException:
        try:
            executor.shutdown(kill_workers=True)  # type: ignore[call-arg]
        except TypeError:
            executor.shutdown(wait=False, cancel_futures=True)
        raise
    executor.shutdown()


def call_within(seconds: float | None, function: Callable[..., Result], *arguments: Any) -> Result:
    """Calls a function in a companion process, which is killed after a time limit.

    Signals do not interrupt compiled code, but a process can always be killed. The process stays
    for further calls of the same thread. Arguments must be picklable. Without a limit the function
    is called in this process.

    Raises:
        CalculationFailed: if it takes longer than ``seconds``.
        DeadWorkerError: if the process dies.
    """
    if seconds is None:
        return function(*arguments)
    return call_apart(function, *arguments, seconds=seconds)


def call_apart(
    function: Callable[..., Result], *arguments: Any, seconds: float | None = None
) -> Result:
    """As :func:`call_within`, in a companion process even without a time limit.

    A function that kills its process does not kill the one that asked for it.
    """
    if not hasattr(_beside, "companion"):
        _beside.companion = _Companion()
        # A worker process that ends waits for its own processes, which wait for work.
        Finalize(None, _beside.companion.kill, exitpriority=0)
    return _beside.companion.call(function, *arguments, seconds=seconds)


_beside = threading.local()


def exit_with_parent(parent: int) -> None:
    """Ends this process when its parent is killed; otherwise it would wait for work forever."""

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(1)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


class _Companion:
    """A process that is started when it is needed, and again after it died.

    Args:
        environment: variables to set in it.
    """

    def __init__(self, environment: dict[str, str] | None = None):
        self._environment = environment
        self._pool: loky.ProcessPoolExecutor | None = None
        self._killed = False

    def call(
        self, function: Callable[..., Result], *arguments: Any, seconds: float | None = None
    ) -> Result:
        for _ in range(N_TRIES):
            try:
                return self._call(function, arguments, seconds)
            except BrokenExecutor as error:
                if self._killed:
                    raise
                log.info("a worker process died: %s", str(error).splitlines()[0])
                self._end()
        raise DeadWorkerError

    def _call(
        self, function: Callable[..., Result], arguments: tuple, seconds: float | None
    ) -> Result:
        future = self._submitted(function, arguments)
        try:
            return future.result(seconds)
        except TimeoutError as error:
            if future.done():
                raise  # the function's own
            self._end()
            raise CalculationFailed(
                f"the calculation took longer than {seconds:g} s: raise data.calculator.time_limit"
            ) from error

    def _submitted(
        self, function: Callable[..., Result], arguments: tuple, tries: int = N_TRIES
    ) -> Future[Result]:
        """The call in a process that lives; one that died before is not the fault of the call."""
        try:
            pool = self._pool or self._started(function, arguments)
            future: Future[Result] = pool.submit(function, *arguments)
            return future
        except BrokenExecutor:
            if tries == 1 or self._killed:
                raise
            self._end()
            return self._submitted(function, arguments, tries - 1)

    def _started(self, function: Callable[..., Any], arguments: tuple) -> loky.ProcessPoolExecutor:
        pool = self._pool = loky.ProcessPoolExecutor(
            max_workers=1,
            env=self._environment,
            initializer=_begin,
            initargs=(os.getpid(),),
        )
        if self._killed:
            self._end()
            raise BrokenExecutor("the pool was shut down")
        # The start of the process and its imports do not count.
        pool.submit(_nothing, function, arguments).result()
        return pool

    def kill(self) -> None:
        """Ends the process at once, and starts no other."""
        self._killed = True
        self._end()

    def _end(self) -> None:
        pool, self._pool = self._pool, None
        if pool is not None:
            pool.shutdown(kill_workers=True)


def _begin(parent: int) -> None:
    """Of a worker process; loading PyTorch is not yet growth for which loky replaces it."""
    loky.process_executor._MAX_MEMORY_LEAK_SIZE = _GROWTH
    exit_with_parent(parent)


def _nothing(*_: object) -> None:
    pass


class _ProcessPool(ThreadPoolExecutor):
    """One thread for each worker process, so that a process that dies affects its own job only.

    Executors of many processes cannot tell which job killed a process, and drop all jobs.
    """

    def __init__(self, n_workers: int, environment: dict[str, str]):
        self._companions: list[_Companion] = []
        self._killed = False
        super().__init__(n_workers, initializer=self._add_companion, initargs=(environment,))

    def _add_companion(self, environment: dict[str, str]) -> None:
        _beside.companion = _Companion(environment)
        self._companions.append(_beside.companion)
        if self._killed:
            _beside.companion.kill()

    def submit(self, function: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future:
        return super().submit(_call_beside, partial(function, *args, **kwargs))

    def shutdown(
        self, wait: bool = True, *, cancel_futures: bool = False, kill_workers: bool = False
    ) -> None:
        self._killed = kill_workers
        super().shutdown(wait and not kill_workers, cancel_futures=cancel_futures or kill_workers)
        if wait or kill_workers:
            for companion in self._companions:
                companion.kill()


def _call_beside(function: Callable[[], Any]) -> Any:
    return _beside.companion.call(function)
