"""CP2K's input says what is asked, and the installed program understands it."""

import json
import os
import pickle
import re
import tempfile
from pathlib import Path

import numpy as np
import pytest
from ase.build import bulk
from ase.calculators.calculator import CalculationFailed
from hydra.utils import instantiate
from omegaconf import OmegaConf

from schnetpack_phonon import properties
from schnetpack_phonon._hydra import config_folder
from schnetpack_phonon.cp2k import CP2K
from schnetpack_phonon.cp2k_output import read_output
from schnetpack_phonon.external_code import NotConverged
from tests.cp2k_fixtures import MESHES, STORED, aluminium_phosphide, needs_cp2k


def test_overlapping_bands(output, fake):
    """A valence level above a conduction level at another k-point: no gap, but one at Gamma."""
    folder = output("mesh", "2.79380930", "6.78000000")
    labels = CP2K(command=fake(folder)).label(aluminium_phosphide())
    middle = pytest.approx((6.78 + 6.75443561) / 2)
    assert (labels["vbm"], labels["cbm"], labels["band_gap"]) == (middle, middle, 0)
    assert labels["band_gap_gamma"] == pytest.approx(2.06902924)


@pytest.mark.parametrize("kind", MESHES)
def test_labels_of_stored_outputs(kind, fake):
    atoms = aluminium_phosphide()
    calculator = CP2K(kpoints=MESHES[kind], command=fake(STORED / kind))
    calculator.check(atoms)
    labels = calculator.label(atoms)
    assert set(labels) == set(calculator.properties)
    for key, value in labels.items():
        assert value.shape == properties.array_shape(key, 2)
    assert labels["band_gap"] <= labels["band_gap_gamma"]
    atoms.calc = CP2K(command=fake(STORED / kind)).ase_calculator()
    assert atoms.get_potential_energy() == labels["energy"]
    np.testing.assert_allclose(atoms.get_stress(voigt=False), labels["stress"][0])


OPTIONS = [
    ("functional", "PBE", "PARAMETRIZATION ORIG"),
    ("functional", "revPBE", "PARAMETRIZATION REVPBE"),
    ("basis_set", "TZVP-MOLOPT-SR-GTH", "BASIS_SET TZVP-MOLOPT-SR-GTH"),
    ("potential", "GTH-BLYP", "POTENTIAL GTH-BLYP"),
    ("kpoints", [1, 2, 3], "SCHEME MONKHORST-PACK 1 2 3"),
    ("cutoff", 410.5, "CUTOFF 410.5"),
    ("rel_cutoff", 55, "REL_CUTOFF 55"),
    ("eps_default", 2e-11, "EPS_DEFAULT 2e-11"),
    ("eps_scf", 3e-6, "EPS_SCF 3e-06"),
    ("electronic_temperature", 250, "ELECTRONIC_TEMPERATURE [K] 250"),
    ("added_mos", 23, "ADDED_MOS 23"),
]


def lines(text: str) -> list[str]:
    return [line.strip() for line in text.splitlines()]


@pytest.mark.parametrize(("option", "value", "line"), OPTIONS)
def test_every_option_reaches_the_input_and_the_settings(option, value, line):
    atoms = aluminium_phosphide()
    default, changed = CP2K(), CP2K(**{option: value})
    assert line in lines(changed.input_text(atoms, 0.4))
    assert line not in lines(default.input_text(atoms, 0.4))
    different = {k for k in default.settings if default.settings[k] != changed.settings[k]}
    assert different == {option}
    assert changed.settings[option] == value


def test_default_input():
    text = lines(CP2K().input_text(aluminium_phosphide(), 0.4))
    for line in (
        "STRESS_TENSOR ANALYTICAL",
        "PARAMETRIZATION PBESOL",
        "SCHEME MONKHORST-PACK 2 2 2",
        "SPECIAL_POINT G 0.0 0.0 0.0",
        "ALPHA 0.4",
    ):
        assert text.count(line) == 1, line


def test_gamma_alone_is_calculated_with_real_orbitals():
    text = CP2K(kpoints=[1, 1, 1]).input_text(aluminium_phosphide(), 0.4)
    assert "KPOINT" not in text
    assert "BAND_STRUCTURE" not in text
    assert "&KPOINTS" in CP2K(kpoints=[1, 1, 2]).input_text(aluminium_phosphide(), 0.4)


def test_settings_tell_calculators_apart():
    """How a result is reached changes no label, and needs no new ones."""
    variants = [CP2K(), *(CP2K(**{option: value}) for option, value, _ in OPTIONS)]
    assert len({json.dumps(c.settings) for c in variants}) == len(variants)
    same = CP2K(mixing=[0.1], command="cp2k.ssmp", time_limit=60)
    assert same.settings == CP2K().settings


