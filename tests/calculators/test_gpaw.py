"""GPAW: its input contains all options, and the output of our script is read correctly."""

import json
import re
import runpy
import sys
from types import SimpleNamespace

import numpy as np
import pytest
from ase.build import bulk
from ase.calculators.calculator import CalculationFailed
from ase.calculators.emt import EMT
from ase.constraints import FixAtoms

from schnetpack_phonon.calculators.reading.levels import band_edges
from schnetpack_phonon.common.errors import UnavailableError
from tests.calculators.code_fixtures import CODES, MESHES

CODE = CODES["GPAW"]
ATOMS = CODE.atoms


def job(calculator, atoms, folder) -> dict:
    calculator.write_input(folder, atoms, 0.4)
    return json.loads((folder / "label.json").read_text())


def test_default_input(tmp_path):
    """To the last digit of the structure, and nothing of what else ASE may know of it."""
    atoms = CODE.atoms.copy()
    plain = job(CODE.make(), atoms, tmp_path)
    assert plain["numbers"] == [13, 15]
    assert plain["positions"] == atoms.positions.tolist()
    assert plain["cell"] == atoms.cell.array.tolist()
    assert (plain["mixing"], plain["kpoints"]) == (0.4, [2, 2, 2])
    atoms.set_constraint(FixAtoms([0]))
    assert job(CODE.make(), atoms, tmp_path) == plain
    atoms.set_initial_magnetic_moments([1.0, -1.0])
    moments = {"magnetic_moments": [1.0, -1.0]}
    assert job(CODE.make(), atoms, tmp_path) == plain | moments
    assert {path.name for path in tmp_path.iterdir()} == {"label.json", "label.py"}


def test_script_is_what_runs(tmp_path):
    """And loads nothing of ours, which GPAW's Python need not have."""
    calculator = CODE.make(command="mpiexec -n 4 python3")
    calculator.write_input(tmp_path, CODE.atoms, 0.4)
    assert calculator.arguments() == ["mpiexec", "-n", "4", "python3", "label.py"]
    script = (tmp_path / "label.py").read_text()
    assert "schnetpack" not in script
    compile(script, "label.py", "exec")


class _StandIn(EMT):
    """What the script asks of GPAW, with levels that tell spin, k-point and band."""

    def __init__(self, spinpol, **options):
        super().__init__()
        self.n_spins = 1 + spinpol

    def get_number_of_spins(self):
        return self.n_spins

    def get_number_of_electrons(self):
        return 4

    def get_k_point_weights(self):
        return np.array([0.25, 0.75])

    def get_ibz_k_points(self):
        return np.eye(2, 3)

    def get_eigenvalues(self, kpt=0, spin=0):
        return 100.0 * spin + 10 * kpt + np.arange(3)

    def get_occupation_numbers(self, kpt=0, spin=0):  # GPAW's have the weight of the k-point
        return self.get_k_point_weights()[kpt] * 2 / self.n_spins * np.array([1, 1, 0])


@pytest.mark.parametrize("kind", MESHES)
def test_two_spins_that_are_alike(tmp_path, kind):
    """Have the labels of one."""
    found = json.loads((CODE.stored(kind) / "results.json").read_text())
    twice = {key: [found[key]] * 2 for key in ("energies", "occupations")}
    (tmp_path / "results.json").write_text(json.dumps(found | twice | {"n_spins": 2}))
    one, two = (CODE.make().read_output(folder, ATOMS) for folder in (CODE.stored(kind), tmp_path))
    assert {key: two[key] for key in ("vbm", "cbm", "band_gap_gamma")} == {
        key: one[key] for key in ("vbm", "cbm", "band_gap_gamma")
    }


def test_two_spins_that_differ(tmp_path):
    """All levels of one are higher: both have the gap of one spin, that over both is smaller."""
    found = json.loads((CODE.stored("mesh") / "results.json").read_text())
    up = np.array(found["energies"])
    found |= {"energies": [up.tolist(), (up + 0.25).tolist()], "n_spins": 2}
    found["occupations"] = [found["occupations"]] * 2
    (tmp_path / "results.json").write_text(json.dumps(found))
    one, two = (CODE.make().read_output(path, ATOMS) for path in (CODE.stored("mesh"), tmp_path))
    gap = one["cbm"] - one["vbm"]
    np.testing.assert_allclose(two["band_gap_spin"], [gap, gap])
    assert two["cbm"] - two["vbm"] == pytest.approx(gap - 0.25)


@pytest.mark.parametrize("moments", [None, [1.0, -1.0]])
def test_script_of_one_and_two_spins(monkeypatch, tmp_path, moments):
    """Occupations are 2 of a full level, of one spin too; moments reach the calculator."""
    made = []

    def gpaw(**options):
        made.append(_StandIn(**options))
        return made[-1]

    names = {"GPAW": gpaw, "KohnShamConvergenceError": RuntimeError, "__version__": "22.8.0"}
    plain = dict.fromkeys(("PW", "FermiDirac", "Mixer"), lambda *_: None)
    monkeypatch.setitem(sys.modules, "gpaw", SimpleNamespace(**names, **plain))
    monkeypatch.setitem(sys.modules, "gpaw.xc", SimpleNamespace(XC=lambda _: SimpleNamespace()))
    atoms = bulk("CuAu", "cesiumchloride", a=3.1)
    atoms.set_initial_magnetic_moments(moments)
    given = job(CODE.make(), atoms, tmp_path)
    calculate = runpy.run_path(str(tmp_path / "label.py"))["calculate"]
    found = calculate(given)
    shape = (2, 3) if moments is None else (2, 2, 3)
    assert found["n_spins"] == len(shape) - 1
    assert np.shape(found["energies"]) == shape
    np.testing.assert_array_equal(found["occupations"], np.broadcast_to([2, 2, 0], shape))
    last = np.array(found["energies"]).reshape(-1, 3)[-1]
    np.testing.assert_array_equal(last, 10 + 100 * (len(shape) - 2) + np.arange(3))
    given_moments = made[0].atoms.get_initial_magnetic_moments()
    np.testing.assert_array_equal(given_moments, [0, 0] if moments is None else moments)


def test_python_without_gpaw(tmp_path):
    """What it said last is told."""
    python = tmp_path / "python3"
    python.write_text(
        "#!/bin/sh\necho 'Traceback:'\necho \"ModuleNotFoundError: No module named 'gpaw'\"\n"
    )
    python.chmod(0o755)
    named = r"python3' \(it does not .*: No module named 'gpaw'\), .*install GPAW"
    with pytest.raises(UnavailableError, match=named):
        CODE.make(command=str(python)).check(CODE.atoms)


@pytest.mark.parametrize("kind", MESHES)
def test_numbers_that_are_printed(kind):
    """With fewer digits; bands counted by electrons are those told by occupation."""
    text = (CODE.stored(kind) / "label.log").read_text()
    results = CODE.make().read_output(CODE.stored(kind), ATOMS)

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
        CODE.make().read_output(tmp_path, ATOMS)
    (tmp_path / "label.log").write_text("Initialize ...\n\niter:   1\n")
    with pytest.raises(CalculationFailed, match="GPAW's output is cut off"):
        CODE.make().read_version(tmp_path)
