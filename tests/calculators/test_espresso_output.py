"""The output of pw.x is read right, and what is wrong with it is named."""

import re

import numpy as np
import pytest
from ase.calculators.calculator import CalculationFailed
from ase.units import Bohr, GPa, Hartree, Rydberg

from schnetpack_phonon.calculators.base import band_edges, labels_from_results
from schnetpack_phonon.calculators.espresso import read_output, read_version
from schnetpack_phonon.calculators.external_code import NotConverged
from tests.calculators.code_fixtures import CODES, MESHES

CODE = CODES["Quantum ESPRESSO"]
ATOMS = CODE.atoms


@pytest.fixture
def changed(output):
    """The stored output of a mesh with something replaced -> folder."""

    def make(pattern: str, replacement: str, name: str = "label.xml"):
        return output("mesh", pattern, replacement, name, "espresso")

    return make


def test_output_at_gamma():
    """Numbers as they stand in the file."""
    results = read_output(CODE.stored("gamma"), ATOMS)
    assert results["energy"] == pytest.approx(-7.965102881855942 * Hartree, rel=1e-12)
    assert results["forces"].shape == (2, 3)
    assert results["vbm"] == pytest.approx(6.5745, abs=5e-5)
    assert results["cbm"] == pytest.approx(7.8602, abs=5e-5)
    assert results["band_gap_gamma"] == results["cbm"] - results["vbm"]
    assert results["partial_occupation"] < 1e-9


@pytest.mark.parametrize("kind", MESHES)
def test_numbers_that_are_printed(kind):
    """With fewer digits; bands counted by electrons are those told by occupation."""
    text = (CODE.stored(kind) / "label.log").read_text()
    results = read_output(CODE.stored(kind), ATOMS)

    def numbers(pattern: str) -> np.ndarray:
        return np.array([row.split() for row in re.findall(pattern, text)], dtype=float)

    levels = numbers(r"bands \(ev\):\n\n(.*?)\n\n").ravel()
    occupations = 2 * numbers(r"occupation numbers *\n(.*?)\n\n").ravel()
    assert len(levels) == len(occupations) == (8 if kind == "gamma" else 64)
    edges = np.array(band_edges(levels, occupations))
    np.testing.assert_allclose([results["vbm"], results["cbm"]], edges, atol=5e-5)
    energy = numbers(r"! +total energy += +(\S+) Ry").item()
    assert results["energy"] == pytest.approx(energy * Rydberg, abs=1e-7)
    forces = numbers(r"force = +(.*)")
    np.testing.assert_allclose(results["forces"], forces * Rydberg / Bohr, atol=1e-6)
    kbar = numbers(r"\n(?: {2}[- ]\d\.\d{8}){3} +(.*)")
    pressure = float(re.search(r"P= +(\S+)", text)[1])  # positive: wants to expand
    np.testing.assert_allclose(results["stress"], -kbar / 10 * GPa, atol=1e-5)
    assert np.trace(results["stress"]) / 3 == pytest.approx(-pressure / 10 * GPa, abs=1e-5)


def test_edges_over_the_mesh(changed):
    """The highest valence level is at Gamma, the lowest conduction level elsewhere."""
    results = read_output(CODE.stored("mesh"), ATOMS)
    text = (CODE.stored("mesh") / "label.log").read_text()
    levels = re.findall(r"bands \(ev\):\n\n(.*?)\n\n", text)
    valence, conduction = np.array([row.split()[3:5] for row in levels], dtype=float).T
    assert valence.argmax() == 0
    assert conduction.argmin() > 0
    assert results["vbm"] == pytest.approx(valence.max(), abs=5e-5)
    assert results["cbm"] == pytest.approx(conduction.min(), abs=5e-5)
    assert results["band_gap_gamma"] == pytest.approx(conduction[0] - valence[0], abs=1e-4)


def test_overlapping_bands(changed):
    """A valence level above a conduction level at another k-point: no gap, but one at Gamma."""
    level = re.search(r"<eigenvalues size=\"8\">\s+(?:\S+\s+){3}(\S+)", _xml())[1]
    results = read_output(changed(re.escape(level), "2.3e-1"), ATOMS)
    assert results["vbm"] == pytest.approx(0.23 * Hartree)
    assert results["vbm"] > results["cbm"]
    labels = labels_from_results(ATOMS, results)
    assert labels["band_gap"] == 0
    assert labels["band_gap_gamma"] > 0


