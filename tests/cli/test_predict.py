"""spkphonon predict, called as a user calls it."""

import ase.io
import pandas as pd
import pytest

from schnetpack_phonon.cli.predict import predict
from tests.cli.command_fixtures import call
from tests.evaluation.comparison.comparison_fixtures import ENERGY, databases, write_run
from tests.models.model_fixtures import thermal


def test_properties_of_all_structures_by_two_runs(tmp_path, monkeypatch, capsys):
    path = databases(tmp_path)["phonon"]
    runs = [write_run(tmp_path / "runs" / f"s{k}", path, k, range(1, 9)) for k in (1, 2)]
    ase.io.write("frames.extxyz", ase.io.read(path, ":3"))
    call(monkeypatch, "predict", runs[0], "frames.extxyz", "-o", "out.csv", "--also", runs[1])
    said = capsys.readouterr().out
    assert "out.csv: 3 structures" in said
    assert f"{ENERGY}_std (eV)" in pd.read_csv("out.csv")
    ase.io.write("frames.extxyz", thermal()[0])
    with pytest.raises(SystemExit, match=r"structure 0 of frames\.extxyz: Ag3BrS has elements"):
        call(monkeypatch, "predict", runs[0], "frames.extxyz", "-o", "out.csv")


def test_units_have_a_key(monkeypatch, capsys):
    assert predict.name == "predict"
    with pytest.raises(SystemExit) as stop:
        call(monkeypatch, "predict", "RUN", "x.xyz", "-o", "out.csv", "--unit", "eV")
    assert stop.value.code == 2
    assert "expected KEY=UNIT" in capsys.readouterr().err
