"""CP2K's input says what is asked, its output is read right, and what is wrong with it is named.

``tests/data/cp2k`` holds what CP2K 2023.1 wrote for :func:`aluminium_phosphide` and 4 empty
bands, at Gamma and with a mesh, less its tables of settings, references and times.
"""

import json
import os
import pickle
import re
import shutil
import tempfile
from pathlib import Path

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk
from ase.calculators.calculator import CalculationFailed
from ase.units import Bohr, GPa, Hartree
from hydra.utils import instantiate
from omegaconf import OmegaConf

from schnetpack_phonon import properties
from schnetpack_phonon._hydra import config_folder
from schnetpack_phonon.calculators import UnavailableError, band_edges
from schnetpack_phonon.cp2k import CP2K, NotConverged, read_output

STORED = Path(__file__).parent / "data" / "cp2k"
MESHES = {"gamma": (1, 1, 1), "mesh": (2, 2, 2)}
needs_cp2k = pytest.mark.skipif(shutil.which(CP2K().command) is None, reason="CP2K not installed")


def aluminium_phosphide() -> Atoms:
    """Two atoms without any symmetry."""
    atoms = bulk("AlP", "zincblende", a=5.46)
    shear = [[0.02, 0.03, 0.0], [0.0, 0.0, 0.02], [0.01, 0.0, -0.01]]
    atoms.set_cell(atoms.cell @ (np.eye(3) + shear), scale_atoms=True)
    atoms.rattle(0.1, seed=3)
    return atoms


@pytest.fixture
def output(tmp_path):
    """A stored output of which ``pattern`` is replaced -> folder that holds it."""

    def make(kind: str, pattern: str, replacement: str, name: str = "label.out") -> Path:
        folder = Path(tempfile.mkdtemp(dir=tmp_path))
        shutil.copytree(STORED / kind, folder, dirs_exist_ok=True)
        text, count = re.subn(pattern, replacement, (folder / name).read_text(), flags=re.DOTALL)
        assert count, f"{pattern} is not in {name}"
        (folder / name).write_text(text)
        return folder

    return make


_EXECUTABLE = """#!/bin/sh
[ "$1" = --version ] && echo " CP2K version 2023.1" && exit
echo "$OMP_NUM_THREADS threads" $(grep ALPHA label.inp) >> {log}
cp {answers}/$(wc -l < {log} | tr -d " ")/* .
exit 1
"""


@pytest.fixture
def fake(tmp_path):
    """Folders -> an executable whose n-th run writes the files of the n-th of them."""

    def make(*folders: Path) -> str:
        answers = Path(tempfile.mkdtemp(dir=tmp_path))
        for number, folder in enumerate(folders, 1):
            shutil.copytree(folder, answers / str(number))
        executable = answers / "cp2k"
        executable.write_text(_EXECUTABLE.format(log=tmp_path / "log", answers=answers))
        executable.chmod(0o755)
        (tmp_path / "log").unlink(missing_ok=True)
        return str(executable)

    make.runs = lambda: (tmp_path / "log").read_text().splitlines()
    return make


# ---- what comes out


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
        (r"Number of electrons:.*?\n", "", "does not tell the number of electrons"),
        (r"(Number of electrons: *)8", r"\g<1>7", "7 electrons: a closed shell needs an even"),
        (r"ATOMIC FORCES.*SUM OF", "SUM OF", "forces on 0 atoms .*; expected AlP in that order"),
        (r"      2      2      P .*?\n", "", r"forces on 1 atoms \(Al\.\.\.\); expected AlP in"),
        (r"STRESS\|.*?\n", "", "has no stress tensor"),
        (r"STRESS\|      z.*?\n", "", "has no stress tensor"),
    ],
)
def test_outputs_that_are_not_complete(output, pattern, replacement, message):
    with pytest.raises(CalculationFailed, match=message):
        read_output(output("mesh", pattern, replacement), aluminium_phosphide())


