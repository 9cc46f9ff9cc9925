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


def test_rounds_end_when_there_is_nothing_more_to_do(app):
    """With the errors good enough, or the budget used; with another budget they go on."""
    runs, run = app
    (runs.parent / "config.yaml").write_text(
        (runs.parent / "config.yaml")
        .read_text()
        .replace("hydra/sweeper: unfinished", "hydra/sweeper: rounds")
        .replace('"n${n}_seed${seed}"', '"round_${n}"')
        .replace('seed: "1,2"', 'n: "range(0,9)"')
        + "data: {ensemble: {budget: 7}}\ncallbacks: {active: {force_error: 0.1}}\n"
    )
    app_file = runs.parent / "app.py"
    record = """
    import json
    error = None if config.n == 0 else 0.6 / config.n
    own = {"round": config.n, "n_labels": 3 * config.n, "n_each": 3, "relative": error}
    Path("active.json").write_text(json.dumps(own))
"""
    app_file.write_text(app_file.read_text().replace("main()\n", record.strip("\n") + "\nmain()\n"))
    assert "round 2 is the last: 6 labels; another round would make it 9, the budget is 7" in run()
    assert [*sorted(path.name for path in runs.glob("round_*"))] == [f"round_{k}" for k in range(3)]
    out = run("data.ensemble.budget=90")
    assert "round 6 is the last: forces are off by 10 %; 10 % is asked for" in out
    assert {path.read_text() for path in runs.glob("*/times")} == {"x"}
    assert len(list(runs.glob("*/times"))) == 7
