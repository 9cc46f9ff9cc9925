"""VASP's inputs say what is asked, with atoms, pseudopotentials and outputs in one order."""

import numpy as np
import pytest
from ase import Atoms
from ase.constraints import FixAtoms
from ase.io import read

from schnetpack_phonon.calculators.vasp import Vasp
from schnetpack_phonon.common.errors import UnavailableError
from tests.calculators.code_fixtures import CODES

CODE = CODES["VASP"]
ATOMS = CODE.atoms


def test_default_input(tmp_path):
    CODE.make().write_input(tmp_path, ATOMS, 0.3)
    incar = (tmp_path / "INCAR").read_text().splitlines()
    for line in ("GGA = PS", "ISPIN = 1", "NSW = 0", "ISIF = 2", "ISMEAR = -1", "LWAVE = .FALSE."):
        assert line in incar
    assert "AMIX = 0.3" in incar
    assert len({line.split()[0] for line in incar}) == len(incar)
    assert (tmp_path / "KPOINTS").read_text().splitlines()[1:] == ["0", "Gamma", "2 2 2", "0 0 0"]


def test_choices_that_tags_change(tmp_path):
    """Each stands once."""
    CODE.make(incar={"algo": "All", "NELM": 200}).write_input(tmp_path, ATOMS, 0.3)
    incar = (tmp_path / "INCAR").read_text().splitlines()
    assert [line for line in incar if line.startswith(("ALGO", "NELM"))] == [
        "ALGO = All",
        "NELM = 200",
    ]


def test_sharing_work_tells_no_labels_apart(tmp_path):
    shared = CODE.make(incar={"NCORE": 4, "KPAR": 2, "IVDW": 12})
    assert shared.settings == CODE.make(incar={"ivdw": 12}).settings
    shared.write_input(tmp_path, ATOMS, 0.3)
    assert "NCORE = 4" in (tmp_path / "INCAR").read_text().splitlines()


@pytest.fixture
def pseudopotentials(tmp_path):
    """Folder of a set of them, each with its name in it."""
    for name in ("Ag", "Ag_pv", "Br", "S"):
        folder = tmp_path / "vasp" / "potpaw_PBE.54" / name
        folder.mkdir(parents=True)
        (folder / "POTCAR").write_text(f"PAW_PBE {name}\nEnd of Dataset\n")
    return tmp_path / "vasp"


def test_elements_stand_together_in_order_of_appearance(pseudopotentials, tmp_path):
    """In the structure and in the pseudopotentials; nothing of what else ASE may know of them."""
    rng = np.random.default_rng(0)
    atoms = Atoms("SAgBrAgSAg", rng.uniform(-1, 6, (6, 3)), cell=rng.normal(5, 1, (3, 3)), pbc=True)
    atoms.set_constraint(FixAtoms([0]))
    atoms.set_momenta(np.ones((6, 3)))
    atoms.set_initial_magnetic_moments(np.ones(6))
    calculator = CODE.make(
        pp_path=str(pseudopotentials), potentials="potpaw_PBE.54", setups={"Ag": "Ag_pv"}
    )
    calculator.write_input(tmp_path, atoms, 0.4)
    found = read(tmp_path / "POSCAR")
    assert found.get_chemical_symbols() == ["S", "S", "Ag", "Ag", "Ag", "Br"]
    np.testing.assert_allclose(found.positions, atoms.positions[[0, 4, 1, 3, 5, 2]], atol=1e-12)
    np.testing.assert_allclose(found.cell.array, atoms.cell.array, atol=1e-12)
    assert not found.constraints
    assert len((tmp_path / "POSCAR").read_text().splitlines()) == 14
    assert "MAGMOM" not in (tmp_path / "INCAR").read_text()
    titles = (tmp_path / "POTCAR").read_text().split("\nEnd of Dataset\n")
    assert titles == ["PAW_PBE S", "PAW_PBE Ag_pv", "PAW_PBE Br", ""]


def test_names_of_pseudopotentials_tell_labels_apart():
    variants = [{}, {"potentials": "potpaw_PBE.64"}, {"setups": {"Ag": "Ag_pv"}}]
    settings = [str(CODE.make(**options).settings) for options in variants]
    assert len(set(settings)) == len(variants)
    assert CODE.make(pp_path="/elsewhere").settings == CODE.make().settings


def test_pseudopotentials_of_the_environment(pseudopotentials, tmp_path, monkeypatch):
    monkeypatch.setenv("VASP_PP_PATH", str(pseudopotentials))
    silver = Atoms("Ag", cell=np.eye(3) * 3, pbc=True)
    Vasp("6.4.3", potentials="potpaw_PBE.54").write_input(tmp_path, silver, 0.4)
    assert (tmp_path / "POTCAR").read_text().startswith("PAW_PBE Ag\n")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"pp_path": None}, "licence, are not found: set the environment's VASP_PP_PATH or data.c"),
        (
            {"potentials": "GW"},
            r"there is no pseudopotential .*/vasp/GW/Al/POTCAR: set data.calcul",
        ),
        (
            {"setups": {"As": "As_d"}},
            r"no .*/As_d/POTCAR: .* data.calculator.setups=\{As: ...\} whe",
        ),
    ],
)
def test_pseudopotential_is_not_there(options, message, tmp_path, monkeypatch):
    monkeypatch.delenv("VASP_PP_PATH", raising=False)
    with pytest.raises(UnavailableError, match=message):
        CODE.make(**options).write_input(tmp_path, ATOMS, 0.4)


def test_label_needs_the_executable():
    """Its version is what is asked for until an output tells another."""
    with pytest.raises(
        UnavailableError, match=r"\(there is no no-such-vasp\): install VASP \(with a l"
    ):
        CODE.make(command="no-such-vasp").label(ATOMS)
