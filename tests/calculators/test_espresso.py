"""pw.x: its input contains all options, and its output is read correctly."""

import io
import re
from pathlib import Path

import numpy as np
import pytest
from ase.build import bulk
from ase.calculators.calculator import CalculationFailed
from ase.constraints import FixAtoms
from ase.io import read
from ase.units import Bohr, GPa, Rydberg

from schnetpack_phonon.calculators.reading.levels import band_edges
from schnetpack_phonon.common.errors import UnavailableError
from tests.calculators.code_fixtures import CODES, MESHES, PSEUDOPOTENTIALS

CODE = CODES["Quantum ESPRESSO"]
ATOMS = CODE.atoms


def read_output(folder: Path) -> dict:
    return CODE.make().read_output(folder, ATOMS)


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
    atoms.set_momenta(np.ones((4, 3)))
    atoms.set_constraint(FixAtoms([0]))
    assert lines(CODE.make(), atoms, tmp_path) == plain


@pytest.mark.parametrize("header", ['z_valence="   3.000E+00"', "    3.00000000000      Z valence"])
def test_moments_become_species(tmp_path, header):
    """Each element and moment, with its share of the valence electrons, at most all of them."""
    for element in ("Al", "As"):
        (tmp_path / f"{element}.UPF").write_text(f"<PP_HEADER\n{header}\n")
    files = {element: f"{element}.UPF" for element in ("Al", "As")}
    calculator = CODE.make(pseudopotentials=files, pseudo_dir=str(tmp_path))
    atoms = ATOMS.repeat((2, 1, 1))
    atoms.set_initial_magnetic_moments([1.5, 0.0, -1.5, 4.0])
    (tmp_path / "run").mkdir()
    text = lines(calculator, atoms, tmp_path / "run")
    assert "nspin = 2" in text
    shares = [line for line in text if line.startswith("starting_magnetization")]
    assert shares == [
        f"starting_magnetization({n}) = {x}" for n, x in enumerate((0.5, 0.0, -0.5, 1.0), 1)
    ]
    sites = [line.split()[0] for line in text[text.index("ATOMIC_POSITIONS angstrom") + 1 :]]
    assert sites[:4] == ["Al", "As", "Al1", "As1"]
    species = text[text.index("ATOMIC_SPECIES") + 1 :][:4]
    assert [line.split()[::2] for line in species] == [
        [name, f"{name[:2]}.UPF"] for name in ("Al", "As", "Al1", "As1")
    ]


def test_moments_without_the_number_of_valence_electrons(tmp_path):
    atoms = ATOMS.copy()
    atoms.set_initial_magnetic_moments([1.0, -1.0])
    with pytest.raises(UnavailableError, match=r"Al.pz-vbc.UPF does not say how many valence"):
        CODE.make().write_input(tmp_path, atoms, 0.4)


def test_too_many_moments():
    atoms = ATOMS.repeat((3, 2, 1))
    atoms.set_initial_magnetic_moments(np.arange(12))
    with pytest.raises(ValueError, match=r"12 different pairs of element and .* at most 10 spec"):
        CODE.make(version="6.7MaX").check(atoms)


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


@pytest.mark.parametrize("kind", MESHES)
def test_numbers_that_are_printed(kind):
    """With fewer digits; bands counted by electrons are those told by occupation."""
    text = (CODE.stored(kind) / "label.log").read_text()
    results = read_output(CODE.stored(kind))

    def numbers(pattern: str) -> np.ndarray:
        return np.array([row.split() for row in re.findall(pattern, text)], dtype=float)

    levels = numbers(r"bands \(ev\):\n\n(.*?)\n\n").ravel()
    occupations = 2 * numbers(r"occupation numbers *\n(.*?)\n\n").ravel()
    assert len(levels) == len(occupations) == (8 if kind == "gamma" else 64)
    edges = np.array(band_edges(levels, occupations))
    np.testing.assert_allclose([results["vbm"], results["cbm"]], edges, atol=5e-5)
    valence, conduction = band_edges(levels[:8], occupations[:8])
    assert results["band_gap_gamma"] == pytest.approx(conduction - valence, abs=1e-4)
    energy = numbers(r"! +total energy += +(\S+) Ry").item()
    assert results["energy"] == pytest.approx(energy * Rydberg, abs=1e-7)
    forces = numbers(r"force = +(.*)")
    np.testing.assert_allclose(results["forces"], forces * Rydberg / Bohr, atol=1e-6)
    kbar = numbers(r"\n(?: {2}[- ]\d\.\d{8}){3} +(.*)")
    pressure = float(re.search(r"P= +(\S+)", text)[1])  # positive: wants to expand
    np.testing.assert_allclose(results["stress"], -kbar / 10 * GPa, atol=1e-5)
    assert np.trace(results["stress"]) / 3 == pytest.approx(-pressure / 10 * GPa, abs=1e-5)


_BOX = """
 %%%%%%%%%%%%%%%%%%%%%%%%%%%%%%%%%%%%%%%%%%%%%%%%%%%%%%%%%%%%%%%%%%%%%%%%%%%%%%
     Error in routine readpp (1):
     file ./Al.UPF not found
 %%%%%%%%%%%%%%%%%%%%%%%%%%%%%%%%%%%%%%%%%%%%%%%%%%%%%%%%%%%%%%%%%%%%%%%%%%%%%%

     stopping ...
"""


def test_reason_in_the_box(output):
    folder = output("mesh", r" *End of self.*", _BOX, "label.log", CODE.name)
    named = r"ESPRESSO stopped: Error in routine readpp \(1\): file ./Al.UPF not found$"
    with pytest.raises(CalculationFailed, match=named):
        read_output(folder)


def test_output_without_what_was_printed(output):
    """All numbers are in the XML file."""
    folder = output("mesh", "a", "a", "label.xml", CODE.name)
    (folder / "label.log").unlink()
    assert read_output(folder)["energy"] == pytest.approx(
        read_output(CODE.stored("mesh"))["energy"]
    )


def test_killed_before_the_end(output):
    folder = output("mesh", r"JOB DONE.*", "", "label.log", CODE.name)
    (folder / "label.xml").unlink()
    with pytest.raises(CalculationFailed, match="cut off"):
        read_output(folder)
