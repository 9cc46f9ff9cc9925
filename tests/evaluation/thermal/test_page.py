"""The page about properties at temperature, as the command writes it, and its figures."""

import sys

import numpy as np
import pandas as pd
import pytest

from schnetpack_phonon.cli.commands import main
from schnetpack_phonon.evaluation.thermal import page
from schnetpack_phonon.models.heads import BandGap, Intensive
from tests.common.figure_fixtures import draw
from tests.evaluation.comparison.comparison_fixtures import ENERGY
from tests.evaluation.thermal.thermal_fixtures import thermal_run


def call(monkeypatch, *arguments):
    monkeypatch.setattr(sys, "argv", ["spkphonon", "thermal", *map(str, arguments)])
    main()


@pytest.mark.parametrize(
    ("heads", "titles"),
    [
        ([BandGap(16, "band_gap"), Intensive(16, ENERGY)], ["Single modes"]),
        ([Intensive(16, ENERGY)], []),
    ],
    ids=["gap", "no gap"],
)
def test_page(tmp_path, monkeypatch, capsys, full_disk, heads, titles):
    run = thermal_run(tmp_path, 1, heads)
    call(monkeypatch, run, "-n", 4, "-t", 0, 300, "-o", tmp_path / "page")
    said = capsys.readouterr().out
    assert ("the band gap changes by" in said) == bool(titles)
    assert said.count("meV from rest (predicted) to 300 K") == len(titles)
    assert "page: " in said
    text = (tmp_path / "page" / "report.md").read_text()
    assert [line[3:] for line in text.splitlines() if line.startswith("## ")] == [
        "What came out",
        "Against temperature",
        *titles,
        "How",
    ]
    assert "Changes count from the label of the crystal at rest" in text
    assert ("or, where there is none" in text) == bool(titles)  # EMT has no gap
    table = pd.read_csv(tmp_path / "page" / "data" / "averages.csv")
    assert set(table["estimate"]) == {"ensemble", "special", "labels"}
    assert (tmp_path / "page" / "figures" / "against_temperature.svg").is_file()
    full = tmp_path / "full"
    with full_disk(10), pytest.raises(SystemExit, match="too large"):
        call(monkeypatch, run, "-n", 2, "-t", 0, "-o", full)
    assert not full.exists()


def test_bad_input(tmp_path, monkeypatch, capsys, read_only):
    with pytest.raises(SystemExit, match="spkphonon thermal: no folder"):
        call(monkeypatch, tmp_path / "nowhere")
    with read_only(), pytest.raises(SystemExit, match=r"cannot write to .*page .*is read-only"):
        call(monkeypatch, tmp_path / "nowhere", "-o", read_only.folder / "page")
    with pytest.raises(SystemExit):
        call(monkeypatch, tmp_path, "-n", 1)
    assert "at least 2 snapshots" in capsys.readouterr().err


def averages():
    rows = [
        {
            "structure": "Ag3SBr",
            "property": key,
            "temperature": t,
            "statistics": statistics,
            "estimate": estimate,
            "value": value - t / 1000,
            "error": 0.01,
            "seed_sd": 0.02,
            "unit": unit,
        }
        for key, value, unit in (("band_gap", 1.0, "eV"), ("energy_per_atom", -500.0, "meV"))
        for t in (0.0, 300.0)
        for statistics in ("quantum", "classical")
        for estimate in ("ensemble", "special", "labels")
    ]
    return pd.DataFrame(rows)


def test_against_temperature():
    """Energies, whose zero is arbitrary, from the crystal at rest: its label if there is one."""
    rows = [
        ("band_gap", "predicted", 1.1),
        ("energy_per_atom", "predicted", -480.0),
        ("energy_per_atom", "labelled", -499.0),
    ]
    static = pd.DataFrame(rows, columns=["property", "at_rest", "value"]).assign(structure="Ag3SBr")
    figure = page.against_temperature(averages(), static)
    draw(figure)
    for axis, expected in zip(figure.axes, ([1.0, 0.7], [-1.0, -1.3]), strict=True):
        line = axis.containers[0].lines[0]
        np.testing.assert_allclose(line.get_ydata(orig=False), expected)
    lines = [{one.get_label(): one for one in axis.lines} for axis in figure.axes]
    shown = [
        {name: line.get_ydata()[0] for name, line in own.items() if name[:7] == "at rest"}
        for own in lines
    ]
    assert np.isnan(shown[0].pop("at rest, labelled"))
    assert shown == [
        {"at rest, predicted": 1.1},
        {"at rest, labelled": 0, "at rest, predicted": 19},
    ]
    names = [text.get_text() for text in figure.legends[0].get_texts()]
    assert {"at rest, predicted", "at rest, labelled"} <= set(names)
    assert figure.axes[0].get_ylabel() == "band gap (eV)"
    assert figure.axes[1].get_ylabel() == "energy per atom − at rest (meV)"


def test_modes():
    table = pd.DataFrame({"structure": ["A", "A", "B"], "frequency": [1.0, 2, 3]})
    figure = page.modes(table.assign(shift=[-10, 2.0, 0.0]), 300)
    draw(figure)
    shown = [axis.lines[0].get_ydata() for axis in figure.axes]
    np.testing.assert_allclose(np.concatenate(shown), [-10, 2, 0])
