"""A sweep ends with a page, or says why not; its runs have an objective."""

import pytest
from hydra.core.utils import JobReturn, JobStatus
from hydra.types import RunMode
from omegaconf import OmegaConf

from schnetpack_phonon.cli.sweep_report import RoundsReport, SweepJob, SweepReport
from schnetpack_phonon.evaluation.active.rounds import write_round
from schnetpack_phonon.evaluation.runs import write_record
from tests.evaluation.active.test_report import round_of
from tests.evaluation.comparison.comparison_fixtures import databases, write_run


def end(folder):
    SweepReport().on_multirun_end(OmegaConf.create({"hydra": {"sweep": {"dir": str(folder)}}}))


def test_report_of_a_sweep(tmp_path, capsys):
    (path, *_) = databases(tmp_path).values()
    write_run(tmp_path / "runs" / "one", path, 1, range(8), [9])
    end(tmp_path / "runs")
    assert (tmp_path / "runs" / "report" / "index.html").is_file()
    assert "nothing to compare with" in capsys.readouterr().out


def test_report_of_rounds(tmp_path, capsys, caplog):
    """And without one the runs are safe."""
    content = {"hydra": {"sweep": {"dir": str(tmp_path)}}}
    config = OmegaConf.create({**content, "callbacks": {"active": {"force_error": 0.15}}})
    RoundsReport().on_multirun_end(config)
    assert "no round of active learning" in caplog.text
    (tmp_path / "round_1").mkdir()
    write_round(tmp_path / "round_1", 1, 8, 8, round_of(200.0))
    RoundsReport().on_multirun_end(config)
    assert "force error (%)" in capsys.readouterr().out
    assert (tmp_path / "report" / "index.html").is_file()


def test_failed_report_does_not_cost_the_sweep(tmp_path, caplog):
    (tmp_path / "runs").mkdir()
    end(tmp_path / "runs")
    assert "no report of" in caplog.text


def test_objective_of_a_run(tmp_path, caplog):
    """What a sweeper that optimises asks for; SchNetPack's training returns nothing."""
    caplog.set_level("INFO")
    done = JobReturn(status=JobStatus.COMPLETED)
    one, sweep = (OmegaConf.create({"hydra": {"mode": mode}}) for mode in RunMode)
    SweepJob().on_job_end(one, job_return=done)
    assert not caplog.text
    SweepJob().on_job_end(sweep, job_return=done)
    assert done.return_value is None
    assert "no best_score in" in caplog.text
    write_record(tmp_path, {"datapath": "x.db", "monitor": "val_loss", "best_score": 0.25})
    SweepJob().on_job_end(sweep, job_return=done)
    assert done.return_value == 0.25


def test_failed_runs_have_no_objective(tmp_path):
    write_record(tmp_path, {"datapath": "x.db", "best_score": 0.25})
    failed = JobReturn(status=JobStatus.FAILED)
    failed.return_value = ValueError("it")
    sweep = OmegaConf.create({"hydra": {"mode": RunMode.MULTIRUN}})
    SweepJob().on_job_end(sweep, job_return=failed)
    with pytest.raises(ValueError, match="it"):
        _ = failed.return_value


SEVERAL = [{"devices": 2}, {"devices": [0, 1]}, {"devices": 1, "num_nodes": 2}]
ONE = [{"devices": 1}, {"devices": 2, "strategy": "ddp_spawn"}, {"devices": [1]}]


@pytest.mark.parametrize("trainer", [*SEVERAL, *ONE])
def test_sweeps_whose_processes_would_start_it_again_are_refused(trainer):
    for mode in RunMode:
        hydra = {"mode": mode, "runtime": {"output_dir": "."}}
        config = OmegaConf.create({"hydra": hydra, "trainer": trainer, "run": {"id": "a"}})
        if trainer in SEVERAL and mode == RunMode.MULTIRUN:
            with pytest.raises(SystemExit, match=r"Set trainer\.devices=1"):
                SweepJob().on_job_start(config)
        else:
            SweepJob().on_job_start(config)


@pytest.mark.parametrize("name", [1, float("nan"), 202601, None, True])
def test_runs_have_a_name_that_is_text(name):
    """SchNetPack fails on others with a TypeError after the data are made."""
    given = {"data": {}, "callbacks": {}, "run": {"id": name}}
    with pytest.raises(SystemExit, match=rf"run\.id is read as {name}, .* run\.id=run_{name}"):
        SweepJob().on_job_start(OmegaConf.create(given))


def test_all_missing_values_are_named_before_a_run():
    data = {"datapath": "x.db", "structure": {"path": "???", "supercell": "???"}}
    given = {"data": data, "callbacks": {"start_from": {"path": "???"}}}
    named = r"callbacks\.start_from\.path, data\.structure\.path, data\.structure\.supercell: add "
    with pytest.raises(SystemExit, match=named):
        SweepJob().on_job_start(OmegaConf.create(given))


def test_a_run_does_not_go_on_with_labels_of_another_calculator(tmp_path):
    """Such as one of the former main job, whose labels are of xTB."""
    parts = {"mode": RunMode.RUN, "runtime": {"output_dir": str(tmp_path)}}
    given = {"run": {"id": "one"}, "data": {"calculator": {"_target_": "a.CP2K"}}}
    config = OmegaConf.create({"hydra": parts, **given})
    SweepJob().on_job_start(config)
    OmegaConf.save(config, tmp_path / "config.yaml")
    SweepJob().on_job_start(config)
    config.data.calculator._target_ = "a.TightBinding"
    with pytest.raises(SystemExit, match=r"trained on labels of CP2K, .* for TightBinding"):
        SweepJob().on_job_start(config)
