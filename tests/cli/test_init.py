"""An experiment that is written for crystals of the user's, and what is said of it."""

import builtins
import subprocess
import sys
from pathlib import Path

import pytest
from ase.build import bulk
from hydra.utils import instantiate

from tests.cli.command_fixtures import call

EXAMPLE = Path(__file__).parents[2] / "examples" / "my_crystal"
EMT = ["--code", "ase", "--set", "factory._target_=ase.calculators.emt.EMT"]


@pytest.fixture
def init(tmp_path, monkeypatch, capsys):
    """Arguments and typed answers -> what is printed, in a folder with two crystals."""
    bulk("MgO", "rocksalt", a=4.2).write("MgO.vasp", sort=True)
    for name in ("POSCAR", "phonopy_params.yaml"):
        Path(name).write_text((EXAMPLE / name).read_text())

    def called(*arguments, answers=None):
        typed = iter(answers or ())
        monkeypatch.setattr(sys, "stdin", None if answers is None else _Terminal())
        monkeypatch.setattr(builtins, "input", lambda question: next(typed))
        call(monkeypatch, "init", *arguments)
        assert next(typed, None) is None
        return capsys.readouterr().out

    return called


class _Terminal:
    def isatty(self):
        return True


def test_options_alone(init, compose_train):
    said = init("MgO.vasp", "--code", "xtb", "-t", 300, 600)
    assert "MgO: 2 atoms, space group Fm-3m (225)" in said
    assert "tblite" in said
    assert "100 snapshots" in said
    assert "spktrain experiment=MgO run.id=MgO" in said
    config = compose_train("experiment=MgO", "run.work_dir=.")
    assert config.data.ensemble.temperatures == [300, 600]
    assert config.data.shipped_labels is None
    (crystal,) = instantiate(config.data.structure).crystals
    assert len(crystal.supercell) == 64


def test_own_force_constants_and_a_code_without_electrons(init, compose_train):
    """The supercell is theirs, nothing is relaxed, and the model is one of energy and forces."""
    said = init("POSCAR", "--force-constants", "phonopy_params.yaml", *EMT, "--name", "alloy")
    assert "50 snapshots" in said
    config = compose_train("experiment=alloy", "run.work_dir=.")
    assert not config.data.structure.relax
    assert config.data.load_properties == ["energy_per_atom", "forces", "stress"]
    crystals = instantiate(config.data.structure).crystals
    assert len(crystals[0].supercell) == 32
    instantiate(config.data.phonons).check(crystals, False)


@pytest.mark.slow
def test_what_it_names_next_runs(init, tmp_path):
    init("POSCAR", "--force-constants", "phonopy_params.yaml", *EMT, "--name", "alloy")
    command = [Path(sys.executable).parent / "spkphonon", "generate", "--dry-run"]
    done = subprocess.run([*command, "experiment=alloy"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert list(tmp_path.glob("data/*_preview/preview.md"))


def test_questions(init, compose_train):
    """Each that no option answers; an empty line takes the default."""
    answers = ["MgO.vasp", "", "ase", "ase.calculators.emt.EMT", "100, 200", "64"]
    assert "experiment=MgO" in init(answers=answers)
    config = compose_train("experiment=MgO", "run.work_dir=.").data
    assert config.ensemble.temperatures == [100, 200]
    assert config.executor.cores_per_node == 64


def test_pseudopotentials_are_found(init, compose_train):
    given = ["MgO.vasp", "--code", "espresso", "--set", "pseudo_dir=pseudo", "--set", "ecutwfc=60"]
    given += ["--set", "ecutrho=480", "--set", "version=7.2"]
    Path("pseudo").mkdir()
    Path("pseudo", "Mg.pbesol.UPF").touch()
    with pytest.raises(SystemExit, match=r"0 pseudopotentials of O in .*pseudo \(no O\.\*\.upf\)"):
        init(*given)
    assert not Path("configs/experiment/MgO.yaml").exists()
    Path("pseudo", "O_pbesol.upf").touch()
    Path("pseudo", "Os.upf").touch()
    init(*given)
    found = compose_train("experiment=MgO").data.calculator.pseudopotentials
    assert found == {"Mg": "Mg.pbesol.UPF", "O": "O_pbesol.upf"}


def test_a_program_that_is_not_there_is_named(init):
    with pytest.raises(SystemExit, match=r"is written; .*cannot run 'no-such'.*install CP2K"):
        init("MgO.vasp", "--code", "cp2k", "--set", "command=no-such")


@pytest.mark.parametrize("name", ["phonon_forces", "qm9_atomwise", "a/b"])
def test_names_that_are_taken_or_none(init, name):
    with pytest.raises(SystemExit, match="--name"):
        init("MgO.vasp", "--code", "xtb", "--name", name)


@pytest.mark.parametrize(
    ("code", "option"),
    [("espresso", "ecutrho"), ("vasp", "version"), ("ase", "factory._target_")],
)
def test_options_without_default_are_named(init, code, option, capsys):
    """All that the calculator of a code cannot do without."""
    with pytest.raises(SystemExit, match="2"):
        init("MgO.vasp", "--code", code)
    assert f"--set {option}=VALUE" in capsys.readouterr().err


def test_without_a_terminal_nothing_is_asked(init, capsys):
    with pytest.raises(SystemExit, match="2"):
        init("MgO.vasp")
    assert "--code" in capsys.readouterr().err
