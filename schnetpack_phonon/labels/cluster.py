"""Labels on a cluster: Parsl's pilot jobs behind the interface of ``concurrent.futures``.

A pilot job is a batch job whose workers take one label after the other from the process that
writes the database, until there are none left or the walltime is over; then another job takes its
place. A label whose worker or job ends before it does is computed by another one.

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
from pathlib import Path
from typing import TYPE_CHECKING, Any

from schnetpack_phonon.common.errors import N_TRIES, DeadWorkerError, UnavailableError
from schnetpack_phonon.common.executors import THREAD_VARIABLES, exit_with_parent

if TYPE_CHECKING:
    from parsl.providers.base import ExecutionProvider


_HEARTBEAT = 10  # seconds between two signs of life of a job; a dead worker is found as soon


_LOST_AFTER = 60  # seconds without one after which it is lost


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
) -> Executor:
    """Workers in SLURM jobs, submitted when there is work and cancelled when there is none.

    Args:
        cores_per_node: that a job asks for; has to be given.
        partition: SLURM's default if not given.
        account: the user's default if not given.
        walltime: of one job, HH:MM:SS.
        max_jobs: that are in the queue or running at a time.
        nodes_per_job: of one job.
        memory_per_node: in GB; SLURM's default if not given.
        workers_per_node: labels at a time; the cores divided by ``threads_per_worker`` if not
            given. A code that runs its own MPI processes needs as many cores as it starts.
        threads_per_worker: OpenMP and BLAS threads of one worker.
        longest_label: time that a label may take, HH:MM:SS. In the last part of the walltime that
            is as long a job begins no more labels, so that none is lost.
        scheduler_options: further options of ``sbatch``, such as ``--qos=short``.
        worker_init: shell lines before the workers start, such as ``module load cp2k``.
        log_folder: for batch scripts and logs, on a file system that the nodes see too.

    Raises:
        UnavailableError: if Parsl is not installed.
        ValueError: if the cores are not given, or a time is not HH:MM:SS or leaves no time for a
            label.
    """
    if cores_per_node is None:
        raise ValueError("set data.executor.cores_per_node to the cores that a job has on a node")
    last = _seconds("longest_label", longest_label) if longest_label else 0
    begin_until = _seconds("walltime", walltime) - last
    if begin_until <= 0:
        raise ValueError(f"longest_label {longest_label} leaves nothing of walltime {walltime}")
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
    return _ParslPool(provider, workers_per_node, log_folder, begin_until if last else None)


def pilot_jobs_here(
    max_workers: int, threads_per_worker: int = 1, log_folder: str = "parsl"
) -> Executor:
    """The same machinery without a queue, on this machine: to try it."""
    provider = _parsl().providers.LocalProvider(
        init_blocks=0, max_blocks=1, worker_init="\n".join(_threads(threads_per_worker))
    )
    return _ParslPool(provider, max_workers, log_folder, address="127.0.0.1")


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
    """Tasks for Parsl, whose failures are told as those of other executors.

    Args:
        provider: of the jobs.
        workers_per_node: in each of their nodes.
        log_folder: for scripts and logs.
        begin_until: seconds after its start until which a job begins labels.
        address: of this machine for the jobs; all that it has by default.
    """

    def __init__(
        self,
        provider: ExecutionProvider,
        workers_per_node: int,
        log_folder: str,
        begin_until: int | None = None,
        address: str | None = None,
    ):
        from parsl import Config, DataFlowKernel
        from parsl.concurrent import ParslPoolExecutor
        from parsl.executors import HighThroughputExecutor
        from parsl.executors.high_throughput.executor import DEFAULT_LAUNCH_CMD
        from parsl.jobs.error_handlers import windowed_error_handler

        # All that goes wrong reaches the caller as an exception.
        logging.getLogger("parsl").setLevel(logging.CRITICAL)
        worker = f"{sys.executable} -m parsl.executors.high_throughput.process_worker_pool"
        server = f"import {__name__}; {__name__}.serve_tasks()"
        self._tasks = HighThroughputExecutor(
            label="labels",
            provider=provider,
            max_workers_per_node=workers_per_node,
            cores_per_worker=1e-6,  # the number of workers is ours to say
            address=address,
            drain_period=begin_until,
            heartbeat_period=_HEARTBEAT,
            heartbeat_threshold=_LOST_AFTER,
            block_error_handler=windowed_error_handler,
            # By module, not by script: the scripts need not be on the path.
            launch_cmd=DEFAULT_LAUNCH_CMD.replace("process_worker_pool.py", worker),
            interchange_launch_cmd=[sys.executable, "-c", server],
        )
        config = Config(
            executors=[self._tasks],
            run_dir=str(Path(log_folder).absolute()),
            retries=N_TRIES - 1,
            retry_handler=_cost,
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

        self._pool.submit(function, *args, **kwargs).add_done_callback(take_over)
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
    """Whether a worker was lost, or the job that it was in."""
    from parsl.executors.high_throughput.errors import ManagerLost, WorkerLost

    return isinstance(error, (ManagerLost, WorkerLost))


def _cost(error: Exception, _: Any) -> float:
    """Of a failure, in retries; labels that fail by themselves are not tried again."""
    return 1 if _lost(error) else N_TRIES


def _ours(error: BaseException) -> BaseException:
    from parsl.executors.errors import ExecutorError

    if _lost(error):
        return DeadWorkerError()
    if isinstance(error, ExecutorError):
        return BrokenExecutor(str(error))
    return error


def serve_tasks() -> None:
    """Parsl's server of tasks, which ends with its parent and not before.

    Ctrl-C is for the parent, which needs the server to end the jobs.
    """
    exit_with_parent(os.getppid())
    os.setsid()
    runpy.run_module("parsl.executors.high_throughput.interchange", run_name="__main__")
