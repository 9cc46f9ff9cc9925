"""Settings of an output that are not those that were asked for are named."""

import re
from dataclasses import replace

import numpy as np
import pytest
from ase.units import Hartree, kB

from schnetpack_phonon.calculators.reading.settings import differences
from schnetpack_phonon.calculators.vasp import grouped
from tests.calculators.code_fixtures import CODES, output  # noqa: F401

WIDTH = 100 * kB
# What the programs write of the settings in tests; the stored outputs are without such tables.
VASP = f"""
 <incar>
  <i type="string" name="PREC">Accurate</i>
  <i name="ENCUT">    520.00000000</i>
  <i type="int" name="ISMEAR">    -1</i>
  <i name="SIGMA">      {WIDTH:.8f}</i>
  <i type="string" name="LREAL">F</i>
 </incar>
"""
VASP_PARAMETERS = """
  <separator name="general" >
   <i type="string" name="PREC">accura</i>
   <i name="ENMAX">    520.00000000</i>
   <i type="string" name="GGA">PS</i>
   <i type="logical" name="LASPH"> T  </i>
   <i type="logical" name="LHFCALC"> F  </i>
  </separator>
"""
ESPRESSO = f"""
  <input>
    <dft><functional>PBESOL</functional></dft>
    <spin><lsda>false</lsda></spin>
    <bands><smearing degauss="{WIDTH / Hartree}">fd</smearing>
      <occupations>smearing</occupations></bands>
    <basis><ecutwfc>1.0e1</ecutwfc><ecutrho>4.0E+001</ecutrho></basis>
    <electron_control><conv_thr>5.0e-9</conv_thr><max_nstep>100</max_nstep></electron_control>
    <k_points_IBZ><monkhorst_pack nk1="2" nk2="2" nk3="2" k1="0" k2="0" k3="0">MP</monkhorst_pack>
    </k_points_IBZ>
  </input>
"""
CP2K = """
     &MGRID
       CUTOFF     2.8000000000000000E+02
       REL_CUTOFF     3.0000000000000000E+01
     &END MGRID
         PARAMETRIZATION  PBESOL
       SCHEME  MONKHORST-PACK  2  2  2
       BASIS_SET DZVP-MOLOPT-SR-GTH
       POTENTIAL GTH-PBE
       BASIS_SET DZVP-MOLOPT-SR-GTH
       POTENTIAL GTH-PBE
"""


def folder_of(name: str, output, change=("", "")):  # noqa: F811
    """A stored output with settings, in which something is replaced."""
    file, place, text = {
        "VASP": ("vasprun.xml", " <parameters>", VASP + " <parameters>" + VASP_PARAMETERS),
        "Quantum ESPRESSO": ("label.xml", "  <output>", ESPRESSO + "  <output>"),
        "CP2K": ("label.out", "     &CELL", CP2K + "     &CELL"),
    }[name]
    folder = output("mesh", re.escape(place), text.replace("\\", r"\\"), file, name)
    whole = (folder / file).read_text()
    assert change[0] in whole
    (folder / file).write_text(whole.replace(*change))
    return folder


@pytest.mark.parametrize("name", ["VASP", "Quantum ESPRESSO", "CP2K"])
def test_settings_that_were_asked_for(name, output):  # noqa: F811
    code = CODES[name]
    calculator = code.make()
    folder = folder_of(name, output)
    assert calculator.other_settings(folder, code.atoms) == {}
    assert calculator.read_output(folder, code.atoms)
    assert calculator.other_settings(code.stored("mesh"), code.atoms) == {}  # which name none