@pytest.mark.parametrize(
    ("others", "expected"),
    [(aluminium_phosphide()[::-1], "PAl"), (bulk("GaP", "zincblende", a=5.5), "GaP")],
    ids=["another order", "another element"],
)
def test_outputs_of_other_atoms(others, expected):
    with pytest.raises(CalculationFailed, match=rf"\(AlP\.\.\.\); expected {expected} in that"):
        read_output(STORED / "mesh", others)


def test_no_output(tmp_path):
    with pytest.raises(CalculationFailed, match="CP2K wrote no output"):
        read_output(tmp_path, aluminium_phosphide())


def test_mesh_without_levels_at_gamma(tmp_path):
    """A k-point of the mesh is not taken for Gamma."""
    shutil.copy(STORED / "mesh" / "label.out", tmp_path)
    with pytest.raises(CalculationFailed, match="no levels at Gamma"):
        read_output(tmp_path, aluminium_phosphide())


# ---- how it is run


@pytest.fixture
def diverged(output):
    """As CP2K 2023.1 says it, which then goes on with forces that are worth nothing."""
    return output(
        "mesh",
        r"  \*\*\* SCF run converged in *\d+ steps \*\*\*",
        "  Leaving inner SCF loop after reaching   100 steps.\n\n"
        " *** WARNING in qs_scf.F:601 :: SCF run NOT converged ***",
    )


def test_next_mixing_where_the_density_does_not_converge(diverged, fake, monkeypatch):
    """And no more of them than are needed."""
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    command = fake(diverged, STORED / "mesh", STORED / "mesh")
    labels = CP2K(command=command, mixing=[0.4, 0.15, 0.1]).label(aluminium_phosphide())
    assert labels["energy"] == pytest.approx(-8.658380767126076 * Hartree)
    assert fake.runs() == ["1 threads ALPHA 0.4", "1 threads ALPHA 0.15"]


def test_no_mixing_converges(diverged, fake):
    with pytest.raises(NotConverged, match="density did not converge"):
        CP2K(command=fake(diverged, diverged), mixing=[0.3, 0.2]).label(aluminium_phosphide())
    assert [run.split()[-1] for run in fake.runs()] == ["0.3", "0.2"]


def test_other_failures_are_not_tried_again(output, fake):
    with pytest.raises(CalculationFailed, match="no energy"):
        CP2K(command=fake(output("mesh", r"ENERGY\|", ""))).label(aluminium_phosphide())
    assert len(fake.runs()) == 1


def test_number_of_threads_is_the_worker_s(fake, monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    CP2K(command=fake(STORED / "mesh")).label(aluminium_phosphide())
    assert fake.runs() == ["3 threads ALPHA 0.4"]


def test_nothing_stays_on_the_disk(fake, output, tmp_path, monkeypatch):
    """Neither where it runs nor among the temporary files, also after a failure."""
    command = fake(STORED / "mesh", output("mesh", r"ENERGY\|", ""))
    for name in ("here", "scratch"):
        (tmp_path / name).mkdir()
    monkeypatch.chdir(tmp_path / "here")
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "scratch"))
    CP2K(command=command).label(aluminium_phosphide())
    with pytest.raises(CalculationFailed, match="no energy"):
        CP2K(command=command).label(aluminium_phosphide())
    assert not [*(tmp_path / "here").iterdir(), *(tmp_path / "scratch").iterdir()]


def test_time_limit(tmp_path):
    slow = tmp_path / "slow"
    slow.write_text("#!/bin/sh\nexec sleep 60\n")
    slow.chmod(0o755)
    with pytest.raises(CalculationFailed, match=r"longer than 0\.2 s: raise .*time_limit"):
        CP2K(command=str(slow), time_limit=0.2).label(aluminium_phosphide())


