"""Labels on a cluster: pilot jobs of Parsl as a ``concurrent.futures`` executor.

A pilot job is a batch job whose workers compute one label after another for the process that writes
the database, until no label is left or the walltime is over; then another job replaces it. If a
worker or a job ends before its label is finished, another worker computes the label.

References:
    Babuji et al., Parsl: Pervasive Parallel Programming in Python, HPDC '19, 25 (2019).
"""

from __future__ import annotations

import logging
import os
import re
import runpy
import sys
from collections.abc import Callable, Sequence
from concurrent.futures import BrokenExecutor, Executor, Future
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from schnetpack_phonon.common.errors import N_TRIES, DeadWorkerError, UnavailableError
from schnetpack_phonon.common.executors import THREAD_VARIABLES, call_apart, exit_with_parent

if TYPE_CHECKING:
    from parsl.providers.base import ExecutionProvider


_HEARTBEAT = 10  # seconds between two heartbeats of a job; a dead worker is found as fast
_LOST_AFTER = 60  # seconds without a heartbeat after which a job is lost
_LOOK = 5  # seconds between two looks at the jobs


def slurm(
    cores_per_node: int | None = None,
    partition: str | None = None,
    account: str | None = None,
    walltime: str = "24:00:00",
    max_jobs: int = 1,
    nodes_per_job: int = 1,
    memory_per_node: int | None = None,
    workers_per_node: int | None = None,
    threads_per_worker: int = 1,
    longest_label: str | None = None,
    scheduler_options: Sequence[str] = (),
    worker_init: Sequence[str] = (),
    log_folder: str = "parsl",
    work_dir: str = ".",
) -> Executor:
    """Workers in SLURM jobs, which are submitted when there is work and cancelled at the end.

    Args:
        cores_per_node: cores of a job on each node; required.
        partition: SLURM's default if not given.
        account: the default of the user if not given.
        walltime: of one job, HH:MM:SS.
        max_jobs: largest number of jobs in the queue or running at a time.
        nodes_per_job: number of nodes of one job.
        memory_per_node: in GB; SLURM's default if not given.
        workers_per_node: number of labels at a time; the cores divided by ``threads_per_worker`` if
            not given. A code with MPI processes needs as many cores as it starts processes.
        threads_per_worker: OpenMP and BLAS threads of one worker.
        longest_label: longest time of one calculation, HH:MM:SS. A job starts no label in the last
            part of its walltime of this length, so that none is lost.
        scheduler_options: further options of ``sbatch``, such as ``--qos=short``.
        worker_init: shell lines before the workers start, such as ``module load cp2k``.
        log_folder: for batch scripts and logs, on a file system that the nodes share.
        work_dir: where a relative ``log_folder`` starts.

    Raises:
        UnavailableError: if Parsl is not installed.
        ValueError: if the cores are not given, or a time is not HH:MM:SS or too short for a label.
    """
    if cores_per_node is None:
        raise ValueError("set data.executor.cores_per_node to the cores of a job on each node")
    last = _seconds("longest_label", longest_label) if longest_label else 0
    begin_until = _seconds("walltime", walltime) - last
    if begin_until <= 0:
        raise ValueError(f"longest_label {longest_label} leaves no time of walltime {walltime}")
    parsl = _parsl()
    workers_per_node = workers_per_node or max(cores_per_node // threads_per_worker, 1)
    provider = parsl.providers.SlurmProvider(
        partition=partition,
        account=account,
        walltime=walltime,
        init_blocks=0,
        max_blocks=max_jobs,
        nodes_per_block=nodes_per_job,
        cores_per_node=cores_per_node,
        mem_per_node=memory_per_node,
        exclusive=False,
        scheduler_options="\n".join(f"#SBATCH {option}" for option in scheduler_options),
        worker_init="\n".join((*worker_init, *_threads(threads_per_worker))),
        launcher=(
            parsl.launchers.SrunLauncher()
            if nodes_per_job > 1
            else parsl.launchers.SingleNodeLauncher()
        ),
    )
    logs = Path(work_dir, log_folder)
    return _ParslPool(provider, workers_per_node, logs, begin_until if last else None)


def pilot_jobs_here(
    max_workers: int, threads_per_worker: int = 1, log_folder: str = "parsl", work_dir: str = "."
) -> Executor:
    """Pilot jobs on this machine, without a queue, to try them.

    Args:
        max_workers: number of labels at a time.
        threads_per_worker: OpenMP and BLAS threads of one worker.
        log_folder: for logs.
        work_dir: where a relative ``log_folder`` starts.
    """
    provider = _parsl().providers.LocalProvider(
        init_blocks=0, max_blocks=1, worker_init="\n".join(_threads(threads_per_worker))
    )
    return _ParslPool(provider, max_workers, Path(work_dir, log_folder), address="127.0.0.1")


def _threads(number: int) -> list[str]:
    return [f"export {name}={number}" for name in THREAD_VARIABLES]


def _seconds(name: str, text: Any) -> int:
    match = re.fullmatch(r"(\d+):(\d\d):(\d\d)", str(text))
    if match is None:
        raise ValueError(f"{name} is {text!r}; expected hours, minutes and seconds, '24:00:00'")
    hours, minutes, seconds = map(int, match.groups())
    return 3600 * hours + 60 * minutes + seconds


def _parsl() -> Any:
    try:
        import parsl.launchers
        import parsl.providers
    except ImportError as error:
        raise UnavailableError(
            f"pilot jobs need Parsl ({error}): pip install 'schnetpack_phonon[cluster]'"
        ) from error
    return parsl


class _ParslPool(Executor):
    """Runs tasks with Parsl; failures raise the same errors as with other executors.

    Args:
        provider: of the jobs.
        workers_per_node: number of workers on each node.
        log_folder: for scripts and logs.
        begin_until: a job starts labels until so many seconds after its own start.
        address: of this machine, for the jobs; all its addresses by default.
    """

    def __init__(
        self,
        provider: ExecutionProvider,
        workers_per_node: int,
        log_folder: Path,
        begin_until: int | None = None,
        address: str | None = None,
    ):
        from parsl import Config, DataFlowKernel
        from parsl.concurrent import ParslPoolExecutor
        from parsl.executors import HighThroughputExecutor
        from parsl.executors.high_throughput.executor import DEFAULT_LAUNCH_CMD
        from parsl.jobs.error_handlers import windowed_error_handler

        # All errors reach the caller as exceptions.
        logging.getLogger("parsl").setLevel(logging.CRITICAL)
        worker = f"{sys.executable} -m parsl.executors.high_throughput.process_worker_pool"
        server = f"import {__name__}; {__name__}.serve_tasks()"
        self._tasks = HighThroughputExecutor(
            label="labels",
            provider=provider,
            max_workers_per_node=workers_per_node,
            cores_per_worker=1e-6,  # the number of workers is set above
            address=address,
            drain_period=begin_until,
            heartbeat_period=_HEARTBEAT,
            heartbeat_threshold=_LOST_AFTER,
            block_error_handler=windowed_error_handler,
            # As modules, since the scripts may not be on the path.
            launch_cmd=DEFAULT_LAUNCH_CMD.replace("process_worker_pool.py", worker),
            interchange_launch_cmd=[sys.executable, "-c", server],
        )
        config = Config(
            executors=[self._tasks],
            run_dir=str(log_folder.absolute()),
            retries=N_TRIES - 1,
            retry_handler=_cost,
            strategy_period=_LOOK,
            initialize_logging=False,
        )
        self._max_workers = provider.max_blocks * provider.nodes_per_block * workers_per_node
        self._flow = DataFlowKernel(config)
        self._pool = ParslPoolExecutor(dfk=self._flow)

    def submit(self, function: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future:
        future: Future = Future()

        def take_over(theirs: Future) -> None:
            if not future.set_running_or_notify_cancel():
                return
            error = theirs.exception()
            if error is None:
                future.set_result(theirs.result())
            else:
                future.set_exception(_ours(error))

        # A worker of Parsl that dies while it sends a result takes along the lock of the queue of
        # results, and no other result would ever arrive: what may crash runs in a process apart.
        task = partial(function, *args, **kwargs)
        self._pool.submit(call_apart, task).add_done_callback(take_over)
        return future

    def shutdown(
        self, wait: bool = True, *, cancel_futures: bool = False, kill_workers: bool = False
    ) -> None:
        if self._flow.cleanup_called:
            return
        if wait and not (cancel_futures or kill_workers):
            self._flow.wait_for_current_tasks()
        self._flow.cleanup()


def _lost(error: BaseException) -> bool:
    """Whether a worker or its job was lost."""
    from parsl.executors.high_throughput.errors import ManagerLost, WorkerLost

    return isinstance(error, (ManagerLost, WorkerLost))


def _cost(error: Exception, _: Any) -> float:
    """Cost of a failure in retries; a failed calculation is not tried again."""
    return 1 if _lost(error) else N_TRIES


def _ours(error: BaseException) -> BaseException:
    from parsl.executors.errors import ExecutorError

    if _lost(error):
        return DeadWorkerError()
    return BrokenExecutor(str(error)) if isinstance(error, ExecutorError) else error


def serve_tasks() -> None:
    """Runs the task server of Parsl until its parent process ends.

    The server ignores Ctrl-C, since its parent needs it to end the jobs.
    """
    exit_with_parent(os.getppid())
    os.setsid()
    runpy.run_module("parsl.executors.high_throughput.interchange", run_name="__main__")
