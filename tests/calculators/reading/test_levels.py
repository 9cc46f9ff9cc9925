"""Band edges are counted by electrons, with and without spin polarisation."""

import re

import numpy as np
import pytest
from ase.calculators.calculator import CalculationFailed

from schnetpack_phonon.calculators.reading.levels import band_edges, mesh_edges
from tests.calculators.code_fixtures import CODES, output  # noqa: F401


@pytest.mark.parametrize(
    ("occupations", "edges"),
    [
        ([2.0, 2.0, 0.0, 0.0], (-3.0, 1.0)),
        ([1.9, 1.2, 0.8, 0.1], (-3.0, 1.0)),
        ([2.0, 0.9, 0.6, 0.5], (-3.0, 1.0)),  # levels hold two electrons each
        ([1.5, 1.4, 0.6, 0.5], (-3.0, 1.0)),
        ([2.0, 1.0, 0.0, 0.0], (-3.0, -3.0)),  # no gap
    ],
)
@pytest.mark.parametrize("order", [[0, 1, 2, 3], [3, 1, 0, 2]])
def test_band_edges(occupations, edges, order):
    energies = np.array([-5.0, -3.0, 1.0, 2.0])
    assert band_edges(energies[order], np.array(occupations)[order]) == edges


@pytest.mark.parametrize("occupations", [[2.0, 2.0], [0.0, 0.5]])
def test_no_band_edge(occupations):
    with pytest.raises(CalculationFailed, match=r"no band edge: [40] electrons in 2 levels"):
        band_edges(np.array([-1.0, 1.0]), np.array(occupations))


LEVELS = np.array([[-5.0, -1.0, 2.0, 3.0], [-4.0, 0.5, 1.5, 9.0]])
AT_GAMMA = np.array([-6.0, 0.0, 1.25])
FULL = np.array([[2.0, 2.0, 0.0, 0.0]] * 2)


def test_edges_of_a_mesh():
    """Over the mesh and Gamma, which may have another number of bands."""
    edges = {"vbm": 0.5, "cbm": 1.25, "band_gap_gamma": 1.25, "partial_occupation": 0.0}
    assert mesh_edges(4, LEVELS, FULL, AT_GAMMA) == edges
    assert mesh_edges(3.9999999, LEVELS, FULL, AT_GAMMA) == edges  # as some codes write it
    higher = mesh_edges(4, LEVELS, FULL, AT_GAMMA + 0.75)
    assert (higher["vbm"], higher["cbm"], higher["band_gap_gamma"]) == (0.75, 1.5, 1.25)


@pytest.mark.parametrize(("band", "occupation"), [(1, 1.75), (1, 0.25), (2, 0.25)])
def test_partial_occupation_of_a_mesh(band, occupation):
    """Bands are counted by electrons, so that the edges do not move with it."""
    occupations = FULL.copy()
    occupations[1, band] = occupation
    edges = mesh_edges(4, LEVELS, occupations, AT_GAMMA)
    assert edges == mesh_edges(4, LEVELS, FULL, AT_GAMMA) | {"partial_occupation": 0.25}


@pytest.mark.parametrize(
    ("n_electrons", "message"),
    [
        (3, "3 electrons: a closed shell needs an even number"),
        (4.5, r"4\.5 electrons: a closed shell"),
        (6, "no band edge: 3 bands and 6 electrons"),
        (0, "no band edge: 3 bands and 0 electrons"),
    ],
)
def test_no_edges_of_a_mesh(n_electrons, message):
    with pytest.raises(CalculationFailed, match=message):
        mesh_edges(n_electrons, LEVELS, FULL, AT_GAMMA)


def test_closed_shell_of_two_spins():
    """The same as without spin polarisation."""
    both = [np.array([array, array]) for array in (LEVELS, FULL, AT_GAMMA)]
    assert mesh_edges(4, *both) == mesh_edges(4, LEVELS, FULL, AT_GAMMA)
    assert mesh_edges(4.0000001, *both) == mesh_edges(4, LEVELS, FULL, AT_GAMMA)


