"""What holds for the output of all codes, and what is wrong with an output is named."""

import numpy as np
import pytest
from ase.calculators.calculator import CalculationFailed

from schnetpack_phonon.calculators.base import labels_from_results
from schnetpack_phonon.calculators.output import OtherStructure, check_structure
from schnetpack_phonon.common import properties
from tests.calculators.code_fixtures import CODES, MESHES


@pytest.mark.parametrize("kind", MESHES)
def test_labels_of_stored_outputs(code, kind, fake):
    calculator = code.make(kpoints=MESHES[kind], command=fake(code.stored(kind), code=code))
    calculator.check(code.atoms)
    labels = calculator.label(code.atoms)
    assert set(labels) == set(calculator.properties)
    for key, value in labels.items():
        assert value.shape == properties.array_shape(key, len(code.atoms))
    assert 0 < labels["band_gap"] <= labels["band_gap_gamma"]
    assert (labels["band_gap"] == labels["band_gap_gamma"]) == (kind == "gamma")
    atoms = code.atoms.copy()
    atoms.calc = code.make(command=fake(code.stored(kind), code=code)).ase_calculator()
    assert atoms.get_potential_energy() == labels["energy"]
    np.testing.assert_allclose(atoms.get_stress(voigt=False), labels["stress"][0])


def test_version_that_wrote_an_output(code):
    assert code.make().read_version(code.stored("mesh")) == code.version


@pytest.mark.parametrize(
    ("name", "file", "pattern"),
    [
        ("CP2K", "label.out", r"CP2K version 2023\.1"),
        ("Quantum ESPRESSO", "label.xml", r"VERSION=\"6.7MaX\""),
        ("VASP", "vasprun.xml", r'<i name="version"[^\n]*\n'),
    ],
)
def test_output_without_a_version(output, name, file, pattern):
    with pytest.raises(CalculationFailed, match=f"{name}'s output has no .*version"):
        CODES[name].make().read_version(output("mesh", pattern, "", file, name))


@pytest.mark.parametrize("change", ["another order", "another element"])
def test_outputs_of_other_atoms(code, change):
    others = code.atoms[::-1] if change == "another order" else code.atoms.copy()
    if change == "another element":
        others.numbers[0] = 31
    with pytest.raises(OtherStructure, match=r"output has \d atoms \(Al.*\); expected .* in that"):
        code.make().read_output(code.stored("mesh"), others)


@pytest.mark.parametrize("change", ["displaced", "strained"])
def test_outputs_of_other_positions_or_cells(code, change):
    others = code.atoms.copy()
    if change == "displaced":
        others.positions[-1, 2] += 0.002
        message = r"atom \d \(\w+\) at another position, 0\.002 Ang away"
    else:
        others.set_cell(others.cell * 1.001)
        message = r"another cell, different by 0\.00\d+ Ang"
    with pytest.raises(OtherStructure, match=f"{code.name}'s output has {message}"):
        code.make().read_output(code.stored("mesh"), others)


def test_check_of_structures():
    """Lattice vectors may be added to positions; values that are no numbers do not pass."""
    atoms = CODES["CP2K"].atoms
    symbols, cell, positions = atoms.get_chemical_symbols(), atoms.cell.array, atoms.positions
    check_structure(atoms, symbols, cell, positions + cell.sum(axis=0), "A code")
    with pytest.raises(OtherStructure, match=r"A code's output has another cell, .* 0\.06 Ang:"):
        check_structure(atoms, symbols, cell + np.eye(3) * 0.06, positions, "A code")
    moved = positions + np.outer([0, 1], [0.03, 0.04, 0])
    with pytest.raises(OtherStructure, match=r"A code's .* atom 1 \(P\) at .*, 0\.05 Ang away"):
        check_structure(atoms, symbols, cell, moved, "A code")
    with pytest.raises(OtherStructure, match="nan Ang away"):
        check_structure(atoms, symbols, cell, positions * np.nan, "A code")


