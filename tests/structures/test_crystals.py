"""Geometry of prototypes, and supercells."""

import numpy as np
import pytest
import spglib
from ase import Atoms
from ase.build import bulk
from ase.neighborlist import neighbor_list

from schnetpack_phonon.structures.crystals import (
    LATTICE_CONSTANTS,
    Antiperovskites,
    Crystal,
    antiperovskite,
    supercell_matrix,
)


def space_group(atoms: Atoms) -> int:
    cell = (atoms.cell.array, atoms.get_scaled_positions(), atoms.numbers)
    return spglib.get_symmetry_dataset(cell, symprec=1e-5).number


@pytest.mark.parametrize("formula", LATTICE_CONSTANTS)
def test_antiperovskite_is_cubic(formula):
    assert space_group(antiperovskite(formula)) == 221  # Pm-3m


def test_antiperovskite_coordination():
    """Ag3SBr: S in an Ag octahedron at a/2, Br amid twelve Ag at a/sqrt(2), Ag between two S."""
    atoms = antiperovskite("Ag3SBr", 4.8)
    assert atoms.get_chemical_formula() == "Ag3BrS"
    i, j, d = neighbor_list("ijd", atoms, 3.5)
    symbols = np.array(atoms.get_chemical_symbols())
    pairs = (symbols[i] == "S") & (symbols[j] == "Ag"), (symbols[i] == "Br") & (symbols[j] == "Ag")
    for pair, number, distance in zip(pairs, (6, 12), (4.8 / 2, 4.8 / 2**0.5), strict=True):
        np.testing.assert_allclose(d[pair], [distance] * number)
    assert set(symbols[j[(symbols[i] == "S") & (d < 2.5)]]) == {"Ag"}
    np.testing.assert_array_equal(np.bincount(i[d < 2.5])[:3], [2, 2, 2])


@pytest.mark.parametrize(
    ("formula", "constant", "named"),
    [
        ("AgSBr", None, "'AgSBr' is not a cubic antiperovskite.*Ag3SBr"),
        ("Ag3SXx", None, "'Ag3SXx' is not a cubic antiperovskite"),
        ("ag3SBr", 4.8, "'ag3SBr' is not a cubic antiperovskite"),
        ("Cu3NPd", None, "no lattice constant is known for 'Cu3NPd'.*Ag3SeI.*lattice_constants"),
        ("Ag3SBr", -4.8, "-4.8 Ang; expected > 0"),
        ("Ag3SBr", float("nan"), "nan Ang; expected > 0"),
    ],
)
def test_antiperovskite_errors(formula, constant, named):
    with pytest.raises(ValueError, match=named):
        antiperovskite(formula, constant)


@pytest.mark.parametrize("names", [[], ["Ag3SI", "Ag3SI"]])
def test_list_of_antiperovskites(names):
    with pytest.raises(ValueError, match=r"names is \[.*\]; expected different formulas"):
        Antiperovskites(names)


def test_own_lattice_constant():
    crystals = Antiperovskites(["Ag3SI", "Cu3NPd"], lattice_constants={"Cu3NPd": 3.85}).crystals
    assert [c.unitcell.cell.cellpar()[0] for c in crystals] == [LATTICE_CONSTANTS["Ag3SI"], 3.85]


@pytest.mark.filterwarnings("ignore:Warning. Point group symmetries")  # [2, 3, 1] is not cubic
@pytest.mark.parametrize(
    ("value", "n_cells"), [([2, 3, 1], 6), ([[-1, 1, 1], [1, -1, 1], [1, 1, -1]], 4)]
)
def test_supercell_is_the_crystal(value, n_cells):
    """A supercell has the environment of every atom of the unit cell, det(matrix) times."""
    crystal = Crystal("NaCl", bulk("NaCl", "rocksalt", a=5.6), supercell_matrix(value))
    assert len(crystal.supercell) == 2 * n_cells
    assert crystal.supercell.get_volume() == pytest.approx(n_cells * 5.6**3 / 4)
    i, d = neighbor_list("id", crystal.supercell, 4.0)
    np.testing.assert_array_equal(np.bincount(i[d < 2.81]), 6)
    np.testing.assert_array_equal(np.bincount(i), 6 + 12)


def test_ordered_crystal_is_not_folded():
    """The default of phonopy would take the primitive cell of this conventional one."""
    crystal = Crystal("Cu", bulk("Cu", cubic=True), supercell_matrix([1, 1, 1]))
    assert len(crystal.phonopy().primitive) == 4


@pytest.mark.parametrize(
    "value", [[2, 2], 2, [2, 2, 1.5], [[1, 0], [0, 1]], [0, 2, 2], [-1, 1, 1], [1, 2, float("nan")]]
)
def test_supercell_errors(value):
    with pytest.raises(ValueError, match="supercell"):
        supercell_matrix(value)


@pytest.mark.parametrize("name", ["", "Cu/fcc"])
def test_name_that_no_file_can_have(name):
    with pytest.raises(ValueError, match=f"crystal is '{name}'; expected one without '/'"):
        Crystal(name, bulk("Cu"), supercell_matrix([2, 2, 2]))


def test_supercell_of_one_atom():
    with pytest.raises(ValueError, match=r"Cu has 1 atom, .*: set data\.structure\.supercell"):
        Crystal("Cu", bulk("Cu"), supercell_matrix([1, 1, 1]))


@pytest.mark.parametrize(
    ("atoms", "expected"),
    [
        (antiperovskite("Ag3SBr"), "Pm-3m (221)"),
        (bulk("NaCl", "rocksalt", a=5.6), "Fm-3m (225)"),
        (bulk("NaCl", "rocksalt", a=5.6, cubic=True), "Fm-3m (225)"),
        (bulk("Mg", "hcp", a=3.21, c=5.21), "P6_3/mmc (194)"),
    ],
    ids=lambda value: value if isinstance(value, str) else None,
)
def test_space_group(atoms, expected):
    """As in the textbooks, in the primitive and in the conventional cell."""
    assert Crystal("crystal", atoms, supercell_matrix([2, 2, 2])).space_group == expected


def test_space_group_is_that_of_the_crystal():
    """Whatever the supercell; it knows of species, strain and displacements."""
    atoms = antiperovskite("Ag3SBr", 4.8)
    assert Crystal("long", atoms, supercell_matrix([1, 1, 3])).space_group == "Pm-3m (221)"
    longer = atoms.copy()
    longer.set_cell([4.8, 4.8, 4.9], scale_atoms=True)
    assert Crystal("longer", longer, supercell_matrix([1, 1, 1])).space_group == "P4/mmm (123)"
    displaced = atoms.copy()
    displaced.positions[3, 2] += 0.1  # sulfur towards one silver
    assert Crystal("polar", displaced, supercell_matrix([1, 1, 1])).space_group == "P4mm (99)"
    other = atoms.copy()
    other.symbols[0] = "Cu"
    assert Crystal("mixed", other, supercell_matrix([1, 1, 1])).space_group == "P4/mmm (123)"


def test_crystal_that_phonopy_refuses():
    """Its RuntimeError becomes a message with the name of the crystal."""
    twice = bulk("NaCl", "rocksalt", a=5.6) + Atoms("Cl", [(2.8, 2.8, -2.8)])
    with pytest.raises(
        ValueError, match=r"(?s)phonopy cannot use the crystal NaCl: .* atoms overlap"
    ):
        _ = Crystal("NaCl", twice, supercell_matrix([2, 2, 2])).space_group
