"""VASP's output is read right, and what is wrong with it is named."""

import re

import numpy as np
import pytest
from ase import Atoms
from ase.calculators.calculator import CalculationFailed
from ase.io import read
from ase.units import GPa

from schnetpack_phonon.calculators.base import band_edges
from schnetpack_phonon.calculators.external_code import NotConverged
from schnetpack_phonon.calculators.vasp import grouped, read_output, read_version
from tests.calculators.code_fixtures import CODES, MESHES

CODE = CODES["VASP"]
ATOMS = CODE.atoms


@pytest.fixture
def changed(output):
    """The stored output of a mesh with something replaced -> folder."""

    def make(pattern: str, replacement: str):
        return output("mesh", pattern, replacement, "vasprun.xml", "vasp")

    return make


@pytest.mark.parametrize(
    ("symbols", "order"),
    [("SAgBrAgS", [0, 4, 1, 3, 2]), ("AgAgS", [0, 1, 2]), ("SAgS", [0, 2, 1]), ("Ag", [0])],
)
def test_elements_stand_together_in_order_of_appearance(symbols, order):
    assert grouped(Atoms(symbols)).tolist() == order


def test_output_at_gamma():
    """Numbers as they stand in the file; its second atom is our third."""
    results = read_output(CODE.stored("gamma"), ATOMS)
    assert results["energy"] == -446.32936071
    forces = [
        [-1.17208882, -0.52590705, -0.47017092],
        [1.07380792, 0.54146193, 0.45588437],
        [0.14833261, -0.39876330, 0.33469662],
        [-0.05005172, 0.38320842, -0.32041007],
    ]
    np.testing.assert_array_equal(results["forces"], forces)
    kbar = [
        [162.20588858, 70.28822562, 79.79084744],
        [70.28822562, 171.47395549, -70.85742586],
        [79.79084744, -70.85742586, 157.97877247],
    ]
    np.testing.assert_allclose(results["stress"], -np.array(kbar) / 10 * GPa, rtol=1e-12)
    assert (results["vbm"], results["cbm"]) == (6.0308, 7.2156)
    assert results["band_gap_gamma"] == pytest.approx(1.1848)
    assert results["partial_occupation"] == 0


@pytest.mark.parametrize("kind", MESHES)
def test_reader_of_ase(kind):
    """Takes the same numbers out of the file, in VASP's order."""
    theirs = read(CODE.stored(kind) / "vasprun.xml", format="vasp-xml")
    ours = read_output(CODE.stored(kind), ATOMS)
    assert ours["energy"] == theirs.get_potential_energy(force_consistent=True)
    np.testing.assert_allclose(ours["forces"][[0, 2, 1, 3]], theirs.get_forces(), atol=1e-12)
    np.testing.assert_allclose(ours["stress"], theirs.get_stress(voigt=False), atol=1e-12)
    levels = np.concatenate([k.eps_n for k in theirs.calc.kpts])
    occupations = np.concatenate([k.f_n for k in theirs.calc.kpts])
    assert band_edges(levels, occupations) == (ours["vbm"], ours["cbm"])
    gamma = theirs.calc.kpts[0]
    valence, conduction = band_edges(gamma.eps_n, gamma.f_n)
    assert ours["band_gap_gamma"] == pytest.approx(conduction - valence, abs=1e-12)


def test_edges_over_the_mesh(changed):
    """A level of the second k-point becomes an edge; the gap at Gamma stays what it is."""
    before = read_output(CODE.stored("mesh"), ATOMS)
    level = r"(kpoint 2.*?(?:<r>[^\n]*\n\s+){8}<r> +)\S+"
    lowered = read_output(changed(level, r"\g<1>5.9"), ATOMS)
    assert (lowered["vbm"], lowered["cbm"]) == (before["vbm"], 5.9)
    assert lowered["band_gap_gamma"] == before["band_gap_gamma"]


@pytest.mark.parametrize(("occupation", "expected"), [("0.8500", 0.3), ("0.2000", 0.4)])
def test_partial_occupation(changed, occupation, expected):
    """Of two electrons, of which VASP writes the half; band edges do not move with it."""
    results = read_output(changed(r"1\.0000 (?=</r>\n\s+</set>|</r>)", f"{occupation} "), ATOMS)
    assert results["partial_occupation"] == pytest.approx(expected)
    before = read_output(CODE.stored("mesh"), ATOMS)
    assert (results["vbm"], results["cbm"]) == (before["vbm"], before["cbm"])


def test_all_steps_taken(changed):
    """The last may have converged, which OUTCAR tells and vasprun.xml does not."""
    folder = changed('(name="NELM"> +)100', r"\g<1>4")
    with pytest.raises(NotConverged, match="VASP's density did not converge"):
        read_output(folder, ATOMS)
    (folder / "OUTCAR").write_text("--- aborting loop EDIFF was not reached (unconverged)  ---\n")
    with pytest.raises(NotConverged):
        read_output(folder, ATOMS)
    (folder / "OUTCAR").write_text("---- aborting loop because EDIFF is reached ----\n")
    assert read_output(folder, ATOMS)["energy"] < 0


