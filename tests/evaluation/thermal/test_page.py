"""The page about properties at temperature, as the command writes it."""

import sys

import pandas as pd
import pytest

from schnetpack_phonon.cli.commands import main
from schnetpack_phonon.models.heads import BandGap, Intensive
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
def test_page(tmp_path, monkeypatch, capsys, heads, titles):
    run = thermal_run(tmp_path, 1, heads)
    call(monkeypatch, run, "-n", 4, "-t", 0, 300, "-o", tmp_path / "page")
    said = capsys.readouterr().out
    assert ("the band gap changes by" in said) == bool(titles)
    assert "page: " in said
    page = (tmp_path / "page" / "report.md").read_text()
    assert [line[3:] for line in page.splitlines() if line.startswith("## ")] == [
        "What came out",
        "Against temperature",
        *titles,
        "How",
    ]
    table = pd.read_csv(tmp_path / "page" / "data" / "averages.csv")
    assert set(table["estimate"]) == {"ensemble", "special", "labels"}
    assert (tmp_path / "page" / "figures" / "against_temperature.svg").is_file()


def test_bad_input(tmp_path, monkeypatch, capsys):
    with pytest.raises(SystemExit, match="spkphonon thermal: no folder"):
        call(monkeypatch, tmp_path / "nowhere")
    with pytest.raises(SystemExit):
        call(monkeypatch, tmp_path, "-n", 1)
    assert "at least 2 snapshots" in capsys.readouterr().err
