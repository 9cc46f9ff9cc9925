"""A sweep leaves out the runs that are finished."""

import subprocess
import sys
from pathlib import Path

import pytest

from schnetpack_phonon import _sweeper

PLUGIN = "schnetpack_phonon_sweeper.py"


@pytest.fixture
def app(tmp_path):
    """A Hydra application that writes what a run of the host ends with."""
    plugins = tmp_path / "plugins" / "hydra_plugins"
    plugins.mkdir(parents=True)
    (plugins / PLUGIN).write_text(Path(_sweeper.__file__).read_text())
    (tmp_path / "config.yaml").write_text(
        """
defaults: [{override hydra/sweeper: unfinished}]
globals: {model_path: best_model}
seed: 1
n: 1
hydra:
  searchpath: [file://%s]
  job: {chdir: true}
  sweep: {dir: runs, subdir: "n${n}_seed${seed}"}
  sweeper: {params: {seed: "1,2"}}
"""
        % (Path(__file__).parents[1] / "configs")
    )
    (tmp_path / "app.py").write_text(
        """
import hydra
from pathlib import Path
@hydra.main(config_path=".", config_name="config", version_base="1.2")
def main(config):
    Path("best_model").touch()
    if config.n < 9:
        Path("best_model.task").touch()
    with open("times", "a") as file:
        file.write("x")
main()
"""
    )

    def run(*arguments):
        done = subprocess.run(
            [sys.executable, "app.py", "-m", *arguments],
            cwd=tmp_path,
            env={"PYTHONPATH": str(plugins.parent), "PATH": ""},
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    return tmp_path / "runs", run


def test_finished_runs_are_left_out(app):
    runs, run = app
    run("n=1")
    assert "2 of 4 runs are finished" in run("n=1,2")
    times = {path.parent.name: path.read_text() for path in runs.glob("*/times")}
    assert times == dict.fromkeys(("n1_seed1", "n1_seed2", "n2_seed1", "n2_seed2"), "x")


def test_runs_that_stopped_go_on(app):
    runs, run = app
    for _ in range(2):
        assert "finished" not in run("n=9")
    assert {path.read_text() for path in runs.glob("*/times")} == {"xx"}
