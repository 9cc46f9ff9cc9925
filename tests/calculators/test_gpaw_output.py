"""What GPAW's script left is read right, and what is wrong with it is named."""

import json
import re

import numpy as np
import pytest
from ase.calculators.calculator import CalculationFailed

from schnetpack_phonon.calculators.base import band_edges
from schnetpack_phonon.calculators.gpaw import read_output, read_version
from tests.calculators.code_fixtures import CODES, MESHES

CODE = CODES["GPAW"]
ATOMS = CODE.atoms


@pytest.fixture
def changed(output):
    """The stored output of a mesh with something replaced -> folder."""

    def make(pattern: str, replacement: str):
        return output("mesh", pattern, replacement, "results.json", "gpaw")

    return make


@pytest.mark.parametrize("kind", MESHES)
def test_numbers_that_are_printed(kind):
    """With fewer digits; bands counted by electrons are those told by occupation."""
    text = (CODE.stored(kind) / "label.log").read_text()
    results = read_output(CODE.stored(kind), ATOMS)

    def numbers(pattern: str) -> np.ndarray:
        return np.array([row.split() for row in re.findall(pattern, text)], dtype=float)

    assert results["energy"] == pytest.approx(numbers(r"Free energy: +(\S+)").item(), abs=1e-6)
    gap = numbers(r"Gap: (\S+) eV").item()
    assert results["cbm"] - results["vbm"] == pytest.approx(gap, abs=6e-4)
    forces = numbers(r"\n  \d [A-Z]\w? +([^\n]*)")
    np.testing.assert_allclose(results["forces"], forces, atol=1e-5)
    stress = numbers(r"\n +(-?0\.\d{6} +-?0\.\d{6} +-?0\.\d{6})(?=\n)")
    np.testing.assert_allclose(results["stress"], stress, atol=1e-6)
    found = json.loads((CODE.stored(kind) / "results.json").read_text())
    levels, occupations = np.array(found["energies"]), np.array(found["occupations"])
    assert band_edges(levels.ravel(), occupations.ravel()) == (results["vbm"], results["cbm"])
    valence, conduction = band_edges(levels[0], occupations[0])
    assert results["band_gap_gamma"] == conduction - valence


def test_levels_that_are_printed():
    """With their occupations, of two electrons."""
    text = (CODE.stored("gamma") / "label.log").read_text()
    rows = np.array(re.findall(r"\n +\d +(-?\d+\.\d{5}) +(\d\.\d{5})(?=\n)", text), dtype=float)
    found = json.loads((CODE.stored("gamma") / "results.json").read_text())
    np.testing.assert_allclose(rows[:, 0], found["energies"][0], atol=1e-5)
    np.testing.assert_allclose(rows[:, 1], found["occupations"][0], atol=1e-5)


def test_edges_over_the_mesh():
    """The highest valence level is at Gamma, the lowest conduction level elsewhere."""
    found = json.loads((CODE.stored("mesh") / "results.json").read_text())
    results = read_output(CODE.stored("mesh"), ATOMS)
    levels = np.array(found["energies"])
    assert results["vbm"] == levels[0, 3]
    assert results["cbm"] == levels[1:, 4].min() < levels[0, 4]


@pytest.mark.parametrize(
    ("pattern", "replacement", "message"),
    [
        (r".*", "", "cut off: the calculation was killed or the disk is full"),
        (r'"energies".*', "", "cut off"),
        (r'"n_spins": 1', '"n_spins": 2', "spin-polarised; expected spinpol=False"),
        (r'"n_electrons": 8', '"n_electrons": 9', "has 8 electrons in its levels; expected 9"),
        (r'("weights": \[)[^,]*', r"\g<1>0.2", r"has 8\.6 electrons in its levels; expected 8"),
        (r'("cell": \[\[)0', r"\g<1>3", "another cell, by 3 Ang"),
        (r'("positions": \[\[)0', r"\g<1>1", r"has atom 0 \(Al\) elsewhere, by 1 Ang"),
    ],
)
def test_outputs_that_are_wrong(changed, pattern, replacement, message):
    with pytest.raises(CalculationFailed, match=message):
        read_output(changed(pattern, replacement), ATOMS)


_TRACEBACK = """\
Traceback (most recent call last):
  File "label.py", line 60, in <module>
    main()
FileNotFoundError: Could not find required PAW dataset file "Al.PBEsol".

You need to set the GPAW_SETUP_PATH environment variable to point to
for details.
"""


def test_reason_that_was_printed(tmp_path):
    """The error, not the advice below it; and no reason where it was killed."""
    (tmp_path / "label.log").write_text(_TRACEBACK)
    with pytest.raises(CalculationFailed, match=r"GPAW stopped: FileNotFoundError: .*PBEsol\"\.$"):
        read_output(tmp_path, ATOMS)
    (tmp_path / "label.log").write_text("Initialize ...\n\niter:   1\n")
    with pytest.raises(CalculationFailed, match="GPAW's output is cut off"):
        read_version(tmp_path)