@pytest.mark.parametrize(
    ("pattern", "replacement", "message"),
    [
        (r"<eigenvalues>.*", "", "cut off: the calculation was killed or the disk is full"),
        (r".*", "", "cut off"),
        (r"<calculation>.*</calculation>", "", r"has no calculation\[last\(\)\]"),
        (r'<varray name="forces".*?</varray>', "", "has no varray.*forces"),
        (r'<varray name="stress".*?</varray>', "", "has no varray.*stress"),
        (r"<eigenvalues>.*</eigenvalues>", "", "has no eigenvalues"),
        (r'<set comment="kpoint 3">.*?</set>', "", "has no eigenvalues.*kpoint 3"),
        (r"<i name=\"e_fr_energy\">[^\n]*\n", "", "has no energy.*e_fr_energy"),
        (r"(<r>) +\S+", r"\1 ********", r"has a number it cannot hold: .*\*\*\*\*"),
        (r"<v>( +0\.00000000){3} </v>", "<v> 0.25 0.25 0.25 </v>", "no levels at Gamma: centre"),
        (r"(NELECT\"> +)16", r"\g<1>15", "15 electrons: a closed shell needs an even number"),
        (r"(NELECT\"> +)16", r"\g<1>24", "no band edge: 12 bands and 24 electrons"),
        (r"(ISPIN\"> +)1", r"\g<1>2", "spin-polarised: ISPIN=2; expected 1"),
        (r"(LNONCOLLINEAR\"> )F", r"\g<1>T", "spin-polarised: LNONCOLLINEAR=T; expected F"),
        (r"<v>      0\.056", "<v>      0.096", r"another cell, by 0\.04 Ang"),
        (r"0\.13056677", "0.23056677", r"has atom 2 \(As\) elsewhere, by 0\.\d+ Ang"),
    ],
)
def test_outputs_that_are_wrong(changed, pattern, replacement, message):
    with pytest.raises(CalculationFailed, match=message):
        read_output(changed(pattern, replacement), ATOMS)


_BOX = """
 -----------------------------------------------------------------------------
|                                                                             |
|     EEEEEEE  RRRRRR   RRRRRR   OOOOOOO  RRRRRR      ###     ###     ###     |
|     E        R     R  R     R  O     O  R     R     ###     ###     ###     |
|     EEEEEEE  R     R  R     R  OOOOOOO  R     R     ###     ###     ###     |
|                                                                             |
|     The number of bands is not sufficient to hold all electrons.            |
|     I found NBANDS    =      160                                            |
|                                                                             |
|       ---->  I REFUSE TO CONTINUE WITH THIS SICK JOB ... BYE!!! <----       |
|                                                                             |
 -----------------------------------------------------------------------------

MPI_ABORT was invoked on rank 0
"""


@pytest.mark.parametrize(
    ("printed", "message"),
    [
        (_BOX, "VASP stopped: The number of bands .* electrons. I found NBANDS = 160$"),
        (
            " DAV: 1\n Error EDDDAV: Call to ZHEGV failed\n more",
            "VASP stopped: Error EDDDAV: .*led$",
        ),
        (" VERY BAD NEWS! internal error in SGRCON:", "VASP stopped: VERY BAD NEWS! .* SGRCON:$"),
    ],
)
def test_reason_that_was_printed(changed, printed, message):
    folder = changed(r"<calculation>.*", "")
    (folder / "label.log").write_text(printed)
    with pytest.raises(CalculationFailed, match=message):
        read_output(folder, ATOMS)
    (folder / "vasprun.xml").unlink()
    with pytest.raises(CalculationFailed, match=message):
        read_output(folder, ATOMS)


def test_printed_errors_do_not_matter_where_the_output_is_whole(changed):
    folder = changed("a", "a")
    (folder / "label.log").write_text("WARNING: Sub-Space-Matrix is not hermitian: no error\n")
    assert read_output(folder, ATOMS)["energy"] < 0


def test_output_without_a_version(changed):
    with pytest.raises(CalculationFailed, match="does not tell its version"):
        read_version(changed(r'<i name="version"[^\n]*\n', ""))


def test_stored_outputs_are_in_the_order_of_vasp():
    """Or they would not test that it is undone."""
    text = (CODE.stored("mesh") / "vasprun.xml").read_text()
    assert re.findall(r"<rc><c>(\w+)", text) == ["Al", "Al", "As", "As"]
    assert ATOMS.get_chemical_symbols() == ["Al", "As", "Al", "As"]
