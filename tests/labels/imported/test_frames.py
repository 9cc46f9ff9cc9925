"""Labels in files: names, units and signs; settings and convergence of VASP."""

import ase.db
import ase.io
import numpy as np
import pytest
from ase.build import bulk
from ase.calculators.emt import EMT
from ase.calculators.singlepoint import SinglePointCalculator
from ase.units import Bohr, kcal, mol
from schnetpack.data import ASEAtomsData

from schnetpack_phonon.calculators.vasp import Vasp
from schnetpack_phonon.common.errors import LabellingError, UnitError
from schnetpack_phonon.labels.imported.frames import FileLabels, read_labelled, same_source
from tests.calculators.code_fixtures import CODES


@pytest.fixture
def frame():
    atoms = bulk("Cu", cubic=True)
    atoms.rattle(0.1, seed=0)
    atoms.calc = EMT()
    results = {"energy": atoms.get_potential_energy(), "forces": atoms.get_forces()}
    results["stress"] = atoms.get_stress()
    atoms.calc = SinglePointCalculator(atoms, **results)
    return atoms


def test_names_of_extxyz(tmp_path, frame):
    frame.info |= {"bandgap": 1.5, "note": "no label"}
    ase.io.write(tmp_path / "a.extxyz", frame)
    (found,) = read_labelled(tmp_path / "a.extxyz")
    assert found.error is None
    assert set(found.labels) == {
        *("energy", "energy_per_atom", "forces", "stress", "hydrostatic_stress", "band_gap")
    }
    np.testing.assert_allclose(found.labels["forces"], frame.get_forces(), atol=1e-8)
    np.testing.assert_allclose(found.labels["stress"][0], frame.get_stress(voigt=False), atol=1e-8)
    assert found.labels["band_gap"] == [1.5]


def test_prefix(tmp_path, frame):
    """Only names with it are taken; a virial is minus the stress times the volume."""
    frame.info["REF_energy"] = -7.0
    frame.info["REF_virial"] = -frame.get_stress(voigt=False) * frame.get_volume()
    frame.arrays["REF_forces"] = 2 * frame.get_forces()
    ase.io.write(tmp_path / "a.extxyz", frame)
    (found,) = read_labelled(tmp_path / "a.extxyz", "REF_")
    assert found.labels["energy"] == [-7.0]
    np.testing.assert_allclose(found.labels["forces"], 2 * frame.get_forces(), atol=1e-7)
    np.testing.assert_allclose(found.labels["stress"][0], frame.get_stress(voigt=False), atol=1e-7)


def test_names_with_a_prefix_that_was_not_given(tmp_path, frame):
    frame.info["REF_energy"] = -7.0
    frame.calc = None
    ase.io.write(tmp_path / "a.extxyz", frame)
    with pytest.raises(LabellingError, match=r"no label, .* REF_: set data.ensemble.prefix=REF_"):
        _ = FileLabels(tmp_path / "a.extxyz").frames


@pytest.mark.parametrize("prefix", ["", "REF_"])
def test_databases_of_schnetpack(tmp_path, frame, prefix):
    """In whatever units they are; a stress of 1 GPa is 1 / 160.2 eV/Ang^3."""
    units = {"energy": "kcal/mol", "forces": "kcal/mol/Bohr", "stress": "GPa", "gap": "eV"}
    properties = {
        "energy": np.array([-100.0]),
        "forces": np.arange(3.0 * len(frame)).reshape(-1, 3),
        "stress": np.eye(3)[None],
        "gap": np.array([1.5]),
    }
    data = ASEAtomsData.create(
        str(tmp_path / "a.db"),
        distance_unit="Bohr",
        property_unit_dict={prefix + name: unit for name, unit in units.items()} | {"mine": "K"},
    )
    atoms = frame.copy()
    atoms.set_cell(atoms.cell.array / Bohr, scale_atoms=True)
    own = {prefix + name: value for name, value in properties.items()} | {"mine": np.ones(2)}
    data.add_system(atoms, **own)
    (found,) = read_labelled(tmp_path / "a.db", prefix)
    np.testing.assert_allclose(found.atoms.positions, frame.positions, atol=1e-6)
    np.testing.assert_allclose(found.atoms.cell.array, frame.cell.array, atol=1e-6)
    unit = kcal / mol
    assert found.labels["energy"].item() == pytest.approx(-100 * unit)
    np.testing.assert_allclose(found.labels["forces"], properties["forces"] * unit / Bohr)
    np.testing.assert_allclose(found.labels["stress"][0], np.eye(3) / 160.2176634, rtol=1e-5)
    assert found.labels["band_gap"].item() == 1.5


def test_unit_that_is_not_known(tmp_path, frame):
    data = ASEAtomsData.create(
        str(tmp_path / "a.db"), distance_unit="Ang", property_unit_dict={"energy": "florin"}
    )
    data.add_system(frame, energy=np.ones(1))
    with pytest.raises(UnitError, match=r"energy is in 'florin'; expected 'eV'"):
        list(read_labelled(tmp_path / "a.db"))


def test_database_without_units(tmp_path, frame):
    frame.calc = None
    with ase.db.connect(tmp_path / "a.db") as db:
        db.write(frame, data={"energy": np.ones(1)})
    with pytest.raises(LabellingError, match=r"no label named energy.*with the units of its"):
        _ = FileLabels(tmp_path / "a.db").frames


