"""Automatic supercells: sizes, shapes, symmetry."""

import numpy as np
import pytest
import spglib
from ase.build import bulk
from ase.cell import Cell
from ase.spacegroup import crystal as spacegroup

from schnetpack_phonon.structures.crystals import Crystal
from schnetpack_phonon.structures.supercells import auto_supercell, supercell_of

MGO = bulk("MgO", "rocksalt", a=4.21)
CORUNDUM = spacegroup(
    ["Al", "O"],
    [(0, 0, 0.352), (0.306, 0, 0.25)],
    spacegroup=167,
    cellpar=[4.76, 4.76, 12.99, 90, 90, 120],
    primitive_cell=True,
)


def lengths_and_angles(unitcell, matrix):
    return Cell(np.array(matrix).T @ unitcell.cell.array).cellpar()


@pytest.mark.parametrize(
    ("unitcell", "n_atoms", "cellpar"),
    [
        (MGO, 64, [8.42, 8.42, 8.42, 90, 90, 90]),
        (bulk("MgO", "rocksalt", a=4.21, cubic=True), 64, [8.42, 8.42, 8.42, 90, 90, 90]),
        (bulk("Fe"), 54, [8.61, 8.61, 8.61, 90, 90, 90]),
        (bulk("ZnO", "wurtzite", a=3.25, c=5.2), 72, [9.75, 9.75, 10.4, 90, 90, 120]),
        (CORUNDUM, 120, [9.52, 9.52, 12.99, 90, 90, 120]),
    ],
    ids=["fcc", "conventional", "bcc", "hexagonal", "rhombohedral"],
)
def test_conventional_cells_are_repeated(unitcell, n_atoms, cellpar):
    """Whatever the orientation of the given cell, and its setting."""
    for turned in (0, 50):
        atoms = unitcell.copy()
        atoms.rotate(turned, (1, 2, 3), rotate_cell=True)
        matrix = auto_supercell(atoms, 7.5, 2)
        assert len(Crystal("x", atoms, supercell_of(atoms, "auto", 7.5, 2)).supercell) == n_atoms
        np.testing.assert_allclose(lengths_and_angles(atoms, matrix), cellpar, atol=1e-6)


@pytest.mark.parametrize("min_atoms", [2, 65, 300])
@pytest.mark.parametrize("unitcell", [MGO, CORUNDUM, bulk("Mg")], ids=str)
def test_supercells_keep_the_symmetry(unitcell, min_atoms):
    matrix = auto_supercell(unitcell, 7.5, min_atoms)
    assert len(unitcell) * np.linalg.det(matrix) > min_atoms - 0.5
    cell = unitcell.cell.array, unitcell.get_scaled_positions(), unitcell.numbers
    rotations = spglib.get_symmetry(cell)["rotations"]
    assert len(rotations) >= 12
    turned = np.linalg.inv(matrix) @ rotations @ matrix  # operations on the supercell's axes
    np.testing.assert_allclose(turned, turned.round(), atol=1e-9)


def test_a_given_supercell_is_repeated_as_it_is():
    atoms = MGO.repeat((1, 1, 2))
    np.testing.assert_array_equal(auto_supercell(atoms, 7.5, 2), np.diag([4, 4, 2]))


def test_limits_and_given_supercells():
    with pytest.raises(ValueError, match=r"data\.structure\.min_length is 0 Ang; expected > 0"):
        auto_supercell(MGO, 0, 2)
    with pytest.raises(ValueError, match=r"data\.structure\.min_atoms is -1 atoms; expected > 0"):
        auto_supercell(MGO, 5, -1)
    assert supercell_of(MGO, [2, 2, 2], 7.5, 40) == ((2, 0, 0), (0, 2, 0), (0, 0, 2))
    with pytest.raises(ValueError, match="supercell is automatic; expected 3 integers"):
        supercell_of(MGO, "automatic", 7.5, 40)