def test_open_shell_insulator():
    """Three electrons, two of them up: edges may be of different spins."""
    energies = np.array([LEVELS, LEVELS + 0.25])
    occupations = np.array([[[2.0, 2.0, 0.0, 0.0]] * 2, [[2.0, 0.0, 0.0, 0.0]] * 2])
    edges = mesh_edges(3, energies, occupations, np.array([AT_GAMMA, AT_GAMMA + 0.25]))
    # Highest of up: 0.5, of down: -3.75; lowest of up: 1.25, of down: -0.75.
    assert (edges["vbm"], edges["cbm"]) == (0.5, -0.75)
    energies[1], down = LEVELS + 3, AT_GAMMA + 3
    edges = mesh_edges(3, energies, occupations, np.array([AT_GAMMA, down]))
    assert (edges["vbm"], edges["cbm"], edges["band_gap_gamma"]) == (0.5, 1.25, 1.25)
    assert edges["partial_occupation"] == 0


def test_one_spin_without_electrons():
    energies, at_gamma = np.array([LEVELS, LEVELS + 9]), np.array([AT_GAMMA, AT_GAMMA + 9])
    occupations = np.array([[[2.0, 2.0, 0.0, 0.0]] * 2, [[0.0] * 4] * 2])
    assert mesh_edges(2, energies, occupations, at_gamma)["vbm"] == 0.5
    with pytest.raises(CalculationFailed, match="no band edge: 3 bands and 7 electrons, 2 and 5"):
        mesh_edges(7, energies, occupations, at_gamma)


def test_metal_with_a_fraction_of_an_electron_for_each_spin():
    """Bands overlap, however the electrons are shared."""
    energies = np.array([[[0.0, 1.0], [0.0, 3.0]], [[0.5, 2.0], [0.5, 4.0]]])
    occupations = np.array([[[2.0, 1.0], [2.0, 0.0]], [[1.0, 0.0], [2.0, 0.0]]])
    edges = mesh_edges(2, energies, occupations, np.array([[0.0, 1.0], [0.5, 2.0]]))
    assert edges["partial_occupation"] == 1


def twice(text: str, pattern: str, change) -> str:
    """With what a pattern finds, followed by the same of another spin."""
    text, count = re.subn(pattern, lambda m: m[0] + change(m[0]), text, flags=re.DOTALL)
    assert count
    return text


def second_spin_of_vasp(text: str) -> str:
    text = text.replace('"ISPIN">     1', '"ISPIN">     2')
    block = r' *<set comment="spin 1">.*?\n     </set>\n'
    return twice(text, block, lambda old: old.replace("spin 1", "spin 2"))


def second_spin_of_espresso(text: str) -> str:
    text = text.replace("<lsda>false", "<lsda>true")
    for tag in ("eigenvalues", "occupations"):
        text = twice(text, rf"(?<=<{tag} size=\"8\">).*?(?=</{tag}>)", lambda old: " " + old)
    return text


def second_spin_of_cp2k(text: str) -> str:
    rows = r" MO\| EIGENVALUES.*? MO\| Sum"
    text = re.sub(r"(MO\|\s+\d+\s+\S+\s+\S+\s+)2\.0", r"\g<1>1.0", text)
    text = re.sub(r" Number of electrons: +8", " Number of electrons: 4", text)
    text = twice(text, r" Number of electrons: 4\n", str)
    text = twice(text, rows, lambda old: "\n" + old.replace("MO| EIG", "MO| BETA EIG"))
    return text.replace("MO| EIG", "MO| ALPHA EIG")


def second_spin_of_bands(text: str) -> str:
    return twice(text, r"#  Point 1 .*", lambda old: old.replace("Spin 1", "Spin 2"))


SPINS = {
    "VASP": {"vasprun.xml": second_spin_of_vasp},
    "Quantum ESPRESSO": {"label.xml": second_spin_of_espresso},
    "CP2K": {"label.out": second_spin_of_cp2k, "bands": second_spin_of_bands},
}


@pytest.mark.parametrize("name", SPINS)
@pytest.mark.parametrize("kind", ["gamma", "mesh"])
def test_outputs_of_two_spins(output, name, kind):  # noqa: F811
    """A closed shell calculated with two spins has the same labels."""
    code = CODES[name]
    file, *_ = SPINS[name]
    folder = output(kind, "a", "a", file, name)
    for file, change in SPINS[name].items():
        if (folder / file).exists():
            (folder / file).write_text(change((folder / file).read_text()))
    found = code.make().read_output(folder, code.atoms)
    for key, expected in code.make().read_output(code.stored(kind), code.atoms).items():
        np.testing.assert_allclose(found[key], expected, atol=1e-9, err_msg=key)