def test_executable_is_not_there():
    calculator = CP2K(command="no-such-cp2k")
    named = "cannot run 'no-such-cp2k' .*install CP2K .* or set data.calculator.command"
    with pytest.raises(UnavailableError, match=named):
        calculator.check(aluminium_phosphide())
    with pytest.raises(UnavailableError, match="cannot run 'no-such-cp2k'"):
        calculator.label(aluminium_phosphide())


def test_stored_labels_need_no_executable(fake):
    calculator = CP2K(command="no-such-cp2k", version="2023.1")
    calculator.check(aluminium_phosphide())
    assert calculator.code_version == CP2K(command=fake()).code_version


def test_labels_of_another_version_are_not_computed(fake):
    with pytest.raises(UnavailableError, match=r"CP2K 2030\.1 .* is 2023\.1: set .*version=null"):
        CP2K(command=fake(), version="2030.1").label(aluminium_phosphide())


def test_executable_is_not_cp2k():
    with pytest.raises(UnavailableError, match=r"'echo' does not answer --version as CP2K does"):
        _ = CP2K(command="echo").code_version
    with pytest.raises(UnavailableError, match=r"cannot run 'false' .*data.calculator.command"):
        _ = CP2K(command="false").code_version


def test_code_version(fake):
    assert CP2K(command=fake()).code_version == "CP2K 2023.1"


def test_only_crystals(fake):
    slab = aluminium_phosphide()
    slab.pbc[2] = False
    with pytest.raises(ValueError, match="AlP is not periodic in 3 directions"):
        CP2K(command=fake()).check(slab)


# ---- what goes in

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
    assert line in lines(changed.input_text(atoms))
    assert line not in lines(default.input_text(atoms))
    different = {k for k in default.settings if default.settings[k] != changed.settings[k]}
    assert different == {option}
    assert changed.settings[option] == value


def test_default_input():
    text = lines(CP2K().input_text(aluminium_phosphide()))
    for line in (
        "STRESS_TENSOR ANALYTICAL",
        "PARAMETRIZATION PBESOL",
        "SCHEME MONKHORST-PACK 2 2 2",
        "SPECIAL_POINT G 0.0 0.0 0.0",
        "ALPHA 0.4",
    ):
        assert text.count(line) == 1, line


def test_gamma_alone_is_calculated_with_real_orbitals():
    text = CP2K(kpoints=[1, 1, 1]).input_text(aluminium_phosphide())
    assert "KPOINT" not in text
    assert "BAND_STRUCTURE" not in text
    assert "&KPOINTS" in CP2K(kpoints=[1, 1, 2]).input_text(aluminium_phosphide())


def test_settings_tell_calculators_apart():
    """How a result is reached changes no label, and needs no new ones."""
    variants = [CP2K(), *(CP2K(**{option: value}) for option, value, _ in OPTIONS)]
    assert len({json.dumps(c.settings) for c in variants}) == len(variants)
    same = CP2K(mixing=[0.1], command="cp2k.ssmp", time_limit=60)
    assert same.settings == CP2K().settings


def test_structure_in_the_input():
    """Cell as rows, atoms in their order, ten digits, each element once."""
    atoms = aluminium_phosphide().repeat((2, 1, 1))
    text = CP2K().input_text(atoms)
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
        ({"mixing": []}, r"mixing is \[\]; expected parameters between 0\.1 and 1"),
        ({"mixing": [0.4, 0.01]}, r"mixing is \[0\.4, 0\.01\]; expected .* counts as converged"),
        ({"mixing": [1.5]}, r"expected parameters between 0\.1 and 1"),
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
    assert there.input_text(atoms) == calculator.input_text(atoms)


def test_config_names_every_option_with_its_default():
    config = OmegaConf.load(Path(config_folder()) / "data" / "calculator" / "cp2k.yaml")
    assert vars(instantiate(config)) == vars(CP2K())
    assert len(config) == 1 + len(vars(CP2K()))


# ---- the program itself


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
