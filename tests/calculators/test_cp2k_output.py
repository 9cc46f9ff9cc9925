"""CP2K's output is read right, and what is wrong with it is named."""

import re
import shutil

import numpy as np
import pytest
from ase.build import bulk
from ase.calculators.calculator import CalculationFailed
from ase.units import Bohr, GPa, Hartree

from schnetpack_phonon.calculators.base import band_edges
from schnetpack_phonon.calculators.cp2k import read_output
from schnetpack_phonon.calculators.external_code import OtherStructure
from tests.calculators.code_fixtures import MESHES
from tests.calculators.cp2k_fixtures import STORED, aluminium_phosphide


def test_output_at_gamma():
    """Numbers as they stand in the file."""
    results = read_output(STORED / "gamma", aluminium_phosphide())
    assert results["energy"] == pytest.approx(-8.176460718229020 * Hartree, rel=1e-12)
    forces = np.array(
        [[-0.0321735590, -0.0113781035, -0.0181094780], [0.0321641169, 0.0113795278, 0.0181139678]]
    )
    np.testing.assert_allclose(results["forces"], forces * Hartree / Bohr, rtol=1e-12)
    pressure = [
        [37.3865655644, 2.96713469259, -1.37648860940],
        [2.96713469259, 33.6457660731, -1.78033859663],
        [-1.37648860940, -1.78033859663, 33.6175925836],
    ]
    np.testing.assert_allclose(results["stress"], -np.array(pressure) * GPa, rtol=1e-12)
    assert (results["vbm"], results["cbm"]) == (6.22547243, 8.04999983)
    assert results["band_gap_gamma"] == pytest.approx(1.82452740, abs=1e-7)  # CP2K prints it too
    assert results["partial_occupation"] == 0


def test_output_of_a_mesh():
    """The highest valence level is at Gamma, the lowest conduction level at another k-point."""
    results = read_output(STORED / "mesh", aluminium_phosphide())
    assert results["energy"] == pytest.approx(-8.658380767126076 * Hartree, rel=1e-12)
    assert (results["vbm"], results["cbm"]) == (4.92421069, 6.75443561)
    assert results["band_gap_gamma"] == pytest.approx(6.99323993 - 4.92421069, abs=1e-7)


@pytest.mark.parametrize("kind", MESHES)
def test_gaps_that_cp2k_prints(kind):
    """None is smaller than ours; bands counted by electrons are those told by occupation."""
    text = (STORED / kind / "label.out").read_text()
    rows = [line.split() for line in text.splitlines() if re.match(r" MO\|\s+\d", line)]
    energies, occupations = np.array(rows)[:, -2:].astype(float).T
    if kind == "mesh":
        bands = np.loadtxt(STORED / kind / "bands")
        energies = np.append(energies, bands[:, 1])
        occupations = np.append(occupations, bands[:, 2])
    results = read_output(STORED / kind, aluminium_phosphide())
    assert band_edges(energies, occupations) == (results["vbm"], results["cbm"])
    printed = [float(gap) for gap in re.findall(r"MO\| Band gap: .* (\S+) eV", text)]
    assert len(printed) == (4 if kind == "mesh" else 1)
    assert results["cbm"] - results["vbm"] < min(printed) + 1e-7


def test_edges_come_from_the_mesh_or_from_gamma(output):
    """Both of them from either; the gap at Gamma stays what it is."""
    atoms = aluminium_phosphide()
    raised = read_output(output("mesh", "4.50955080", "5.60000000"), atoms)
    assert (raised["vbm"], raised["cbm"]) == (5.6, 6.75443561)
    assert raised["band_gap_gamma"] == pytest.approx(2.06902924, abs=1e-7)
    lowered = read_output(output("mesh", "6.99323993", "6.10000000", "bands"), atoms)
    assert (lowered["vbm"], lowered["cbm"]) == (4.92421069, 6.1)
    assert lowered["band_gap_gamma"] == pytest.approx(6.1 - 4.92421069, abs=1e-7)


@pytest.mark.parametrize(("level", "occupation"), [("2.79380930", 1.7), ("6.78907221", 0.3)])
def test_partial_occupation(output, level, occupation):
    """Of one level at one k-point; the band edges do not move with it."""
    folder = output("mesh", rf"({level} +)[02]\.0", rf"\g<1>{occupation}")
    results = read_output(folder, aluminium_phosphide())
    assert results["partial_occupation"] == pytest.approx(0.3)
    assert (results["vbm"], results["cbm"]) == (4.92421069, 6.75443561)


# ---- what can be wrong with it

