"""Pilot jobs: SLURM's commands are stand-ins, all else is what runs on a cluster."""

import re
import subprocess
import sys
from pathlib import Path
from unittest.mock import MagicMock

import pytest
from hydra.utils import instantiate
from omegaconf import OmegaConf

from schnetpack_phonon._hydra import config_folder
from schnetpack_phonon.common.errors import DeadWorkerError, LabellingError, UnavailableError
from schnetpack_phonon.labels import cluster
from schnetpack_phonon.labels.labelling import Job, Labeller, label_job
from tests.common.worker_fixtures import calls, die, ended, environment, label_until, process
from tests.data.data_fixtures import copper, ensemble_data, rows
from tests.labels import fake_slurm

# Parsl leaves sockets to the garbage collector when it looks for addresses of the machine.
pytestmark = pytest.mark.filterwarnings("ignore:unclosed <socket:ResourceWarning")


@pytest.fixture
def parsl():
    return pytest.importorskip("parsl", reason="needs the extra 'cluster'")


@pytest.fixture
def slurm(parsl, tmp_path, monkeypatch):
    """data/executor=slurm with further settings; SLURM is looked at often, and is fast."""
    from parsl.providers import SlurmProvider

    monkeypatch.setenv("PATH", str(fake_slurm.install(tmp_path / "slurm")), prepend=":")
    monkeypatch.setattr(SlurmProvider, "status_polling_interval", 1)
    monkeypatch.setattr(cluster, "_HEARTBEAT", 1)
    monkeypatch.setattr(cluster, "_LOST_AFTER", 5)
    monkeypatch.setattr(cluster, "_LOOK", 1)

    def executor(**settings):
        config = OmegaConf.load(config_folder() / "data" / "executor" / "slurm.yaml")
        config = OmegaConf.merge(
            {"run": {"data_dir": str(tmp_path), "work_dir": str(tmp_path)}},
            {"slurm": config},
            {"slurm": settings},
        )
        return instantiate(config.slurm)

    return executor


def test_database_made_by_slurm_jobs(slurm, built, tmp_path):
    """The same rows as those of threads; the job asked for what it was told to."""
    executor = slurm(
        cores_per_node=2,
        partition="short",
        account="phonons",
        walltime="10:00:00",
        longest_label="01:00:00",
        memory_per_node=8,
        threads_per_worker=2,
        scheduler_options=["--qos=normal"],
        worker_init=["export LOADED_BEFORE=yes", "export OMP_NUM_THREADS=64"],
    )
    data = ensemble_data(tmp_path, executor=executor)
    data.prepare_data()
    assert rows(data.datapath) == rows(built.datapath)
    (script,) = fake_slurm.scripts(tmp_path / "slurm")
    for option in (
        "partition=short",
        "account=phonons",
        "time=600",
        "nodes=1",
        "cpus-per-task=2",
        "mem=8g",
        "qos=normal",
    ):
        assert f"\n#SBATCH --{option}\n" in script
    assert "exclusive" not in script
    assert script.index("LOADED_BEFORE") < script.index("process_worker_pool")
    assert re.findall("export OMP_NUM_THREADS=(.*)", script)[-1] == "2"
    assert f"--drain_period={9 * 3600} " in script
    assert "--max_workers_per_node=1 " in script  # two cores, two threads
    assert fake_slurm.states(tmp_path / "slurm") == ["CANCELLED"]


def test_walltime(slurm, store, tmp_path):
    """A job ends before the work does: another takes its place, and each label is there once."""
    over = fake_slurm.walltime_over(tmp_path / "slurm")
    jobs = [Job(f"h{n}", f"job {n}", label_until, (n, over, 20)) for n in range(40)]
    with slurm(cores_per_node=2, walltime="04:00:00")() as executor:
        Labeller(executor, store).run(jobs, "ensemble")
    states = fake_slurm.states(tmp_path / "slurm")
    assert states == ["TIMEOUT", "CANCELLED"]
    lines = store.path.read_text().splitlines()[1:]
    assert len(lines) == len({line.split('"')[3] for line in lines}) == 40
    assert not any(map(store.failed, store))


