"""The page of a run holds the numbers of its tables."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest

from schnetpack_phonon.common.errors import ReportError
from schnetpack_phonon.evaluation.run_report import read_report, write_report

METRICS = pd.DataFrame(
    {
        "property": ["band_gap", "hydrostatic_stress", "of_the_user"],
        "n": [60, 59, 60],
        "mae": [0.01234, 0.5678, 3.0],
        "rmse": [0.02345, 0.6789, 4.0],
        "r2": [0.9876, float("nan"), -1.5],
        "r2_crystal": [0.8765, 0.1, -2.5],
        "mae_mean": [0.1111, 2.222, 3.333],
        "mae_crystal_mean": [0.0444, 0.5555, 6.666],
        "unit": ["eV", "GPa", ""],
    }
)
SHARES = pd.DataFrame(
    [
        ("Ag3SI", "trained", "Ag-I", 0.1, 0.05, 0.15),
        ("Ag3SI", "trained", "Ag-S", 0.81, 0.7, 0.9),
        ("Ag3SI", "trained", "Ag-Ag", 0.07, 0.0, 0.1),
        ("Ag3SI", "trained", "I-S", 0.02, -0.01, 0.05),
        ("Ag3SI", "untrained", "Ag-S", 0.33, 0.22, 0.44),
        ("Ag3SI", "untrained", "Ag-I", 0.6, 0.5, 0.7),
        ("Ag3SBr", "trained", "Ag-S", 1.02, 0.99, 1.05),
        ("Ag3SBr", "untrained", "Ag-S", -0.45, -0.5, -0.4),
    ],
    columns=["structure", "model", "bond_type", "share", "low", "high"],
)


@pytest.fixture
def run(tmp_path: Path) -> Path:
    folder = tmp_path / "some_run"
    folder.mkdir()
    METRICS.to_csv(folder / "metrics.csv", index=False)
    return folder


def rows(page: str) -> list[list[str]]:
    """Cells of all Markdown tables, without the rulers."""
    lines = [line for line in page.splitlines() if line.startswith("|")]
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    return [row for row in cells if set(row[0]) != {"-"}]


def test_page_without_attribution(run):
    page = write_report(run, "labels.db", "best_model")
    assert page.startswith("# some_run\n")
    assert "60 structures" in page
    head, *errors = rows(page)
    assert head[2:6] == ["MAE", "RMSE", "R²", "R² within crystals"]
    assert errors == [
        ["band gap", "eV", "0.0123", "0.0234", "0.988", "0.876", "0.111", "0.0444"],
        ["hydrostatic stress", "GPa", "0.568", "0.679", "nan", "0.100", "2.22", "0.555"],
        ["of_the_user", "", "3", "4", "-1.500", "-2.500", "3.33", "6.67"],
    ]
    assert f"model: {run / 'best_model'}" in page
    assert f"database: {Path('labels.db').resolve()}" in page
    assert read_report(run) == page


def test_page_of_properties_without_a_unit(run):
    """An empty column of units is read back from the table as numbers."""
    METRICS.tail(1).to_csv(run / "metrics.csv", index=False)
    assert rows(write_report(run, "labels.db", "best_model"))[1][:3] == ["of_the_user", "", "3"]


def test_page_with_attribution(run):
    """At most three bonds of a crystal, the largest first, each with its own control; aligned."""
    SHARES.to_csv(run / "bond_shares.csv", index=False)
    page = write_report(run, "labels.db", "best_model")
    for table in page.split("\n\n"):
        assert len({len(line) for line in table.splitlines() if line.startswith("|")}) <= 1
    assert rows(page)[5:] == [
        ["Ag3SBr", "Ag-S", "1.02 [0.99, 1.05]", "-0.45 [-0.50, -0.40]"],
        ["Ag3SI", "Ag-S", "0.81 [0.70, 0.90]", "0.33 [0.22, 0.44]"],
        ["Ag3SI", "Ag-I", "0.10 [0.05, 0.15]", "0.60 [0.50, 0.70]"],
        ["Ag3SI", "Ag-Ag", "0.07 [0.00, 0.10]", "nan [nan, nan]"],
    ]


def test_page_names_tables_and_figures_that_are_there(run):
    (run / "figures").mkdir()
    for name in ("parity.png", "band_gap_distribution.png"):
        (run / "figures" / name).touch()
    (run / "predictions.csv").touch()
    page = write_report(run, "labels.db", "best_model")
    assert "- tables: metrics.csv, predictions.csv\n" in page
    assert "- figures: band_gap_distribution.png, parity.png\n" in page


def test_unfinished_runs_are_named(tmp_path):
    with pytest.raises(ReportError, match=r"no metrics\.csv in .*not finished"):
        write_report(tmp_path, "labels.db", "best_model")
    with pytest.raises(ReportError, match=r"no report\.md in .*not a finished run"):
        read_report(tmp_path)
