"""Labels in files: names, units and signs; settings and convergence of VASP."""

import ase.db
import ase.io
import numpy as np
import pytest
from ase.build import bulk
from ase.calculators.emt import EMT
from ase.calculators.singlepoint import SinglePointCalculator

from schnetpack_phonon.calculators.vasp import Vasp
from schnetpack_phonon.common.errors import LabellingError
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


def test_databases_of_schnetpack_have_units_of_their_own(tmp_path, frame):
    frame.calc = None
    with ase.db.connect(tmp_path / "a.db") as db:
        db.write(frame, data={"energy": np.ones(1)})
    with pytest.raises(LabellingError, match=r"no label of ASE.*spkphonon extxyz a\.db"):
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