@pytest.mark.parametrize(
    ("name", "change", "expected"),
    [
        ("VASP", ('"ENCUT">    520', '"ENCUT">    240'), "ENCUT is 240.00000000; expected 520.0"),
        ("VASP", ('"ISMEAR">    -1', '"ISMEAR">     0'), "ISMEAR is 0; expected -1"),
        ("VASP", ('"SIGMA">      0.008', '"SIGMA">      0.1'), r"SIGMA is 0\.1\d+; expected 0\.00"),
        ("VASP", ('"GGA">PS', '"GGA">PE'), "GGA is PE; expected PS"),
        ("VASP", ('"GGA">PS', '"GGA">--'), "GGA is --; expected PS"),
        ("VASP", (">Accurate<", ">Normal<"), "PREC is Normal; expected Accurate"),
        ("VASP", ('"LREAL">F', '"LREAL">A'), "LREAL is A; expected False"),
        ("VASP", ('"LASPH"> T', '"LASPH"> F'), "LASPH is F; expected True"),
        ("VASP", ('"EDIFF">      0.00000100', '"EDIFF">      0.0001'), "EDIFF is 0.0001; expected"),
        (
            "VASP",
            (" </incar>", '<i name="IVDW">12</i><i name="LHFCALC"> T </i></incar>'),
            "IVDW is 12; expected none",
        ),
        (
            "VASP",
            ("      2       2       2 </v>", "      8       8       8 </v>"),
            "k-points, mesh is 8 8 8; expected 2 2 2",
        ),
        ("VASP", ('"ISPIN">     1', '"ISPIN">     2'), "ISPIN is 2; expected 1"),
        ("Quantum ESPRESSO", ("1.0e1<", "2.0e1<"), "ecutwfc is 2.0e1; expected 10"),
        ("Quantum ESPRESSO", (">fd<", ">mv<"), "smearing is m; expected f"),
        ("Quantum ESPRESSO", ('degauss="', 'degauss="1'), "degauss is 10.000316"),
        ("Quantum ESPRESSO", ("PBESOL", "PBE0"), "functional is PBE0; expected pbesol"),
        ("Quantum ESPRESSO", ('nk3="2"', 'nk3="3"'), "k-points, mesh is 2 2 3; expected 2 2 2"),
        ("CP2K", ("CUTOFF     2.8", "CUTOFF     4.0"), r"CUTOFF is 4\.0000.*E\+02; expected 280.0"),
        ("CP2K", ("PBESOL", "ORIG"), "PARAMETRIZATION is ORIG; expected PBESOL"),
        ("CP2K", ("2  2  2", "1  2  2"), "SCHEME MONKHORST-PACK is 1 2 2; expected 2 2 2"),
        ("CP2K", ("eps_scf:                                        1.00E-03", "eps_scf: 1.00E-05"),
         "EPS_SCF is 1.00E-05; expected 0.001"),
        ("CP2K", ("DZVP-MOLOPT-SR-GTH\n       POTENTIAL GTH-PBE\n       BASIS", "SZV\n BASIS"),
         "BASIS_SET is DZVP-MOLOPT-SR-GTH and SZV; expected DZVP-MOLOPT-SR-GTH"),
    ],
)  # fmt: skip
def test_other_settings(name, change, expected, output):  # noqa: F811
    calculator = CODES[name].make(**({"functional": "pbesol"} if name[0] == "Q" else {}))
    found = calculator.other_settings(folder_of(name, output, change), CODES[name].atoms)
    assert any(re.match(expected, text) for text in found.values()), found


def test_tags_that_were_asked_for(output):  # noqa: F811
    atoms = CODES["VASP"].atoms
    change = (" </incar>", '<i name="IVDW">12</i></incar>')
    folder = folder_of("VASP", output, change)
    assert CODES["VASP"].make(incar={"IVDW": 12}).other_settings(folder, atoms) == {}
    assert CODES["VASP"].make(incar={"IVDW": 11}).other_settings(folder, atoms).keys() == {"IVDW"}
    calculator = CODES["VASP"].make(functional="PBE")
    folder = folder_of("VASP", output, ('"GGA">PS', '"GGA">--'))
    assert calculator.other_settings(folder, atoms).keys() == {
        "GGA"
    }  # no title of a pseudopotential
    assert replace(calculator, kpoints=(1, 1, 1)).other_settings(folder, atoms).keys() > {"GGA"}


def test_spins_that_were_asked_for(output):  # noqa: F811
    """Of a structure with moments; MAGMOM in the order of the output."""
    atoms = CODES["VASP"].atoms.copy()
    moments = np.arange(len(atoms)) - 1.5
    atoms.set_initial_magnetic_moments(moments)
    calculator = CODES["VASP"].make()
    two = ('"ISPIN">     1', '"ISPIN">     2')
    folder = folder_of("VASP", output)
    assert calculator.other_settings(folder, atoms).keys() == {"ISPIN"}
    text = (folder / "vasprun.xml").read_text().replace(*two)
    for values, wrong in ((moments[grouped(atoms)], set()), (np.ones(len(atoms)), {"MAGMOM"})):
        tag = f'<v name="MAGMOM"> {" ".join(map(str, values))} </v></incar>'
        (folder / "vasprun.xml").write_text(text.replace(" </incar>", tag))
        assert calculator.other_settings(folder, atoms).keys() == wrong
    code = CODES["Quantum ESPRESSO"]
    atoms = code.atoms.copy()
    atoms.set_initial_magnetic_moments([2.0, -2.0])
    found = code.make().other_settings(folder_of(code.name, output), atoms)
    assert found.keys() == {"lsda"}


def test_values_as_they_are_printed():
    found = {"a": " 0.00861733", "b": " T ", "c": "accura", "d": "2 2 2", "e": ".FALSE.", "f": "x"}
    expected = {"a": WIDTH, "b": True, "c": "Accurate", "d": (2, 2, 2), "e": False, "g": 1}
    assert differences(found, expected) == {}
    assert not differences({"a": "33.3", "b": "1.23E-06"}, {"a": 33.33, "b": 1.2345e-6})
    assert differences({"a": "33.4", "b": "1.24E-06"}, {"a": 33.33, "b": 1.2345e-6}).keys() == {
        *"ab"
    }
    others = {"a": 0.0087, "b": False, "c": "Normal", "d": (2, 2), "e": True, "f": 1.0}
    assert differences(found, others).keys() == others.keys()