def test_frames_that_did_not_converge_and_labels_that_are_missing(tmp_path, frame):
    bad, poor = frame.copy(), frame.copy()
    bad.info |= {"converged": False, "band_gap": 1.0}
    poor.info |= {"band_gap": float("nan")}
    ase.io.write(tmp_path / "a.extxyz", [frame, bad, poor])
    first, second, third = read_labelled(tmp_path / "a.extxyz")
    assert "band_gap" not in first.labels
    assert second.labels == {}
    assert "did not converge" in second.error
    assert third.labels == {}
    assert third.error is None
    assert "band_gap" not in FileLabels(tmp_path / "a.extxyz").properties


@pytest.mark.parametrize("kind", ["gamma", "mesh"])
def test_vasprun_is_read_as_the_calculator_reads_it(kind):
    """Edges from the levels, too; settings and version are those of the file."""
    code = CODES["VASP"]
    path = code.stored(kind) / "vasprun.xml"
    (found,) = read_labelled(path)
    expected = Vasp("6.4.3").read_output(code.stored(kind), code.atoms)
    for key in ("forces", "stress", "vbm", "cbm", "band_gap_gamma", "partial_occupation"):
        own = found.labels[key].reshape(np.shape(expected[key]))
        if key == "forces":
            own = own[np.argsort(np.argsort(code.atoms.numbers, kind="stable"), kind="stable")]
        np.testing.assert_allclose(own, expected[key], atol=1e-5)
    assert found.labels["energy"].item() == pytest.approx(expected["energy"])
    labels = FileLabels(path)
    assert labels.code_version == "VASP 6.4.3"
    assert labels.settings["code"] == "VASP"
    assert labels.settings["EDIFF"] == "0.00000100"


def test_two_sources(tmp_path, frame):
    ase.io.write(tmp_path / "a.extxyz", frame)
    one = FileLabels(tmp_path / "a.extxyz")
    assert same_source([one]) is one
    assert same_source([one, one]).properties == one.properties
    with pytest.raises(LabellingError, match="expected one code with one set of settings"):
        same_source([one, FileLabels(CODES["VASP"].stored("mesh") / "vasprun.xml")])


# What ASE needs of an OUTCAR, in VASP's words.
OUTCAR = """\
 vasp.6.4.3 19Mar24 (build Mar 20 2024 10:00:00) complex
 POTCAR:    PAW_PBE Al 04Jan2001
 POTCAR:    PAW_PBE As 22Sep2009
 POTCAR:    PAW_PBE Al 04Jan2001
 POTCAR:    PAW_PBE As 22Sep2009
   k-points           NKPTS =      1   k-points in BZ NKDIM =  1   number of bands    NBANDS=      2
   ISPIN  =      1    spin polarized calculation?
   NELM   =    100;   NELMIN=  2; NELMDL= -5     # of ELM steps
   EDIFF  = 0.1E-05   stopping-criterion for ELM
   ions per type =               1   1
 k-points in reciprocal lattice and weights: Gamma
   0.00000000  0.00000000  0.00000000       1.000
"""
STEP = """\
------------------------------ Iteration      {n}(   7)  ------------------------------
 total energy-change (2. order) :{change:.7E}  (-0.1E-07)
------------------------ aborting loop because EDIFF is reached ------------------------
  in kB      16.02177     0.00000     0.00000     0.00000     0.00000     0.00000
      direct lattice vectors                 reciprocal lattice vectors
     0.000000000  2.800000000  2.800000000    -0.178571429  0.178571429  0.178571429
     2.800000000  0.000000000  2.800000000     0.178571429 -0.178571429  0.178571429
     2.800000000  2.800000000  0.000000000     0.178571429  0.178571429 -0.178571429

 POSITION                                       TOTAL-FORCE (eV/Angst)
 -----------------------------------------------------------------------------------
      0.00000      0.00000      0.00000         0.100000     0.000000    -0.200000
      1.40000      1.40000      1.4{n}000        -0.100000     0.000000     0.200000
 -----------------------------------------------------------------------------------
  FREE ENERGIE OF THE ION-ELECTRON SYSTEM (eV)
  ---------------------------------------------------
  free  energy   TOTEN  =       -10.2{n}000000 eV

  energy  without entropy=      -10.10000000  energy(sigma->0) =      -10.15000000
"""


def test_trajectory_in_an_outcar(tmp_path):
    """Free energies, forces and stress of each step that converged; no gap without levels."""
    steps = [STEP.format(n=n, change=1e-3 if n == 2 else 1e-7) for n in (1, 2, 3)]
    (tmp_path / "OUTCAR").write_text(OUTCAR + "".join(steps))
    first, second, third = read_labelled(tmp_path / "OUTCAR")
    assert "did not converge" in second.error
    for frame, energy in ((first, -10.21), (third, -10.23)):
        assert frame.error is None
        assert set(frame.labels) == {
            *("energy", "energy_per_atom", "forces", "stress", "hydrostatic_stress")
        }
        assert frame.labels["energy"] == pytest.approx(energy)
        np.testing.assert_allclose(frame.labels["forces"], [[0.1, 0, -0.2], [-0.1, 0, 0.2]])
        np.testing.assert_allclose(frame.labels["stress"][0, 0, 0], -0.01, rtol=1e-5)
    assert third.atoms.positions[1, 2] == 1.43
