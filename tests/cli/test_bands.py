"""spkphonon bands, called as a user calls it."""

from __future__ import annotations

import ase.io
import pytest
import torch
from ase import Atoms

from schnetpack_phonon.cli.bands import bands
from schnetpack_phonon.models.heads import Intensive
from tests.cli.command_fixtures import call
from tests.evaluation.bands.band_fixtures import write_run
from tests.models.model_fixtures import potential


@pytest.fixture
def here(tmp_path, monkeypatch):
    write_run(tmp_path)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_page_and_its_main_results(here, monkeypatch, capsys):
    ase.io.write("ag.extxyz", [Atoms("Ag", cell=[a] * 3, pbc=True) for a in (2.8, 2.9)])
    options = ("--frame", 1, "--path", "GX", "--window", -3, 3, "-o", "out")
    call(monkeypatch, bands.name, "run", "ag.extxyz", *options)
    text = capsys.readouterr().out
    assert "11 valence electrons" in text
    assert f"page: {here / 'out' / 'index.html'}" in text
    assert (here / "out" / "figures" / "bands.png").is_file()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("run", "data/labels.db"), "set --frame, 0 for the first"),
        (("run", "nowhere"), "no structure file at"),
        (("nowhere", "data/labels.db"), "no file nowhere"),
        (("pickle", "data/labels.db"), "pickle is a pickle .* --trust"),
        (("pickle", "data/labels.db", "--trust"), "predicts band_gap, has no learned Hamiltonian"),
        (("run", "data/labels.db", "-o", "pickle"), "pickle is a file; expected a folder"),
    ],
)
@pytest.mark.filterwarnings("ignore:You are using `torch.load`:FutureWarning")
def test_bad_input_is_one_line(here, monkeypatch, arguments, said):
    torch.save(potential(Intensive(16, "band_gap")), here / "pickle")
    with pytest.raises(SystemExit, match=said) as stop:
        call(monkeypatch, bands.name, *arguments)
    assert "\n" not in stop.value.code
    assert not (here / "bands").exists()
