"""The page of a run holds the numbers of its tables."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from schnetpack_phonon.common.errors import ReportError
from schnetpack_phonon.evaluation.run_report import parity, read_report, write_report
from tests.common.figure_fixtures import CRYSTALS, N_CRYSTALS, draw

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
        ["hydrostatic stress", "GPa", "0.568", "0.679", "–", "0.100", "2.22", "0.555"],
        ["of_the_user", "", "3", "4", "-1.500", "-2.500", "3.33", "6.67"],
    ]
    assert f"model: {run / 'best_model'}" in page
    assert f"database: {Path('labels.db').resolve()}" in page
    assert read_report(run) == page


def test_page_of_a_run_that_was_moved(run, tmp_path):
    """With its data, which are found, or without."""
    (tmp_path / "here" / "data").mkdir(parents=True)
    run = run.rename(tmp_path / "here" / "run")
    (run / "best_model").touch()
    (tmp_path / "here" / "data" / "x.db").touch()
    (tmp_path / "outside.db").touch()
    pages = {}
    for database in ("here/data/x.db", "outside.db"):
        pages[database] = write_report(run, str(tmp_path / database), "best_model")
    (tmp_path / "here").rename(tmp_path / "there")
    for database, page in pages.items():
        (tmp_path / "there" / "run" / "report.md").write_text(page)
        place = f"{tmp_path}/{database.replace('here', 'there')}"
        found = read_report(tmp_path / "there" / "run")
        assert f"- database: {place}\n- model: {tmp_path}/there/run/best_model\n" in found
        assert f"- run folder: {tmp_path}/there/run\n" in found
        assert len(found.splitlines()) == len(page.splitlines())


def test_page_of_properties_without_a_unit(run):
    """An empty column of units is read back from the table as numbers."""
    METRICS.tail(1).to_csv(run / "metrics.csv", index=False)
    assert rows(write_report(run, "labels.db", "best_model"))[1][:3] == ["of_the_user", "", "3"]


def test_errors_of_components_are_called_so(run):
    """In tables of today, which count them, too."""
    METRICS.head(2).assign(property=["forces", "energy"], n_values=[7200, 59]).to_csv(
        run / "metrics.csv", index=False
    )
    page = write_report(run, "labels.db", "best_model")
    assert "Test set: 60 structures" in page
    assert [row[0] for row in rows(page)[1:]] == ["forces (per component)", "energy"]


def test_predictions_that_are_no_numbers_are_named(run):
    METRICS.assign(n_invalid=[9, 0, 0], mae=np.nan).to_csv(run / "metrics.csv", index=False)
    page = write_report(run, "labels.db", "best_model")
    assert "No errors of the band gap: 9 of 60 predictions are NaN or infinite" in page
    assert page.count("NaN or infinite") == 1
    assert page.count("worse than the mean of each crystal") == 1
    assert "Predictions of the of_the_user are worse" in page


def test_a_model_that_has_learned_nothing_is_to_be_trained_longer(run):
    advice = "trained on 28 structures for 21 epochs, 63 steps in all. Train longer"
    assert advice not in write_report(run, "labels.db", "best_model")
    (run / "run.json").write_text('{"n_train": 28, "epochs": 21, "steps": 63}')
    assert advice in write_report(run, "labels.db", "best_model")
    METRICS[:2].to_csv(run / "metrics.csv", index=False)
    assert advice not in write_report(run, "labels.db", "best_model")


def test_shares_of_few_structures_have_no_interval(run):
    """The verdict below calls them too few."""
    SHARES.assign(low=np.nan, high=np.nan).to_csv(run / "bond_shares.csv", index=False)
    assert rows(write_report(run, "labels.db", "best_model"))[5] == [
        "Ag3SBr", "Ag-S", "1.02", "-0.45",
    ]  # fmt: skip


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
        ["Ag3SI", "Ag-Ag", "0.07 [0.00, 0.10]", "none"],
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


def predictions(crystals: Sequence[str], keys: Sequence[str]) -> pd.DataFrame:
    rng = np.random.default_rng(0)
    rows = [(key, crystal) for key in keys for crystal in crystals for _ in range(5)]
    table = pd.DataFrame(rows, columns=["property", "structure"])
    return table.assign(
        label=rng.normal(size=len(rows)), prediction=rng.normal(size=len(rows))
    ).sample(frac=1, random_state=0)


@N_CRYSTALS
@pytest.mark.parametrize("n_keys", [1, 3])
def test_parity(crystals, n_keys):
    """One marker a structure; energies, whose zero is arbitrary, about their crystal's mean."""
    units = {"band_gap": "eV", "hydrostatic_stress": "GPa", "energy_per_atom": "meV"}
    keys = list(units)[:n_keys]
    titles = ["MAE 0.0123 eV,  R² 0.900", "MAE 4.5 GPa,  R² 0.800"]
    titles.append("MAE 678 meV,  R² within crystals 0.300")
    errors = {"mae": [0.0123, 4.5, 678.0], "r2": [0.9, 0.8, 0.7], "r2_crystal": [0.1, 0.2, 0.3]}
    table = predictions(crystals, keys)
    figure = parity(table, pd.DataFrame(errors, index=list(units)).loc[keys])
    draw(figure)
    panels = [axis for axis in figure.axes if axis.axison]
    assert [axis.get_title() for axis in panels] == titles[:n_keys]
    for axis, key in zip(panels, keys, strict=True):
        assert axis.get_xlabel().endswith(f"({units[key]})")
        assert axis.get_ylabel().endswith(f"({units[key]})")
        assert ("crystal mean" in axis.get_xlabel()) == (key == "energy_per_atom")
        assert axis.get_xlim() == axis.get_ylim()
        lines = {line.get_label(): line for line in axis.lines if line.get_label() in crystals}
        assert set(lines) == set(crystals)
        for crystal, line in lines.items():
            own = table[(table["property"] == key) & (table["structure"] == crystal)]
            zero = own["label"].mean() if key == "energy_per_atom" else 0.0
            expected = own[["label", "prediction"]] - zero
            np.testing.assert_allclose(line.get_xydata(), expected, atol=1e-12)
            low, high = axis.get_xlim()
            assert ((line.get_xydata() > low) & (line.get_xydata() < high)).all()
        assert len({(line.get_color(), line.get_marker()) for line in lines.values()}) == len(lines)
        (diagonal,) = (line for line in axis.lines if line.get_label() not in crystals)
        np.testing.assert_array_equal(diagonal.get_xdata(), diagonal.get_ydata())
    assert [text.get_text() for text in panels[0].get_legend().get_texts()] == list(crystals)