def test_structure_in_the_input():
    """Cell as rows, atoms in their order, ten digits, each element once."""
    atoms = aluminium_phosphide().repeat((2, 1, 1))
    text = CP2K().input_text(atoms, 0.4)
    cell = re.findall(r"^ +[ABC] +(\S+) (\S+) (\S+)$", text, re.MULTILINE)
    np.testing.assert_allclose(np.array(cell, dtype=float), atoms.cell.array, atol=1e-10)
    section = re.search(r"&COORD\n(.*)\n +&END COORD", text, re.DOTALL)[1]
    sites = [line.split() for line in section.splitlines()]
    assert [symbol for symbol, *_ in sites] == ["Al", "P", "Al", "P"]
    positions = np.array([numbers for _, *numbers in sites], dtype=float)
    np.testing.assert_allclose(positions, atoms.positions, atol=1e-10)
    assert re.findall(r"&KIND (\S+)", text) == ["Al", "P"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"functional": "LDA"}, "unknown functional 'LDA'; there are PBE, PBEsol, revPBE"),
        ({"kpoints": [2, 2]}, r"kpoints is \[2, 2\]; expected three integers >= 1"),
        ({"kpoints": [2, 0, 2]}, "expected three integers >= 1"),
        ({"added_mos": 0}, "added_mos is 0; a gap needs an empty band: >= 1"),
        ({"mixing": []}, r"mixing is \[\]; expected parameters between 0 and 1"),
        ({"mixing": [0.4, 0.01]}, r"mixing is \[0\.4, 0\.01\]; expected .* counts as converged"),
        ({"mixing": [1.5]}, r"expected parameters between 0 and 1"),
        ({"time_limit": 0}, r"time_limit is 0 s; expected > 0"),
    ],
)
def test_options_that_cannot_be(arguments, message):
    with pytest.raises(ValueError, match=message):
        CP2K(**arguments)


def test_travels_to_workers(fake):
    calculator = CP2K(kpoints=[1, 2, 3], mixing=[0.3], command=fake())
    _ = calculator.code_version
    there = pickle.loads(pickle.dumps(calculator))
    assert vars(there) == vars(calculator)
    atoms = aluminium_phosphide()
    assert there.input_text(atoms, 0.4) == calculator.input_text(atoms, 0.4)


def test_config_names_every_option_with_its_default():
    config = OmegaConf.load(Path(config_folder()) / "data" / "calculator" / "cp2k.yaml")
    assert vars(instantiate(config)) == vars(CP2K())
    assert len(config) == 1 + len(vars(CP2K()))


@needs_cp2k
@pytest.mark.parametrize("kind", MESHES)
def test_installed_program_writes_what_is_stored(kind, tmp_path, monkeypatch):
    """A new version of CP2K that writes otherwise fails here."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    atoms = aluminium_phosphide()
    labels = CP2K(kpoints=MESHES[kind], added_mos=4).label(atoms)
    for key, expected in read_output(STORED / kind, atoms).items():
        np.testing.assert_allclose(labels[key].squeeze(), expected, atol=1e-4, err_msg=key)
    assert not os.listdir(tmp_path)


@needs_cp2k
@pytest.mark.parametrize(
    ("structure", "options", "named"),
    [
        (bulk("LaN", "rocksalt", a=5.3), {}, "basis set <DZVP-MOLOPT-SR-GTH> for element <LA>"),
        (bulk("Si"), {"potential": "GTH-PBX"}, "potential <GTH-PBX> for element <Si> was not"),
        (bulk("Al"), {"kpoints": [1, 1, 1]}, "3 electrons: a closed shell needs an even number"),
    ],
    ids=["basis set", "potential", "odd"],
)
def test_installed_program_stops(structure, options, named):
    with pytest.raises(CalculationFailed, match=named):
        CP2K(**options).label(structure)


@needs_cp2k
@pytest.mark.slow
def test_installed_program_does_not_converge():
    """To a threshold out of reach, in the hundred steps that it has."""
    calculator = CP2K(kpoints=[1, 1, 1], cutoff=60, rel_cutoff=20, eps_scf=1e-30, mixing=[0.4])
    with pytest.raises(NotConverged):
        calculator.label(aluminium_phosphide())


@needs_cp2k
@pytest.mark.slow
def test_mesh_is_a_supercell_at_gamma():
    """Three k-points along an axis, Gamma among them, against three cells in a row."""
    atoms = aluminium_phosphide()
    mesh = CP2K(kpoints=[1, 1, 3], eps_scf=1e-6).label(atoms)
    row = CP2K(kpoints=[1, 1, 1], eps_scf=1e-6).label(atoms.repeat((1, 1, 3)))
    for key in ("energy_per_atom", "stress", "vbm", "cbm", "band_gap"):
        np.testing.assert_allclose(mesh[key], row[key], atol=1e-3, err_msg=key)
    np.testing.assert_allclose(np.tile(mesh["forces"], (3, 1)), row["forces"], atol=5e-3)
    assert mesh["band_gap"] < mesh["band_gap_gamma"] - 0.1
    assert row["band_gap"] == row["band_gap_gamma"]
