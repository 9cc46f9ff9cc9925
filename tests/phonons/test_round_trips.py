"""Random crystals as phonopy's users have them, read back: phonopy's own frequencies."""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pytest
from ase import Atoms
from ase.neighborlist import neighbor_list
from hypothesis import given, settings
from hypothesis import strategies as st
from phonopy import Phonopy
from phonopy.harmonic.dynmat_to_fc import get_commensurate_points
from phonopy.interface.calculator import calculator_info, get_calculator_physical_units

from schnetpack_phonon.phonons.instabilities import Instabilities
from schnetpack_phonon.structures.crystals import Crystal, supercell_matrix
from tests.phonons.force_constants_fixtures import phonopy_of, read
from tests.phonons.phonopy_files.test_layouts import LAYOUTS

HARMONIC = Instabilities("abs")
MATRICES = [[1, 1, 2], [2, 1, 1], [2, 2, 1], [[1, 1, 0], [-1, 1, 0], [0, 0, 1]], [3, 1, 1]]
CALCULATORS = [None, *calculator_info]  # 18 codes in six systems of units


@st.composite
def crystals(draw) -> Crystal:
    """One to three atoms, at least 1.5 Ang apart, in any cell; of natural elements or isotopes."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    cell = np.diag(rng.uniform(3.5, 5.0, 3))
    if draw(st.booleans()):
        cell[np.tril_indices(3, -1)] = rng.uniform(-1, 1, 3)
    n = draw(st.integers(1, 3))
    sites = [(0, 0, 0), (0.5, 0.5, 0.5), (0.5, 0.0, 0.5)][:n] + rng.uniform(-0.05, 0.05, (n, 3))
    outside = draw(st.booleans()) * rng.integers(-1, 2, (n, 3))
    symbols = draw(st.lists(st.sampled_from(["H", "Na", "Cl", "Ag"]), min_size=n, max_size=n))
    atoms = Atoms(symbols, scaled_positions=sites + outside, cell=cell, pbc=True)
    if draw(st.booleans()):
        atoms.set_masses(atoms.get_masses() * rng.uniform(0.8, 1.5, n).round(3))
    return Crystal("random", atoms, supercell_matrix(draw(st.sampled_from(MATRICES))))


def springs(atoms: Atoms) -> np.ndarray:
    """Of a strength that distance and species give, so of the crystal's symmetry."""
    i, j, vector = neighbor_list("ijD", atoms, 6.0)
    length = np.linalg.norm(vector, axis=1)
    z = atoms.numbers
    stiffness = 20 * np.exp(-length) * (1 + 0.01 * (z[i] + z[j]))
    block = stiffness[:, None, None] * (
        vector[:, :, None] * vector[:, None, :] / length[:, None, None] ** 2 + 0.2 * np.eye(3)
    )
    force_constants = np.zeros((len(atoms), len(atoms), 3, 3))
    np.add.at(force_constants, (i, j), -block)
    np.add.at(force_constants, (i, i), block)
    return force_constants


def frequencies_of_phonopy(phonon: Phonopy, force_constants: np.ndarray) -> np.ndarray:
    """In THz at the commensurate wave vectors, sorted, without the three translations."""
    phonon.force_constants = force_constants
    # From the primitive cell, which phonopy may have found to be smaller.
    matrix = np.linalg.inv(phonon.primitive.cell.T) @ phonon.supercell.cell.T
    points = get_commensurate_points(matrix.round().astype(int))
    phonon.run_qpoints(points)
    found = phonon.qpoints.frequencies.ravel()
    return np.sort(np.delete(found, np.abs(found).argsort()[:3]))


def check(crystal: Crystal, calculator: str | None, layout, order: np.random.Generator) -> None:
    units = get_calculator_physical_units(calculator)
    length, force = units.distance_to_A, units.force_to_eVperA
    known = springs(crystal.supercell)
    phonon = phonopy_of(crystal, known, calculator, length, force)
    expected = frequencies_of_phonopy(phonon, known * length / force)
    atoms = crystal.unitcell[order.permutation(len(crystal.unitcell))]
    if order.random() < 0.5:
        atoms.set_masses()  # those of the file
    atoms.positions += order.integers(-1, 2, (len(atoms), 3)) @ atoms.cell.array
    here = Crystal("random", atoms, crystal.supercell_matrix)
    with TemporaryDirectory() as name:
        path = layout(Path(name), phonon, known * length / force)
        model = read(path, here, instabilities=HARMONIC)
    np.testing.assert_allclose(np.sort(model.frequencies), expected, rtol=1e-4, atol=1e-3)
    masses = {*crystal.unitcell.get_masses().round(3)}
    assert {*model.ideal.get_masses().round(3)} == masses


FILES = {
    "crystal": crystals(),
    "calculator": st.sampled_from(CALCULATORS),
    "layout": st.sampled_from(LAYOUTS),
    "seed": st.integers(0, 999),
}


@settings(max_examples=20, deadline=None, derandomize=True)
@given(**FILES)
def test_frequencies_are_those_of_phonopy(crystal, calculator, layout, seed):
    check(crystal, calculator, layout, np.random.default_rng(seed))


@pytest.mark.slow
@settings(max_examples=500, deadline=None)
@given(**FILES)
def test_frequencies_are_those_of_phonopy_in_many_files(crystal, calculator, layout, seed):
    check(crystal, calculator, layout, np.random.default_rng(seed))
