"""GPAW's input says what is asked."""

import json

import pytest
from ase.constraints import FixAtoms

from schnetpack_phonon.common.errors import UnavailableError
from tests.calculators.code_fixtures import CODES

CODE = CODES["GPAW"]


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
    atoms.set_initial_magnetic_moments([1.0, -1.0])
    atoms.set_constraint(FixAtoms([0]))
    assert job(CODE.make(), atoms, tmp_path) == plain
    assert {path.name for path in tmp_path.iterdir()} == {"label.json", "label.py"}


def test_script_is_what_runs(tmp_path):
    """And loads nothing of ours, which GPAW's Python need not have."""
    calculator = CODE.make(command="mpiexec -n 4 python3")
    calculator.write_input(tmp_path, CODE.atoms, 0.4)
    assert calculator.arguments() == ["mpiexec", "-n", "4", "python3", "label.py"]
    script = (tmp_path / "label.py").read_text()
    assert "schnetpack" not in script
    compile(script, "label.py", "exec")


def test_python_without_gpaw(tmp_path):
    """What it said last is told."""
    python = tmp_path / "python3"
    python.write_text(
        "#!/bin/sh\necho 'Traceback:'\necho \"ModuleNotFoundError: No module named 'gpaw'\"\n"
    )
    python.chmod(0o755)
    named = (
        r"python3' \(it does not .*: ModuleNotFoundError: No module named 'gpaw'\): install GPAW"
    )
    with pytest.raises(UnavailableError, match=named):
        CODE.make(command=str(python)).check(CODE.atoms)
