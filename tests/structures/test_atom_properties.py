"""Masses and magnetic moments on their way through phonopy, and what is refused."""

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk

from schnetpack_phonon.structures.atom_properties import (
    check_atom_properties,
    check_same_moments,
    magnetic_kinds,
    magnetic_moments,
    own_masses,
    to_ase,
    to_phonopy,
)
from schnetpack_phonon.structures.crystals import Crystal, supercell_matrix


def test_phonopy_round_trip():
    """Cell, positions (also outside of the cell), species, isotopes and moments survive."""
    rng = np.random.default_rng(1)
    cell = 4 * np.eye(3) + rng.normal(0, 0.5, (3, 3))
    atoms = Atoms("CuAgAu", positions=rng.uniform(-9, 9, (3, 3)), cell=cell, pbc=True)
    atoms.set_masses([65.0, 109.0, 190.0])
    atoms.set_initial_magnetic_moments([1.0, 0.0, -2.5])
    back = to_ase(to_phonopy(atoms))
    np.testing.assert_allclose(back.positions, atoms.positions, atol=1e-12)
    np.testing.assert_allclose(back.cell.array, atoms.cell.array)
    for name in ("numbers", "masses", "initial_magmoms"):
        np.testing.assert_array_equal(back.arrays[name], atoms.arrays[name])
    atoms.set_initial_magnetic_moments(None)
    assert "initial_magmoms" not in to_ase(to_phonopy(atoms)).arrays


def test_supercell_has_masses_and_moments_of_the_unit_cell():
    atoms = bulk("Cr", a=2.9, cubic=True)
    atoms.set_masses([50.0, 53.0])
    atoms.set_initial_magnetic_moments([1.0, -1.0])
    supercell = Crystal("Cr", atoms, supercell_matrix([2, 2, 2])).supercell
    centre = np.abs(supercell.get_scaled_positions() * 2 % 1 - 0.5).max(axis=1) < 0.1
    np.testing.assert_array_equal(supercell.get_masses(), np.where(centre, 53.0, 50.0))
    np.testing.assert_array_equal(magnetic_moments(supercell), np.where(centre, -1.0, 1.0))


def test_natural_masses_and_zero_moments_are_none():
    atoms = bulk("NaCl", "rocksalt", a=5.6)
    atoms.set_masses(atoms.get_masses().round(4))  # as files have them
    atoms.set_initial_magnetic_moments([0.0, 0.0])
    assert own_masses(atoms) is None
    assert magnetic_moments(atoms) is None
    atoms.set_masses([22.9898, 34.9689])
    np.testing.assert_array_equal(own_masses(atoms), [22.9898, 34.9689])


def test_masses_of_other_copies():
    crystal = Crystal("NaCl", bulk("NaCl", "rocksalt", a=5.6), supercell_matrix([1, 1, 2]))
    assert crystal.with_masses(crystal.supercell.get_masses()) is crystal
    heavier = crystal.with_masses(np.array([23.0, 23.0, 37.0, 37.0]))
    np.testing.assert_array_equal(heavier.unitcell.get_masses(), [23.0, 37.0])
    with pytest.raises(ValueError, match="masses of NaCl differ among copies of an atom"):
        crystal.with_masses(np.array([23.0, 23.0, 35.0, 37.0]))


@pytest.mark.parametrize(
    ("change", "named"),
    [
        (lambda atoms: atoms.set_masses([-1.0, 35.0]), r"mass of atom 0 \(Na\) is -1 amu"),
        (lambda atoms: atoms.set_masses([23.0, np.nan]), r"mass of atom 1 \(Cl\) is nan amu"),
        (lambda atoms: atoms.set_initial_magnetic_moments(np.ones((2, 3))), "shape .2, 3.*collin"),
        (lambda atoms: atoms.set_initial_magnetic_moments([np.nan, 0]), "finite number"),
        (lambda atoms: atoms.set_initial_charges([1, -1]), "salt has charges"),
        (lambda atoms: atoms.set_tags([0, 1]), "salt has tags"),
    ],
)
def test_what_is_refused(change, named):
    atoms = bulk("NaCl", "rocksalt", a=5.6)
    check_atom_properties(atoms, "salt")
    change(atoms)
    with pytest.raises(ValueError, match=named):
        check_atom_properties(atoms, "salt")


def test_moments_are_the_same_up_and_down():
    here = bulk("Cr", a=2.9, cubic=True)
    there = here.copy()
    check_same_moments(there, here, "md.traj")
    here.set_initial_magnetic_moments([1.0, -1.0])
    for moments in ([3.0, -3.0], [-0.9, 0.9]):
        there.set_initial_magnetic_moments(moments)
        check_same_moments(there, here, "md.traj")
    for moments in ([1.0, 1.0], [1.0, 0.0], [0.0, 0.0]):
        there.set_initial_magnetic_moments(moments)
        with pytest.raises(ValueError, match=r"md.traj has magnetic moments on \d atoms, the"):
            check_same_moments(there, here, "md.traj")


def test_kinds_of_atoms():
    atoms = Atoms("FeOFeO", magmoms=[2.0, 0.0, -2.0, 0.0])
    one, oxygen, other, same = magnetic_kinds(atoms).tolist()
    assert oxygen == same
    assert {one, oxygen, other} == {1, 2, 3}
    atoms.set_initial_magnetic_moments(None)
    np.testing.assert_array_equal(magnetic_kinds(atoms), atoms.numbers)
