"""A sweep ends with a page, or says why not."""

from omegaconf import OmegaConf

from schnetpack_phonon.cli.sweep_report import SweepReport
from tests.evaluation.comparison.comparison_fixtures import databases, write_run


def end(folder):
    SweepReport().on_multirun_end(OmegaConf.create({"hydra": {"sweep": {"dir": str(folder)}}}))


def test_report_of_a_sweep(tmp_path, capsys):
    (path, *_) = databases(tmp_path).values()
    write_run(tmp_path / "runs" / "one", path, 1, range(8), [9])
    end(tmp_path / "runs")
    assert (tmp_path / "runs" / "report" / "index.html").is_file()
    assert "nothing to compare with" in capsys.readouterr().out


def test_failed_report_does_not_cost_the_sweep(tmp_path, caplog):
    (tmp_path / "runs").mkdir()
    end(tmp_path / "runs")
    assert "no report of" in caplog.text
