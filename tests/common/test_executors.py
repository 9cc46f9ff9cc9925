"""Workers die, hang and are left behind, and nothing else does."""

import os
import signal
import subprocess
import sys
import time

import pytest
from ase.calculators.calculator import CalculationFailed

from schnetpack_phonon.calculators.base import AseCalculator
from schnetpack_phonon.calculators.tight_binding import TightBinding
from schnetpack_phonon.common.errors import N_TRIES, DeadWorkerError
from schnetpack_phonon.common.executors import call_within, process_pool
from tests.common.worker_fixtures import (
    Endless,
    calls,
    die,
    ended,
    endless,
    environment,
    grow,
    hold,
    late,
    process,
)
from tests.data.data_fixtures import copper


def test_pool_limits_processes_and_threads():
    """Oversubscribed BLAS threads make small cells many times slower."""
    with process_pool(max_workers=1, threads_per_worker=3) as executor:
        names = ["OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"]
        answers = list(executor.map(environment, names))
    assert len({pid for pid, _ in answers} - {os.getpid()}) == 1
    assert [value for _, value in answers] == ["3"] * 3


def test_workers_are_different_processes(pool):
    futures = [pool.submit(process, 0.3) for _ in range(4)]
    assert len({future.result() for future in futures} - {os.getpid()}) == 2


def test_death_concerns_one_job(tmp_path):
    """It is tried again; the other worker's job does not even notice."""
    always, once = tmp_path / "always", tmp_path / "once"
    always.mkdir()
    once.mkdir()
    with process_pool(max_workers=2) as executor:
        survivor = executor.submit(process, 3.0)
        dying = executor.submit(die, always, 100)
        recovering = executor.submit(die, once, 1)
        with pytest.raises(DeadWorkerError, match=r"died 3 times.*memory"):
            dying.result()
        assert recovering.result() == 2
        assert survivor.result() != os.getpid()
    assert calls(always) == N_TRIES == 3


def test_death_between_two_jobs_is_of_neither(tmp_path):
    with process_pool(max_workers=1) as executor:
        idle = executor.submit(process).result()
        os.kill(idle, signal.SIGKILL)
        assert ended([idle], within=10)
        time.sleep(0.5)  # until its executor has seen it
        assert executor.submit(die, tmp_path, N_TRIES - 1).result() == N_TRIES


_ORPHANS = """
import os, time
from schnetpack_phonon.common.executors import process_pool
pool = process_pool(2)
print(*{pool.submit(os.getpid).result() for _ in range(4)}, flush=True)
time.sleep(60)
"""


def test_workers_end_with_a_killed_parent():
    with subprocess.Popen([sys.executable, "-c", _ORPHANS], stdout=subprocess.PIPE) as parent:
        workers = [int(pid) for pid in parent.stdout.readline().split()]
        parent.kill()
    assert workers
    assert ended(workers, within=30)


def test_workers_can_be_killed():
    """At once, whatever they do; what waits does not begin."""
    pool = process_pool(max_workers=2)
    workers = list({pool.submit(process, 0.3).result() for _ in range(4)})
    futures = [pool.submit(process, 100) for _ in range(6)]
    time.sleep(0.5)
    pool.shutdown(kill_workers=True)
    assert ended(workers, within=10)
    assert all(future.cancelled() for future in futures[2:])


def test_time_limit_of_compiled_code():
    with pytest.raises(CalculationFailed, match=r"longer than 0\.5 s: raise .*time_limit"):
        call_within(0.5, endless)
    helper = call_within(100, process)
    assert helper != os.getpid()
    assert call_within(100, process) == helper  # started once


def test_worker_that_grew_is_replaced_with_the_process_beside_it():
    """Loky ends workers whose memory grows, and waits for their end."""
    with process_pool(1) as pool:
        worker = pool.submit(process).result()
        helper = pool.submit(call_within, 100, process).result()
        assert len({worker, helper, os.getpid()}) == 3
        pool.submit(grow).result()
        time.sleep(1.1)  # between two looks at the memory
        assert pool.submit(process).result() == worker
        assert ended([worker, helper], within=20)
        assert pool.submit(process).result(timeout=60) not in (worker, helper)


def test_worker_that_loads_much_stays():
    """PyTorch takes 600 MB; loky alone would start the worker, and load it, again."""
    with process_pool(1) as pool:
        worker = pool.submit(process).result()
        time.sleep(1.1)  # between two looks at the memory
        assert pool.submit(hold, 600_000_000).result() == worker
        assert {pool.submit(process).result() for _ in range(3)} == {worker}


def test_no_time_limit_needs_no_process():
    assert call_within(None, process) == os.getpid()


def test_errors_within_a_time_limit_are_the_functions_own(tmp_path):
    with pytest.raises(TimeoutError, match="licence server"):
        call_within(100, late)
    with pytest.raises(DeadWorkerError):
        call_within(100, die, tmp_path, 100)


@pytest.mark.parametrize("in_worker", [False, True])
def test_calculators_with_a_time_limit(in_worker, pool, emt):
    """In this process and in a worker, whose process beside it is one more."""
    run = (lambda *args: pool.submit(*args).result()) if in_worker else (lambda f, *args: f(*args))
    with pytest.raises(CalculationFailed, match="longer than 1 s"):
        run(AseCalculator(Endless, time_limit=1.0).label, copper(0))
    for limited, free in (
        (AseCalculator(emt.factory, time_limit=60.0), emt),
        (TightBinding(time_limit=60.0), TightBinding()),
    ):
        one, other = run(limited.label, copper(0)), free.label(copper(0))
        assert all((one[key] == other[key]).all() for key in other)
        assert limited.settings == free.settings


@pytest.mark.parametrize("option", ["max_workers", "threads_per_worker"])
def test_no_workers(option):
    with pytest.raises(ValueError, match=f"{option} is 0; expected >= 1"):
        process_pool(**{option: 0})