def test_no_output(code, tmp_path):
    """The last printed line may say why."""
    calculator = code.make()
    with pytest.raises(CalculationFailed, match=f"{calculator.name} wrote no output$"):
        calculator.read_output(tmp_path, code.atoms)
    (tmp_path / "label.log").write_text("program: cannot load libfftw3.so\n\n")
    with pytest.raises(CalculationFailed, match="wrote no output: program: cannot load"):
        calculator.read_output(tmp_path, code.atoms)


@pytest.mark.parametrize(
    ("name", "file", "pattern", "replacement", "expected"),
    [
        ("CP2K", "label.out", r"(2\.79380930 +)2\.0", r"\g<1>1.7", 0.3),
        ("CP2K", "label.out", r"(6\.78907221 +)0\.0", r"\g<1>0.3", 0.3),
        # These codes write the occupation by one of two electrons.
        ("Quantum ESPRESSO", "label.xml", r"1\.0{15}e0(?=\s+1\.0)", "8.5e-1", 0.3),
        ("Quantum ESPRESSO", "label.xml", r"1\.0{15}e0(?=\s+1\.0)", "2e-1", 0.4),
        ("VASP", "vasprun.xml", r"1\.0000 (?=</r>\n\s+</set>|</r>)", "0.8500 ", 0.3),
        ("VASP", "vasprun.xml", r"1\.0000 (?=</r>\n\s+</set>|</r>)", "0.2000 ", 0.4),
    ],
)
def test_partial_occupation(output, name, file, pattern, replacement, expected):
    """Of two electrons; it does not move the band edges."""
    code = CODES[name]
    folder = output("mesh", pattern, replacement, file, name)
    results = code.make().read_output(folder, code.atoms)
    assert results["partial_occupation"] == pytest.approx(expected)
    before = code.make().read_output(code.stored("mesh"), code.atoms)
    assert (results["vbm"], results["cbm"]) == (before["vbm"], before["cbm"])


@pytest.mark.parametrize(
    ("name", "file", "pattern", "replacement", "middle"),
    [
        ("CP2K", "label.out", r"2\.79380930", "6.78000000", (6.78 + 6.75443561) / 2),
        (
            "Quantum ESPRESSO",
            "label.xml",
            r"(<eigenvalues size=\"8\">\s+(?:\S+\s+){3})\S+",
            r"\g<1>9.0e-1",
            None,
        ),
    ],
)
def test_overlapping_bands(output, name, file, pattern, replacement, middle):
    """A valence level above a conduction level at another k-point: the gap is zero."""
    code = CODES[name]
    folder = output("mesh", pattern, replacement, file, name)
    results = code.make().read_output(folder, code.atoms)
    assert results["vbm"] > results["cbm"]
    labels = labels_from_results(code.atoms, results)
    assert labels["vbm"] == labels["cbm"]
    assert labels["band_gap"] == 0
    if middle is not None:
        assert labels["vbm"] == pytest.approx(middle)


CP2K, QE, VASP, GPAW = (
    "CP2K label.out",
    "Quantum ESPRESSO label.xml",
    "VASP vasprun.xml",
    "GPAW results.json",
)
QE_LOG = "Quantum ESPRESSO label.log"
CUT_OFF = "output is cut off: the calculation was killed or the disk is full"


