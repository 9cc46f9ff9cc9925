"""VASP: inputs contain all options, and outputs are read correctly, in the order of VASP."""

from pathlib import Path

import numpy as np
import pytest
from ase import Atoms
from ase.calculators.calculator import CalculationFailed
from ase.constraints import FixAtoms
from ase.io import read
from ase.units import GPa

from schnetpack_phonon.calculators.reading.levels import band_edges
from schnetpack_phonon.calculators.vasp import Vasp, grouped
from schnetpack_phonon.common.errors import UnavailableError
from tests.calculators.code_fixtures import CODES, MESHES

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


def test_moments_in_the_order_of_the_atoms(pseudopotentials, tmp_path):
    atoms = Atoms("SAgBrAgSAg", np.eye(6, 3), cell=5 * np.eye(3), pbc=True)
    atoms.set_initial_magnetic_moments([0.5, 2.0, 0.0, 2.0, -0.5, -2.0])
    calculator = CODE.make(pp_path=str(pseudopotentials), potentials="potpaw_PBE.54")
    calculator.write_input(tmp_path, atoms, 0.4)
    tags = dict(line.split(" = ") for line in (tmp_path / "INCAR").read_text().splitlines())
    assert (tags["ISPIN"], tags["MAGMOM"]) == ("2", "1*0.5 1*-0.5 2*2 1*-2 1*0")
    with pytest.raises(ValueError, match="incar sets MAGMOM, which other options set"):
        CODE.make(incar={"magmom": [1, 1]})


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
        (
            {"pp_path": None},
            "licence, are not found: set VASP_PP_PATH in the environment or data.c",
        ),
        (
            {"potentials": "GW"},
            r"there is no pseudopotential .*/vasp/GW/Al/POTCAR: set data.calcul",
        ),
        (
            {"setups": {"As": "As_d"}},
            r"no .*/As_d/POTCAR: .* data.calculator.setups=\{As: ...\} if ",
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
        UnavailableError, match=r"\(there is no no-such-vasp\), .*: install VASP \(with a l"
    ):
        CODE.make(command="no-such-vasp").label(ATOMS)


# ---- outputs


def read_output(folder: Path) -> dict:
    return CODE.make().read_output(folder, ATOMS)


@pytest.fixture
def changed(output):
    """The stored output of a mesh with something replaced -> folder."""
    return lambda *change: output("mesh", *change, "vasprun.xml", "VASP")


@pytest.mark.parametrize(
    ("symbols", "order"),
    [("SAgBrAgS", [0, 4, 1, 3, 2]), ("AgAgS", [0, 1, 2]), ("SAgS", [0, 2, 1]), ("Ag", [0])],
)
def test_order_of_vasp(symbols, order):
    assert grouped(Atoms(symbols)).tolist() == order


def test_output_at_gamma():
    """Numbers as they stand in the file; its second atom is our third."""
    results = read_output(CODE.stored("gamma"))
    assert results["energy"] == -446.32936071
    forces = [
        [-1.17208882, -0.52590705, -0.47017092],
        [1.07380792, 0.54146193, 0.45588437],
        [0.14833261, -0.39876330, 0.33469662],
        [-0.05005172, 0.38320842, -0.32041007],
    ]
    np.testing.assert_array_equal(results["forces"], forces)
    kbar = [
        [162.20588858, 70.28822562, 79.79084744],
        [70.28822562, 171.47395549, -70.85742586],
        [79.79084744, -70.85742586, 157.97877247],
    ]
    np.testing.assert_allclose(results["stress"], -np.array(kbar) / 10 * GPa, rtol=1e-12)
    assert (results["vbm"], results["cbm"]) == (6.0308, 7.2156)
    assert results["band_gap_gamma"] == pytest.approx(1.1848)
    assert results["partial_occupation"] == 0


@pytest.mark.parametrize("kind", MESHES)
def test_reader_of_ase(kind):
    """Takes the same numbers out of the file, in VASP's order."""
    theirs = read(CODE.stored(kind) / "vasprun.xml", format="vasp-xml")
    ours = read_output(CODE.stored(kind))
    assert ours["energy"] == theirs.get_potential_energy(force_consistent=True)
    np.testing.assert_allclose(ours["forces"][[0, 2, 1, 3]], theirs.get_forces(), atol=1e-12)
    np.testing.assert_allclose(ours["stress"], theirs.get_stress(voigt=False), atol=1e-12)
    levels = np.concatenate([k.eps_n for k in theirs.calc.kpts])
    occupations = np.concatenate([k.f_n for k in theirs.calc.kpts])
    assert band_edges(levels, occupations) == (ours["vbm"], ours["cbm"])
    gamma = theirs.calc.kpts[0]
    valence, conduction = band_edges(gamma.eps_n, gamma.f_n)
    assert ours["band_gap_gamma"] == pytest.approx(conduction - valence, abs=1e-12)


def test_edges_over_the_mesh(changed):
    """A level of the second k-point becomes an edge; the gap at Gamma stays what it is."""
    before = read_output(CODE.stored("mesh"))
    level = r"(kpoint 2.*?(?:<r>[^\n]*\n\s+){8}<r> +)\S+"
    lowered = read_output(changed(level, r"\g<1>5.9"))
    assert (lowered["vbm"], lowered["cbm"]) == (before["vbm"], 5.9)
    assert lowered["band_gap_gamma"] == before["band_gap_gamma"]


_BOX = """
 -----------------------------------------------------------------------------
|                                                                             |
|     EEEEEEE  RRRRRR   RRRRRR   OOOOOOO  RRRRRR      ###     ###     ###     |
|     E        R     R  R     R  O     O  R     R     ###     ###     ###     |
|     EEEEEEE  R     R  R     R  OOOOOOO  R     R     ###     ###     ###     |
|                                                                             |
|     The number of bands is not sufficient to hold all electrons.            |
|     I found NBANDS    =      160                                            |
|                                                                             |
|       ---->  I REFUSE TO CONTINUE WITH THIS SICK JOB ... BYE!!! <----       |
|                                                                             |
 -----------------------------------------------------------------------------

MPI_ABORT was invoked on rank 0
"""


@pytest.mark.parametrize(
    ("printed", "message"),
    [
        (_BOX, "VASP stopped: The number of bands .* electrons. I found NBANDS = 160$"),
        (
            " DAV: 1\n Error EDDDAV: Call to ZHEGV failed\n more",
            "VASP stopped: Error EDDDAV: .*led$",
        ),
        (" VERY BAD NEWS! internal error in SGRCON:", "VASP stopped: VERY BAD NEWS! .* SGRCON:$"),
    ],
)
def test_reason_that_was_printed(changed, printed, message):
    folder = changed(r"<calculation>.*", "")
    (folder / "label.log").write_text(printed)
    with pytest.raises(CalculationFailed, match=message):
        read_output(folder)
    (folder / "vasprun.xml").unlink()
    with pytest.raises(CalculationFailed, match=message):
        read_output(folder)


def test_printed_errors_do_not_matter_where_the_output_is_whole(changed):
    folder = changed("a", "a")
    (folder / "label.log").write_text("WARNING: Sub-Space-Matrix is not hermitian: no error\n")
    assert read_output(folder)["energy"] < 0
