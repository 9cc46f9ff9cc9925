"""Bloch waves are the modes of the whole matrix, and translations form a group."""

from itertools import islice

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk

from schnetpack_phonon.ensembles.thermal import PhononEnsemble
from schnetpack_phonon.phonons import modes
from schnetpack_phonon.phonons.harmonic import THZ_PER_SQRT_FC, harmonic_model
from schnetpack_phonon.phonons.instabilities import Instabilities
from schnetpack_phonon.phonons.modes import BlochModes, WholeModes
from schnetpack_phonon.structures.crystals import (
    Crystal,
    antiperovskite,
    supercell_matrix,
    translations,
)

MATRICES = {
    "3x3x3": [3, 3, 3],
    "2x4x4": [2, 4, 4],
    "sheared": [[3, 1, 0], [0, 3, 1], [1, 0, 3]],
}


@pytest.fixture(autouse=True, scope="module")
def _small_cells_too():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(modes, "_MIN_TRANSLATIONS", 27)
        yield


@pytest.fixture(scope="module", params=MATRICES, ids=str)
def both(request, central_springs):
    """A crystal with soft and imaginary modes, its model by the whole matrix and by Bloch waves."""
    crystal = Crystal(
        "Ag3SBr", antiperovskite("Ag3SBr", 4.8), supercell_matrix(MATRICES[request.param])
    )
    springs = central_springs(crystal.supercell, {2.4: 4.0, 2.4 * 2**0.5: -0.3})
    policy = Instabilities("floor", 1.0)
    whole = harmonic_model(crystal.supercell, springs, policy)
    bloch = harmonic_model(crystal.supercell, springs, policy, crystal.translations)
    assert isinstance(whole.modes, WholeModes)
    assert isinstance(bloch.modes, BlochModes)
    assert whole.n_imaginary > 10
    return crystal, whole, bloch


def test_frequencies(both):
    _, whole, bloch = both
    np.testing.assert_allclose(bloch.frequencies, whole.frequencies, atol=1e-6)
    assert bloch.n_imaginary == whole.n_imaginary


def test_functions_of_the_modes(both):
    _, whole, bloch = both
    one, other = (m.displacement_matrix(300.0) for m in (whole, bloch))
    np.testing.assert_allclose(other, one, atol=1e-10)
    np.testing.assert_allclose(
        bloch.sampled_force_constants, whole.sampled_force_constants, atol=1e-8
    )
    numbers = np.random.default_rng(0).normal(size=(5, len(one)))
    np.testing.assert_allclose(bloch.displacer(300.0)(numbers), numbers @ one.T, atol=1e-10)


def test_snapshots_are_the_same_to_the_last_digit(both):
    _, whole, bloch = both
    ensemble = PhononEnsemble([300.0], n_snapshots=1, seed=7)
    one, other = (
        np.array([b.positions for b in islice(ensemble.batches("Ag3SBr", m, 300.0), 2)])
        for m in (whole, bloch)
    )
    np.testing.assert_array_equal(one, other)


def test_modes_that_need_all_vectors(both):
    _, whole, bloch = both
    np.testing.assert_array_equal(bloch.eigenvectors, whole.eigenvectors)


def test_largest_steps_of_a_chain(central_springs):
    """Standing waves of one atom a cell: sqrt(2 / N m), or sqrt(1 / N m) where all move alike."""
    crystal = Crystal("Al", bulk("Al", "sc", a=3.0), supercell_matrix([3, 3, 4]))
    springs = central_springs(crystal.supercell, {3.0: 1.0, 3.0 * 2**0.5: 0.3})
    model = harmonic_model(
        crystal.supercell, springs, Instabilities("error", 1e-3), crystal.translations
    )
    steps = model.modes.largest_steps(model.ideal, np.ones(3 * 36 - 3))
    mass = model.ideal.get_masses()[0]
    alike, crest = np.sqrt(1 / (36 * mass)), np.sqrt(2 / (36 * mass))
    assert np.isclose(steps, alike).sum() == 3  # the zone boundary along z, less the centre
    assert np.isclose(steps, crest).sum() == 3 * 36 - 6


def test_frequencies_of_a_chain(central_springs):
    """2 sqrt(k/m) |sin(pi n / N)|, along a row of 30 cells."""
    crystal = Crystal("Al", Atoms("Al", cell=[3, 9, 9], pbc=True), supercell_matrix([30, 1, 1]))
    springs = central_springs(crystal.supercell, {3.0: 2.0})
    across = (np.eye(30) - 1 / 30)[..., None, None] * np.diag([0, 9, 9])
    policy = Instabilities("abs")
    model = harmonic_model(crystal.supercell, springs + across, policy, crystal.translations)
    assert isinstance(model.modes, BlochModes)
    omega = 2 * np.sqrt(2.0 / model.ideal.get_masses()[0]) * np.sin(np.pi * np.arange(1, 30) / 30)
    np.testing.assert_allclose(model.frequencies[:29], np.sort(omega) * THZ_PER_SQRT_FC, rtol=1e-9)


@pytest.mark.parametrize("matrix", [*MATRICES.values(), [[0, 1, 1], [1, 0, 1], [1, 1, 0]]])
def test_translations_are_those_of_the_lattice(matrix):
    """Neighbours in the group are one fixed lattice vector apart, whatever the atom."""
    crystal = Crystal("Ag3SBr", antiperovskite("Ag3SBr", 4.8), supercell_matrix(matrix))
    ideal = crystal.supercell
    atoms = crystal.translations
    assert sorted(atoms.ravel()) == list(range(len(ideal)))
    for axis in (1, 2, 3):
        steps = ideal.positions[np.roll(atoms, -1, axis)] - ideal.positions[atoms]
        fractions = steps @ np.linalg.inv(ideal.cell.array)
        difference = fractions - fractions[0, 0, 0, 0]
        np.testing.assert_allclose(difference, difference.round(), atol=1e-9)
        vector = (
            fractions[0, 0, 0, 0] @ ideal.cell.array @ np.linalg.inv(crystal.unitcell.cell.array)
        )
        np.testing.assert_allclose(vector, vector.round(), atol=1e-9)
    assert (ideal.numbers[atoms] == crystal.unitcell.numbers[:, None, None, None]).all()


def test_another_order_of_atoms():
    crystal = Crystal("Ag3SBr", antiperovskite("Ag3SBr", 4.8), supercell_matrix([2, 1, 1]))
    with pytest.raises(ValueError, match="not the unit cell repeated, in phonopy's order"):
        translations(crystal.supercell[::-1], crystal.unitcell, np.diag([2, 1, 1]))


def test_small_cells_and_broken_translations_take_the_whole_matrix(central_springs, monkeypatch):
    crystal = Crystal("Al", bulk("Al", a=4.05), supercell_matrix([3, 3, 3]))
    springs = central_springs(crystal.supercell, {4.05 / 2**0.5: 1.5})
    stable = Instabilities("error", 1e-3)

    def model(k):
        return harmonic_model(crystal.supercell, k, stable, crystal.translations).modes

    assert isinstance(model(springs), BlochModes)
    broken = springs.copy()
    broken[3, 4], broken[4, 3] = 1.001 * springs[3, 4], 1.001 * springs[4, 3]
    assert isinstance(model(broken), WholeModes)
    monkeypatch.setattr(modes, "_MIN_TRANSLATIONS", 28)
    assert isinstance(model(springs), WholeModes)