def test_jobs_that_cannot_start(slurm, store, emt):
    lines = ["echo no such module >&2", "exit 1"]
    named = r"(?s)workers died.*no such module.*0 finished labels are safe"
    make = slurm(cores_per_node=1, worker_init=lines)
    with make() as executor, pytest.raises(LabellingError, match=named):
        Labeller(executor, store).run([label_job(emt, copper(0), "copper")], "one")


@pytest.mark.parametrize("time", ["24h", 86400, "24:00", "1-00:00:00"])
def test_times_are_checked(time):
    with pytest.raises(ValueError, match=f"walltime is {time!r}; expected .*'24:00:00'"):
        cluster.slurm(1, walltime=time)


def test_time_of_a_label_fits_into_a_job():
    with pytest.raises(ValueError, match=r"longest_label 02:00:00 leaves no time of .* 01:00:00"):
        cluster.slurm(1, walltime="01:00:00", longest_label="02:00:00")


def test_logs_are_in_the_folder_where_the_command_was_typed(monkeypatch, tmp_path):
    """SchNetPack works in the folder of the run."""
    pools = []
    monkeypatch.setattr(cluster, "_ParslPool", lambda *given, **_: pools.append(given))
    monkeypatch.setattr(cluster, "_parsl", MagicMock)
    cluster.slurm(4, log_folder="logs", work_dir=str(tmp_path))
    cluster.pilot_jobs_here(1, log_folder="logs", work_dir=str(tmp_path))
    assert [own[2] for own in pools] == [tmp_path / "logs"] * 2


def test_without_parsl(monkeypatch):
    monkeypatch.setitem(sys.modules, "parsl", None)
    with pytest.raises(UnavailableError, match=r"pip install 'schnetpack_phonon\[cluster\]'"):
        cluster.pilot_jobs_here(1)


def test_pilot_jobs_here(parsl, tmp_path, monkeypatch):
    """Threads are set, a death concerns one label, Ctrl-C and the end leave nothing behind."""
    monkeypatch.setattr(cluster, "_HEARTBEAT", 1)
    monkeypatch.setattr(cluster, "_LOOK", 1)
    pool = cluster.pilot_jobs_here(2, threads_per_worker=3, log_folder=str(tmp_path / "parsl"))
    with pool as executor:
        _, threads = executor.submit(environment, "OMP_NUM_THREADS").result()
        assert threads == "3"
        survivor = executor.submit(process, 3.0)
        with pytest.raises(DeadWorkerError):
            executor.submit(die, tmp_path, 100).result()
        workers = {survivor.result(), executor.submit(process).result()}
        futures = [executor.submit(process, 100) for _ in range(4)]
        assert futures[-1].cancel()  # as the labeller does where it stops
        executor.shutdown(kill_workers=True)
    assert ended(list(workers), within=10)


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_a_thousand_deaths(parsl, tmp_path, monkeypatch):
    """Short tasks of which many kill their process, while others send results: no hang."""
    monkeypatch.setattr(cluster, "_HEARTBEAT", 1)
    folders = [tmp_path / str(n) for n in range(500)]
    with cluster.pilot_jobs_here(4, log_folder=str(tmp_path / "parsl")) as executor:
        futures = []
        for folder in folders:
            folder.mkdir()
            futures.append(executor.submit(die, folder, 2))
            futures += [executor.submit(process) for _ in range(4)]
        for future in futures:
            future.result(timeout=300)
    assert [calls(folder) for folder in folders] == 500 * [3]


_KILLED = """
import sys
from schnetpack_phonon.labels import cluster
from tests.common.worker_fixtures import process
cluster._HEARTBEAT, cluster._LOST_AFTER, cluster._LOOK = 1, 5, 1
pool = cluster.pilot_jobs_here(1, log_folder=sys.argv[1])
print(pool._tasks.interchange_proc.pid, pool.submit(process).result(), flush=True)
pool.submit(process, 100).result()
"""


def test_nothing_outlives_a_killed_run(parsl, tmp_path):
    command = [sys.executable, "-c", _KILLED, str(tmp_path)]
    root = Path(__file__).parents[2]
    with subprocess.Popen(command, stdout=subprocess.PIPE, cwd=root) as parent:
        processes = [int(pid) for pid in parent.stdout.readline().split()]
        parent.kill()
    assert len(processes) == 2
    assert ended(processes, within=60)