_BOX = """
 *******************************************************************************
 *   ___                                                                       *
 *  /   \\                                                                      *
 * [ABORT]                                                                     *
 *  \\___/    The requested basis set <DZVP-MOLOPT-SR-GTH> for element <LA> was *
 *    |               not found in the basis set files <BASIS_MOLOPT>          *
 *  O/|                                                                        *
 * /| |                                                                        *
 * / \\                                          aobasis/basis_set_types.F:1509 *
 *******************************************************************************


 ===== Routine Calling Stack =====

            3 read_qs_kind
            2 create_qs_kind_set
            1 CP2K
"""


@pytest.mark.parametrize(
    ("pattern", "replacement", "message"),
    [
        (r"PROGRAM ENDED AT.*", "", "cut off: the calculation was killed or the disk is full"),
        (r" SCF PARAM.*", "", "cut off"),
        (r".*", "", "cut off"),
        (
            r" SCF PARAM.*",
            _BOX.replace("\\", r"\\"),
            "CP2K stopped: The requested basis set <DZVP-MOLOPT-SR-GTH> for element <LA> was not "
            r"found in the basis set files <BASIS_MOLOPT> aobasis/basis_set_types.F:1509$",
        ),
        (r"ENERGY\|.*?\n", "", "has no energy"),
        (r" MO\|.*?\n", "", "has no orbital energies"),
        (r"(K POINT 2\n)( MO\|[^\n]*\n)*", r"\1", "has no orbital energies"),
        (r"MO\| EIG", "MO| ALPHA EIG", "is spin-polarised; expected no UKS"),
        (r"Number of electrons:.*?\n", "", "does not tell the number of electrons"),
        (r"(Number of electrons: *)8", r"\g<1>7", "7 electrons: a closed shell needs an even"),
        (r"ATOMIC FORCES.*SUM OF", "SUM OF", "has 0 atoms .*; expected AlP in that order"),
        (r"      2      2      P .*?\n", "", r"has 1 atoms \(Al\.\.\.\); expected AlP in"),
        (r"STRESS\|.*?\n", "", "has no stress tensor"),
        (r"STRESS\|      z.*?\n", "", "has no stress tensor"),
    ],
)
def test_outputs_that_are_not_complete(output, pattern, replacement, message):
    with pytest.raises(CalculationFailed, match=message):
        read_output(output("mesh", pattern, replacement), aluminium_phosphide())


def test_outputs_of_other_atoms():
    """Of other elements, in another order, elsewhere, in another cell."""
    atoms = aluminium_phosphide()
    displaced, strained = atoms.copy(), atoms.copy()
    displaced.positions[1, 2] += 0.002
    strained.set_cell(atoms.cell * 1.001)
    for others, message in (
        (bulk("GaP", "zincblende", a=5.5), r"2 atoms \(AlP\.\.\.\); expected GaP in that order"),
        (atoms[::-1], r"2 atoms \(AlP\.\.\.\); expected PAl in that order"),
        (displaced, r"atom 1 \(P\) elsewhere, by 0\.002 Ang"),
        (strained, r"another cell, by 0\.0028\d Ang"),
    ):
        with pytest.raises(OtherStructure, match=f"CP2K's output has {message}"):
            read_output(STORED / "mesh", others)


def test_input_is_not_repeated(output):
    with pytest.raises(CalculationFailed, match="does not repeat its input: set ECHO_INPUT"):
        read_output(output("mesh", "&COORD.*?&END COORD", ""), aluminium_phosphide())


def test_last_of_several_runs_in_a_folder_counts(output):
    """CP2K appends to what it finds there."""
    atoms = aluminium_phosphide()
    folder = output("mesh", r"PROGRAM ENDED AT", "")
    for name in ("label.out", "bands"):
        text = (STORED / "mesh" / name).read_text()
        with open(folder / name, "a") as file:
            file.write(text)
    found = read_output(folder, atoms)
    for key, expected in read_output(STORED / "mesh", atoms).items():
        np.testing.assert_array_equal(found[key], expected, err_msg=key)
    with open(folder / "label.out", "a") as file:
        file.write(" **** PROGRAM STARTED AT\n")
    with pytest.raises(CalculationFailed, match="cut off"):
        read_output(folder, atoms)


def test_mesh_without_levels_at_gamma(tmp_path):
    """A k-point of the mesh is not taken for Gamma."""
    shutil.copy(STORED / "mesh" / "label.out", tmp_path)
    with pytest.raises(CalculationFailed, match="no levels at Gamma"):
        read_output(tmp_path, aluminium_phosphide())