def _xml() -> str:
    return (CODE.stored("mesh") / "label.xml").read_text()


@pytest.mark.parametrize(("occupation", "expected"), [("8.5e-1", 0.3), ("2e-1", 0.4)])
def test_partial_occupation(changed, occupation, expected):
    """Of two electrons; the band edges do not move with it."""
    folder = changed(r"1\.000000000000000e0(?=\s+1\.0)", occupation)
    results = read_output(folder, ATOMS)
    assert results["partial_occupation"] == pytest.approx(expected)
    before = read_output(CODE.stored("mesh"), ATOMS)
    assert (results["vbm"], results["cbm"]) == (before["vbm"], before["cbm"])


def test_density_that_did_not_converge(changed):
    """As newer versions tell it, which write their XML file all the same."""
    with pytest.raises(NotConverged, match="density did not converge"):
        read_output(changed(">true<", ">false<"), ATOMS)


_BOX = """
 %%%%%%%%%%%%%%%%%%%%%%%%%%%%%%%%%%%%%%%%%%%%%%%%%%%%%%%%%%%%%%%%%%%%%%%%%%%%%%
     Error in routine readpp (1):
     file ./Al.UPF not found
 %%%%%%%%%%%%%%%%%%%%%%%%%%%%%%%%%%%%%%%%%%%%%%%%%%%%%%%%%%%%%%%%%%%%%%%%%%%%%%

     stopping ...
"""


@pytest.mark.parametrize(
    ("name", "pattern", "replacement", "message"),
    [
        ("label.xml", r"<forces.*", "", "cut off: the calculation was killed or the disk is full"),
        ("label.xml", r".*", "", "cut off"),
        ("label.log", r"JOB DONE.*", "", "cut off"),
        ("label.log", r" *End of self.*", _BOX, r"stopped: Error .* readpp \(1\): file ./Al.UPF n"),
        ("label.xml", r"<forces.*</forces>", "", "has no forces$"),
        ("label.xml", r"<stress.*</stress>", "", "has no stress$"),
        ("label.xml", r"<etot>.*</etot>", "", "has no total_energy/etot"),
        ("label.xml", r"<ks_energies>.*</ks_energies>", "", "has no levels at Gamma"),
        ("label.xml", r"0\.0{15}e0 0\.0{15}e0 0\.0{15}e0(?=</k)", "0 0 0.25", "levels at Gamma: l"),
        ("label.xml", r"<nelec>8", "<nelec>7", "7 electrons: a closed shell needs an even number"),
        ("label.xml", r"<nelec>8\.0", "<nelec>16.0", "no band edge: 8 bands and 16 electrons"),
        ("label.xml", r"<lsda>false", "<lsda>true", r"spin-polarised \(lsda\); expected nspin=1"),
        ("label.xml", r"<noncolin>false", "<noncolin>true", r"spin-polarised \(noncolin\)"),
        ("label.xml", r"Hartree atomic units\"", 'eV"', "is in 'eV'; expected Hartree atomic unit"),
        ("label.xml", r"<a1>5\.", "<a1>9.", r"another cell, by 0\.02"),
        ("label.xml", r"(index=\"2\">)2\.", r"\g<1>3.", r"has atom 1 \(As\) elsewhere, by 0\.5"),
    ],
)
def test_outputs_that_are_wrong(changed, name, pattern, replacement, message):
    with pytest.raises(CalculationFailed, match=message):
        read_output(changed(pattern, replacement, name), ATOMS)


def test_output_without_what_was_printed(changed):
    """All numbers are in the XML file."""
    folder = changed("a", "a")
    (folder / "label.log").unlink()
    assert read_output(folder, ATOMS)["energy"] == pytest.approx(
        read_output(CODE.stored("mesh"), ATOMS)["energy"]
    )


def test_killed_before_the_end(changed):
    folder = changed(r"JOB DONE.*", "", "label.log")
    (folder / "label.xml").unlink()
    with pytest.raises(CalculationFailed, match="cut off"):
        read_output(folder, ATOMS)


def test_output_without_a_version(changed):
    with pytest.raises(CalculationFailed, match="does not tell its version"):
        read_version(changed(r"VERSION=\"6.7MaX\"", ""))