def test_parity_of_components():
    """They share a panel; levels, whose zero is arbitrary, each about their own crystal's mean."""
    table = pd.concat([predictions(["A"], ["eigenvalues", "forces"])] * 60)
    table = table.assign(component=["1,1", "1,2"] * 300)
    errors = pd.DataFrame({"mae": 0.1, "r2": 0.9, "r2_crystal": 0.8}, ["eigenvalues", "forces"])
    figure = parity(table, errors)
    draw(figure)
    levels, forces = (axis.lines[0] for axis in figure.axes)
    own = table[table["property"] == "eigenvalues"]
    mean = own.groupby("component")["label"].transform("mean")
    np.testing.assert_allclose(levels.get_xdata(), own["label"] - mean)
    assert figure.axes[1].get_xlabel() == "calculated forces (meV/Å)"
    assert len(forces.get_xdata()) == 300


def test_parity_of_one_structure():
    """A test set may be that small; its axes have a width all the same."""
    table = predictions(CRYSTALS[:1], ["band_gap"]).head(1).assign(label=1.0, prediction=1.0)
    errors = pd.DataFrame({"mae": [0.0], "r2": [np.nan], "r2_crystal": [np.nan]}, ["band_gap"])
    figure = parity(table, errors)
    draw(figure)
    low, high = figure.axes[0].get_xlim()
    assert low < 1.0 < high


@pytest.mark.parametrize("n_invalid", [3, 5])
def test_parity_counts_predictions_that_are_no_numbers(n_invalid):
    table = predictions(CRYSTALS[:1], ["band_gap"])
    table.iloc[:n_invalid, table.columns.get_loc("prediction")] = [np.inf] + [np.nan] * (
        n_invalid - 1
    )
    errors = pd.DataFrame({"mae": [np.nan], "r2": [np.nan], "r2_crystal": [np.nan]}, ["band_gap"])
    figure = parity(table, errors)
    draw(figure)
    (axis,) = figure.axes
    assert axis.get_title() == f"{n_invalid} of 5 predictions are NaN or infinite"
    assert len(axis.lines[0].get_xdata()) == 5 - n_invalid
