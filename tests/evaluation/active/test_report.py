"""The page of the rounds."""

import pandas as pd
import pytest

from schnetpack_phonon.common.errors import RunError
from schnetpack_phonon.evaluation.active.report import errors_by_round, rounds_report
from schnetpack_phonon.evaluation.active.rounds import ALL, RoundErrors, write_round


def round_of(force):
    return {
        name: RoundErrors(4, 2, 1, force, 500.0, 2.0, None) for name in ("Ag3SBr", "Ag3SI", ALL)
    }


def test_report(tmp_path):
    runs = tmp_path / "runs"
    for number, force in enumerate([0, 200.0, 80.0]):
        folder = runs / f"round_{number}"
        folder.mkdir(parents=True)
        write_round(folder, number, 8 * number, 8, round_of(force) if number else {})
    text = rounds_report(runs, tmp_path / "report", 0.15)
    rows = [[cell.strip() for cell in line.split("|")] for line in text.splitlines()]
    assert ["", "0", "Ag3SBr", "4", "40.0", "200", "2.00", "–", "2", "1", ""] in rows
    table = pd.read_csv(tmp_path / "report" / "data" / "rounds.csv")
    assert table["force error (%)"].tolist() == pytest.approx([40] * 3 + [16] * 3)
    assert (tmp_path / "report" / "index.html").is_file()
    with pytest.raises(RunError, match="no round of active learning"):
        rounds_report(tmp_path / "nothing", tmp_path / "other")


def test_figure():
    figure = errors_by_round({1: round_of(200.0), 2: round_of(80.0)}, 0.15)
    forces, energies, replicas = figure.axes
    assert forces.lines[0].get_xydata().tolist() == [[0, 40], [1, 16]]
    assert energies.lines[0].get_ydata().tolist() == [2.0, 2.0]
    assert [bar.get_height() for bar in replicas.patches] == [4, 4, 2, 2]
