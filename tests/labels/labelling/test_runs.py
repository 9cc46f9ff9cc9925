"""The labeller computes each label once and loses none."""

import json
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path

import numpy as np
import pytest
from ase.calculators.calculator import CalculationFailed
from ase.calculators.emt import EMT

from schnetpack_phonon.calculators.base import AseCalculator
from schnetpack_phonon.common import properties
from schnetpack_phonon.common.errors import LabellingError
from schnetpack_phonon.common.executors import process_pool
from schnetpack_phonon.labels.labelling import Job, Labeller, label_job
from schnetpack_phonon.labels.store import LabelStore
from tests.data.data_fixtures import copper, record, same
from tests.labels.labelling.labelling_fixtures import AtOnce


def test_labels_are_computed_once(store, jobs, threads):
    """Also within a run, and after a restart; records come in the order of the jobs."""
    Labeller(threads, store).run(jobs(0, 1), "first")
    again = Labeller(threads, LabelStore(store.path))
    records = again.run(jobs(4, 1, 3, 4, 0, 2), "second")
    assert jobs.calls() == [0, 1, 2, 3, 4]
    assert [r.key for r in records] == ["h4", "h1", "h3", "h4", "h0", "h2"]
    assert [r.key for r in records[1:3]] == ["h1", "h3"]
    assert all(same(r, record(int(r.key[1:]))) for r in records[:5])
    assert (records[5].labels, records[5].error) == (None, "CalculationFailed: no convergence of 2")


@pytest.mark.parametrize("error", [ValueError, ZeroDivisionError, np.linalg.LinAlgError])
def test_any_numerical_error_is_a_record(store, threads, error):
    def fail():
        raise error("bad numbers")

    (result,) = Labeller(threads, store).run([Job("h", "a job", fail, ())], "one")
    assert result.error == f"{error.__name__}: bad numbers"


def test_too_many_failures_stop(store, jobs, threads):
    """At the share asked for, soon after it is reached, naming the reason; a rerun stays put."""
    numbers = [2, 12, 22, 32, *range(3, 10), *range(103, 112), *range(203, 212), *range(303, 312)]
    for _ in range(2):
        labeller = Labeller(threads, LabelStore(store.path), max_failed_share=0.05)
        with pytest.raises(LabellingError, match=r"[23] of 38 .*failed.* 0\.05.*no conv.*max_f"):
            labeller.run(jobs(*numbers), "ensemble")
        assert len(jobs.calls()) < 15
    assert len(Labeller(threads, store, max_failed_share=0.2).run(jobs(*numbers), "all")) == 38
    with pytest.raises(LabellingError, match="4 of 38"):  # failures of earlier runs count
        Labeller(threads, store, max_failed_share=0.05).run(jobs(*numbers), "again")


def test_death_of_a_worker(store, jobs):
    """The run goes on; the next one, which may have more memory, tries that job again."""
    numbers = (0, 1, 100, 3, 4, 5)
    for n_runs in (1, 2):
        with process_pool(max_workers=1) as executor:
            records = Labeller(executor, LabelStore(store.path)).run(jobs(*numbers), "ensemble")
        assert [r.key for r in records if r.error] == ["h100"]
        assert "DeadWorkerError: its worker process died 3 times" in records[2].error
        assert jobs.calls().count(100) == 3 * n_runs
    assert jobs.calls().count(5) == 1
    again = LabelStore(store.path)
    assert all(same(again[f"h{n}"], record(n)) for n in numbers if n != 100)


def test_deaths_count_as_failures(store, jobs, pool):
    with pytest.raises(LabellingError, match=r"1 x CalculationF.*; 1 x DeadWorkerError: .*memory"):
        Labeller(pool, store, max_failed_share=0.1).run(jobs(2, 100), "ensemble")


def test_tally(store, jobs, threads):
    """Of all runs of a labeller; each label is counted once."""
    Labeller(threads, store).run(jobs(0, 1, 2), "before")
    labeller = Labeller(threads, store, max_failed_share=0.5)
    labeller.run(jobs(0, 1, 2, 3), "first")
    labeller.run(jobs(3, 4, 5, 12, 2), "second")
    tally = labeller.tally
    assert tally.keys == {f"h{n}" for n in (0, 1, 2, 3, 4, 5, 12)}
    assert (tally.n_stored, tally.n_computed) == (3, 4)
    assert tally.failed.keys() == {"h2", "h12"}
    assert tally.seconds > 0


def pause(seconds: float) -> dict[str, np.ndarray]:
    time.sleep(seconds)
    if seconds > 0.1:
        raise CalculationFailed("slow")
    return {"energy": np.zeros(1)}


def test_seconds_are_recorded(store, threads):
    """Of those that fail, too; without a part in the key."""
    jobs = [Job(f"h{t}", "pause", pause, (t,)) for t in (0.1, 0.2)]
    labeller = Labeller(threads, store, max_failed_share=1)
    labeller.run(jobs, "pauses")
    times = [LabelStore(store.path)[job.key].seconds for job in jobs]
    assert times[0] >= 0.1
    assert times[1] >= 0.2
    assert labeller.tally.worker_seconds == pytest.approx(sum(times), abs=2e-3)


class DyingPool(AtOnce):
    """Takes three jobs and finds its workers dead."""

    n_taken = 0

    def submit(self, function, *arguments):
        if self.n_taken == 3:
            raise BrokenProcessPool("a worker died")
        self.n_taken += 1
        return super().submit(function, *arguments)


def test_labels_that_finished_before_the_death(store, jobs):
    """Labels that are done but not yet stored when the pool breaks are not lost."""
    with pytest.raises(
        LabellingError, match="workers died: a worker died\n3 finished labels are safe"
    ):
        Labeller(DyingPool(), store).run(jobs(0, 1, 3, 4, 5), "ensemble")
    assert len(LabelStore(store.path)) == 3


def label_copper(path: Path) -> None:
    jobs = [label_job(AseCalculator(EMT), copper(n), f"copper {n}") for n in range(120)]
    with ThreadPoolExecutor(2) as executor:
        Labeller(executor, LabelStore(path)).run(jobs, "copper")


def test_kill_9_and_restart(tmp_path):
    """Killed after a few, some and many labels; at last two runs at once finish what is left.

    In the end all labels are there, each once, and all right.
    """
    path, done = tmp_path / "store.jsonl", 0
    code = f"import pathlib, {__name__} as m; m.label_copper(pathlib.Path({str(path)!r}))"
    root = Path(__file__).parents[__name__.count(".")]

    def start():
        return subprocess.Popen([sys.executable, "-c", code], cwd=root)

    for n_lines in (5, 30, 60):
        process = start()
        while not path.exists() or path.read_bytes().count(b"\n") < n_lines:
            assert process.poll() is None, "it ended before it could be killed"
            time.sleep(0.002)
        process.kill()
        process.wait()
        assert done < len(LabelStore(path)) < 120
        done = len(LabelStore(path))
    assert [process.wait() for process in [start(), start()]] == [0, 0]
    keys = [json.loads(line)["key"] for line in path.read_text().splitlines()[1:]]
    assert len(keys) == len(set(keys)) == 120
    store = LabelStore(path)
    for number in range(120):
        atoms = copper(number)
        labels = store[label_job(AseCalculator(EMT), atoms, "").key].labels
        atoms.calc = EMT()
        np.testing.assert_array_equal(labels[properties.forces], atoms.get_forces())