@pytest.mark.parametrize(
    ("file", "pattern", "replacement", "message"),
    [
        (CP2K, r"PROGRAM ENDED AT.*", "", CUT_OFF),
        (CP2K, r" SCF PARAM.*", "", CUT_OFF),
        (CP2K, r".*", "", CUT_OFF),
        (CP2K, r"&COORD.*?&END COORD", "", "has no copy of its input: set ECHO_INPUT"),
        (CP2K, r" \*\*\* SCF run .*?\n", "", "has no word about convergence of its density"),
        (CP2K, r"ENERGY\|.*?\n", "", "has no energy"),
        (CP2K, r" MO\|.*?\n", "", "has no orbital energies"),
        (CP2K, r"(K POINT 2\n)( MO\|[^\n]*\n)*", r"\1", "has no orbital energies"),
        (CP2K, r"Number of electrons:.*?\n", "", "has no number of electrons"),
        (
            CP2K,
            r"(Number of electrons: *)8",
            r"\g<1>7",
            "7 electrons: a closed shell needs an even",
        ),
        (CP2K, r"ATOMIC FORCES.*SUM OF", "SUM OF", "has no forces"),
        (CP2K, r"ATOMIC FORCES[^\n]*\n.*SUM OF", "ATOMIC FORCES in [a.u.]\n SUM OF", "has 0 atoms"),
        (CP2K, r"      2      2      P .*?\n", "", r"has 1 atoms \(Al\.\.\.\); expected AlP in"),
        (CP2K, r"STRESS\|.*?\n", "", "has no stress tensor"),
        (CP2K, r"STRESS\|      z.*?\n", "", "has no stress tensor"),
        (QE, r"<forces.*", "", CUT_OFF),
        (QE, r".*", "", CUT_OFF),
        (QE_LOG, r"JOB DONE.*", "", CUT_OFF),
        (QE, r"<forces.*</forces>", "", "has no output/forces$"),
        (QE, r"<stress.*</stress>", "", "has no output/stress$"),
        (QE, r"<etot>.*</etot>", "", "has no output/total_energy/etot"),
        (QE, r"<ks_energies>.*</ks_energies>", "", "has no levels at Gamma"),
        (QE, r"0\.0{15}e0 0\.0{15}e0 0\.0{15}e0(?=</k)", "0 0 0.25", "no levels at Gamma"),
        (QE, r"<nelec>8", "<nelec>7", "7 electrons: a closed shell needs an even number"),
        (
            QE,
            r"<noncolin>false",
            "<noncolin>true",
            r"is non-collinear \(noncolin=.true.\): spin-",
        ),
        (QE, r"Hartree atomic units\"", 'eV"', "is in 'eV'; expected Hartree atomic unit"),
        (QE, r">true<", ">false<", "density did not converge"),  # of newer versions, log or not
        (VASP, r"<eigenvalues>.*", "", CUT_OFF),
        (VASP, r".*", "", CUT_OFF),
        (VASP, r"<calculation>.*</calculation>", "", r"has no calculation\[last\(\)\]"),
        (VASP, r'<varray name="forces".*?</varray>', "", "has no varray.*forces"),
        (VASP, r'<varray name="stress".*?</varray>', "", "has no varray.*stress"),
        (VASP, r"<eigenvalues>.*</eigenvalues>", "", "has no eigenvalues"),
        (VASP, r'<set comment="kpoint 3">.*?</set>', "", "has no eigenvalues.*kpoint 3"),
        (VASP, r"(</varray>\s+<energy>\s+)<i [^\n]*\n", r"\1", "has no energy.*e_fr_energy"),
        (VASP, r"(<r>) +\S+", r"\1 ********", r"has a wrong number: .*\*\*\*\*"),
        (VASP, r"<v>( +0\.00000000){3} </v>", "<v> 0.25 0.25 0.25 </v>", "no levels at Gamma"),
        (VASP, r"(NELECT\"> +)16", r"\g<1>15", "15 electrons: a closed shell needs an even number"),
        (
            VASP,
            r"(LNONCOLLINEAR\"> )F",
            r"\g<1>T",
            r"non-collinear \(LNONCOLLINEAR=T\): spin-",
        ),
        (GPAW, r".*", "", CUT_OFF),
        (GPAW, r'"energies".*', "", CUT_OFF),
        (
            GPAW,
            r'"n_electrons": 8',
            '"n_electrons": 9',
            "has 8 electrons in its levels; expected 9",
        ),
        (GPAW, r'("weights": \[)[^,]*', r"\g<1>0.2", r"has 8\.6 electrons in its levels; expected"),
        (GPAW, r'("kpoints": \[\[)[^,]*', r"\g<1>0.5", "no levels at Gamma"),
    ],
)
def test_outputs_that_are_wrong(output, file, pattern, replacement, message):
    name, file = file.rsplit(" ", 1)
    folder = output("mesh", pattern, replacement, file, name)
    with pytest.raises(CalculationFailed, match=message):
        CODES[name].make().read_output(folder, CODES[name].atoms)
