"""Relaxation finds the minimum that the crystal's own symmetry allows."""

from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import spglib
from ase import Atoms
from ase.build import bulk
from ase.calculators.calculator import CalculationFailed
from ase.calculators.emt import EMT
from scipy.optimize import minimize_scalar

from schnetpack_phonon.calculators.base import AseCalculator
from schnetpack_phonon.labels.relaxation import _Supercell, relax, relax_ions
from schnetpack_phonon.structures.crystals import Crystal, supercell_matrix
from tests.phonons.force_constants_fixtures import MagneticSprings


def test_relax_finds_the_lattice_constant(emt):
    """Of fcc copper, from 3 % off: the minimum of the energy by an independent scan."""

    def energy(a):
        atoms = bulk("Cu", a=a, cubic=True)
        atoms.calc = EMT()
        return atoms.get_potential_energy()

    expected = minimize_scalar(energy, bracket=(3.5, 3.6, 3.7), tol=1e-8).x
    crystal = Crystal("Cu", bulk("Cu", a=3.7), supercell_matrix([2, 2, 2]))
    relaxed = relax(emt, crystal)
    assert relaxed.cell.lengths() * 2**0.5 == pytest.approx([expected] * 3, rel=1e-3)
    assert relaxed.calc is None
    assert not relaxed.constraints


def test_supercell_gives_what_the_unit_cell_gives():
    """Of a potential that knows no cell size: energy, forces on the right atoms, stress."""
    atoms = Atoms("CuAgAu", positions=np.eye(3) * 2.0, cell=np.eye(3) * 4 + 0.3, pbc=True)
    atoms.rattle(0.1, seed=1)
    crystal = Crystal("CuAgAu", atoms, np.array([[1, 1, 0], [-1, 1, 0], [0, 0, 2]]))
    atoms.calc = EMT()
    within = atoms.copy()
    within.calc = _Supercell(crystal, EMT())
    assert within.get_potential_energy() == pytest.approx(atoms.get_potential_energy(), abs=1e-9)
    np.testing.assert_allclose(within.get_forces(), atoms.get_forces(), atol=1e-9)
    np.testing.assert_allclose(within.get_stress(), atoms.get_stress(), atol=1e-9)


def layered_alloy() -> Crystal:
    """Ag-Cu-Cu-Cu layers of an fcc stack, P4/mmm, with a free height of two of them."""
    heights = [0.0, 0.27, 0.5, 0.73]
    sites = [(x, x, z) for x, z in zip((0.0, 0.5, 0.0, 0.5), heights, strict=True)]
    atoms = Atoms("AgCu3", cell=[2.65, 2.65, 7.4], scaled_positions=sites, pbc=True)
    return Crystal("AgCu3", atoms, supercell_matrix([2, 2, 1]))


@pytest.mark.filterwarnings("ignore:Warning. Point group symmetries")  # [2, 2, 1] of tetragonal
def test_relax_keeps_the_symmetry_and_moves_what_is_free(emt):
    relaxed = relax(emt, layered_alloy(), fmax=1e-3)
    cell = (relaxed.cell.array, relaxed.get_scaled_positions(), relaxed.numbers)
    assert spglib.get_symmetry_dataset(cell, symprec=1e-5).number == 123
    relaxed.calc = EMT()
    assert np.abs(relaxed.get_forces()).max() < 1e-3
    assert np.abs(relaxed.get_stress()).max() * relaxed.get_volume() / 4 < 1e-3
    z = relaxed.get_scaled_positions()[1, 2]
    assert 0.24 < z < 0.2699


def test_relax_keeps_an_unstable_symmetry(emt):
    """Body-centred copper, a thousandth off cubic, would fall to fcc were it free to."""
    atoms = bulk("Cu", "bcc", a=2.87, cubic=True)
    atoms.set_cell(np.diag([2.87, 2.87, 2.87 * 1.001]), scale_atoms=True)
    relaxed = relax(emt, Crystal("Cu", atoms, supercell_matrix([2, 2, 2])), fmax=1e-4)
    np.testing.assert_allclose(relaxed.cell.lengths(), relaxed.cell.lengths()[0], rtol=1e-6)


def test_relax_keeps_the_symmetry_of_the_moments(layers):
    """The lattice of an antiferromagnet is tetragonal: neighbours 2.5 and 2.6 Ang apart."""
    crystal = replace(layers, supercell_matrix=supercell_matrix([1, 1, 1]))
    relaxed = relax(AseCalculator(partial(MagneticSprings, rest=2.6)), crystal)
    a, b, c = relaxed.cell.lengths()
    a_expected = 2.5 * 2**0.5
    assert (a, b) == pytest.approx((a_expected, a_expected), abs=2e-3)
    assert c == pytest.approx(2 * np.sqrt(2.6**2 - a_expected**2 / 4), abs=2e-3)
    np.testing.assert_array_equal(
        relaxed.get_initial_magnetic_moments(), layers.unitcell.get_initial_magnetic_moments()
    )


def test_relax_that_does_not_converge(emt):
    with pytest.raises(CalculationFailed, match=r"AgCu3 did not relax to .* in 1 steps"):
        relax(emt, layered_alloy(), max_steps=1)


def test_relax_refuses_small_supercells():
    """Their size counts, not that of the unit cell."""
    with pytest.raises(ValueError, match=r"Ag4Cu12 has 16 atoms; .* >= 17"):
        relax(AseCalculator(EMT, min_atoms=17), layered_alloy())


def test_ions_relax_in_a_cell_that_stays(emt):
    crystal = layered_alloy().unitcell
    relaxed = relax_ions(emt, crystal)
    np.testing.assert_array_equal(relaxed.cell.array, crystal.cell.array)
    relaxed.calc = EMT()
    assert np.abs(relaxed.get_forces()).max() < 1e-3
    assert np.abs(relaxed.positions - crystal.positions).max() > 0.02
    with pytest.raises(CalculationFailed, match=r"AgCu3 did not relax to .* in 1 steps"):
        relax_ions(emt, crystal, max_steps=1)
