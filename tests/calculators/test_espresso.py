"""The input of pw.x says what is asked, and the installed program understands it."""

import io

import numpy as np
import pytest
from ase.build import bulk
from ase.constraints import FixAtoms
from ase.io import read

from schnetpack_phonon.common.errors import UnavailableError
from tests.calculators.code_fixtures import CODES, PSEUDOPOTENTIALS

CODE = CODES["Quantum ESPRESSO"]
ATOMS = CODE.atoms


def lines(calculator, atoms, folder) -> list[str]:
    calculator.write_input(folder, atoms, 0.4)
    text = (folder / "label.in").read_text()
    return [" ".join(line.split()) for line in text.splitlines() if line.strip()]


def test_default_input(tmp_path):
    text = lines(CODE.make(), ATOMS, tmp_path)
    for line in (
        "calculation = 'scf'",
        "tprnfor = .true.",
        "tstress = .true.",
        "diago_full_acc = .true.",
        "mixing_beta = 0.4",
        "2 2 2 0 0 0",
    ):
        assert text.count(line) == 1, line
    assert not [line for line in text if "input_dft" in line]


def test_gamma_alone_is_calculated_with_real_orbitals(tmp_path):
    text = lines(CODE.make(kpoints=[1, 1, 1]), ATOMS, tmp_path)
    assert "K_POINTS gamma" in text
    assert "K_POINTS automatic" not in text


def test_structure_in_the_input(tmp_path):
    """Atoms in their order, ten digits; nothing of what else ASE may know of them."""
    atoms = ATOMS.repeat((2, 1, 1))
    plain = lines(CODE.make(), atoms, tmp_path)
    found = read(io.StringIO("\n".join(plain)), format="espresso-in")
    assert found.get_chemical_symbols() == ["Al", "As", "Al", "As"]
    np.testing.assert_allclose(found.positions, atoms.positions, atol=1e-10)
    np.testing.assert_allclose(found.cell.array, atoms.cell.array, atol=1e-10)
    atoms.set_initial_magnetic_moments([1.0, -1.0, 1.0, -1.0])
    atoms.set_constraint(FixAtoms([0]))
    assert lines(CODE.make(), atoms, tmp_path) == plain


def test_pseudopotentials_go_with_the_input(tmp_path):
    """Those of the structure's elements, each under a name of its own."""
    sources = tmp_path / "pseudo"
    for element in ("Al", "As", "Ga"):
        (sources / element).mkdir(parents=True)
        (sources / element / "pbe.upf").write_text(element)
    files = {element: f"{element}/pbe.upf" for element in ("Al", "As", "Ga")}
    calculator = CODE.make(
        pseudopotentials=files, pseudo_dir=sources.name, work_dir=str(sources.parent)
    )
    folder = tmp_path / "calculation"
    folder.mkdir()
    text = lines(calculator, ATOMS, folder)
    for element in ("Al", "As"):
        (line,) = (line.split() for line in text if line.endswith(".upf") and element in line)
        assert (folder / line[2]).read_text() == element
    assert len(list(folder.iterdir())) == 3
    assert "pseudo_dir = '.'" in text


def test_content_of_pseudopotentials_tells_labels_apart(tmp_path):
    """Not their names, of which many are the same, nor where they lie."""
    for content in ("one", "other"):
        (tmp_path / content).mkdir()
        (tmp_path / content / "Al.upf").write_text(content)
        (tmp_path / content / "Aluminium.upf").write_text(content)
    one, other, renamed = (
        CODE.make(pseudopotentials={"Al": name}, pseudo_dir=str(tmp_path / folder)).settings
        for folder, name in (("one", "Al.upf"), ("other", "Al.upf"), ("one", "Aluminium.upf"))
    )
    assert one["pseudopotentials"] != other["pseudopotentials"]
    assert one == renamed


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"pseudo_dir": "/nowhere"},
            "there is no pseudopotential /nowhere/As.pz-bhs.UPF: set data",
        ),
        ({"pseudopotentials": PSEUDOPOTENTIALS | {"As": "no.upf"}}, "no pseudopotential .*no.upf"),
        (
            {"pseudopotentials": {"Al": "Al.pz-vbc.UPF"}},
            "no pseudopotential for As, only for Al: name its file in data.calculator.pseudopot",
        ),
    ],
)
def test_pseudopotential_is_not_there(options, message, tmp_path):
    calculator = CODE.make(version="6.7MaX", **options)
    arsenic = bulk("As", "sc", a=2.7)
    with pytest.raises(UnavailableError, match=message):
        calculator.check(arsenic)
    with pytest.raises(UnavailableError, match=message):
        calculator.write_input(tmp_path, arsenic, 0.4)
