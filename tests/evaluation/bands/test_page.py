"""A page about bands, from a run and a structure of any origin, and what is refused."""

from __future__ import annotations

import re

import ase.io
import numpy as np
import pandas as pd
import pytest
from ase import Atoms
from ase.io.jsonio import read_json

from schnetpack_phonon.common.errors import PhononError
from schnetpack_phonon.evaluation.bands.page import band_report
from schnetpack_phonon.models.predict import Predictor
from tests.evaluation.bands.band_fixtures import LABELS, STRUCTURES, write_run


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("bands")
    write_run(path)
    ase.io.write(path / "one.extxyz", STRUCTURES[3])
    ase.io.write(path / "all.extxyz", STRUCTURES)
    ase.io.write(path / "iodide.extxyz", Atoms("AgI", [[0, 0, 0], [0, 0, 3]]))
    (path / "text.db").write_text("no database")
    return path


def test_page_of_a_row_with_labels(folder, tmp_path):
    text = band_report(folder / "run", folder / "data" / "labels.db", tmp_path / "page", 3)
    assert "AgBr, 2 atoms: 18 valence electrons fill 9 of 10 levels." in text
    assert "predicts, at Γ alone: " in text
    assert "the label is 0.700 eV" in text
    data = tmp_path / "page" / "data"
    levels = Predictor(folder / "run").levels(STRUCTURES[3])
    bands = pd.read_csv(data / "bands.csv")
    found = levels.at(bands[["k1", "k2", "k3"]].to_numpy())
    columns = [f"level_{k + 1}" for k in range(10)]
    np.testing.assert_allclose(bands[columns], found, atol=1e-6)
    assert bands["point"].iloc[0] == "G"
    np.testing.assert_allclose(read_json(data / "bands.json").energies[0], found, atol=1e-6)
    edges = pd.read_csv(data / "edges.csv").set_index("quantity")
    assert edges["label"].to_dict() == {
        "gap": LABELS["band_gap"], "VBM": LABELS["vbm"], "CBM": LABELS["cbm"]
    }  # fmt: skip
    mesh = levels.mesh[2]
    assert edges.loc["VBM", "energy"] >= max(found[:, 8].max(), mesh[:, 8].max()) - 1e-6
    assert edges.loc["CBM", "energy"] <= min(found[:, 9].min(), mesh[:, 9].min()) + 1e-6
    dos = pd.read_csv(data / "density_of_states.csv")
    count = dos["states_per_eV"].sum() * (dos["energy"][1] - dos["energy"][0])
    assert count == pytest.approx(20, abs=1e-3)
    assert set(pd.read_csv(data / "hoppings.csv")["pair"]) == {"Ag-Ag", "Ag-Br", "Br-Br"}
    for name in ("bands", "hoppings"):
        assert (tmp_path / "page" / "figures" / f"{name}.png").is_file()
    assert "VBM of the label" in (tmp_path / "page" / "figures" / "bands.svg").read_text()


def test_page_of_a_molecule_without_labels_from_a_model_alone(folder, tmp_path):
    Atoms("AgBr", [[0, 0, 0], [0, 0, 2.4]]).write(tmp_path / "molecule.xyz")
    model = folder / "run" / "best_model"
    text = band_report(model, tmp_path / "molecule.xyz", tmp_path / "page")
    assert re.search(r"Direct gap of \d\.\d+ eV at Γ", text)
    assert "label" not in text
    assert list(pd.read_csv(tmp_path / "page" / "data" / "bands.csv")["point"]) == ["G"]


def test_page_of_an_odd_number_of_electrons(folder, tmp_path):
    Atoms("Ag", cell=[2.9] * 3, pbc=True).write(tmp_path / "odd.extxyz")
    text = band_report(folder / "run", tmp_path / "odd.extxyz", tmp_path, path="GR")
    assert "11 valence electrons fill 5.5 of 6 levels" in text
    assert "filled and empty bands overlap" in text
    assert "energy − Fermi level" in (tmp_path / "figures" / "bands.svg").read_text()
    assert list(pd.read_csv(tmp_path / "data" / "bands.csv")["point"].dropna()) == ["G", "R"]


@pytest.mark.parametrize(
    ("structure", "options", "message"),
    [
        ("data/labels.db", {}, "labels.db has several structures; expected one: set --frame"),
        ("data/labels.db", {"frame": 7}, "has 4 structures; there is no index 7"),
        ("all.extxyz", {}, "has 4 structures .*: set --frame, 0 for the first"),
        ("one.extxyz", {"frame": 3}, "--frame is 3; .*one.extxyz has 1 structures"),
        ("one.extxyz", {"path": "GQ"}, "the path is GQ; expected a sequence of"),
        ("one.extxyz", {"window": (2.0, 1.0)}, "the window is 2 to 1 eV; expected low < high"),
        ("iodide.extxyz", {}, "atomic number 53"),
        ("text.db", {}, "text.db is no ASE database"),
    ],
)
def test_unusable_input_is_refused(folder, tmp_path, structure, options, message):
    with pytest.raises((ValueError, PhononError), match=message):
        band_report(folder / "run", folder / structure, tmp_path / "page", **options)
    assert not (tmp_path / "page").exists()
