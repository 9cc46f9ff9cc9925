"""Distances from a training set: near for similar crystals, infinite for unknown species."""

import numpy as np
import pytest
from ase.build import bulk, make_supercell

from schnetpack_phonon.ensembles.active.distance import descriptor, far, training_set


def copper(sigma: float, seed: int, symbol: str = "Cu"):
    atoms = bulk(symbol, "fcc", a=3.6, cubic=True).repeat(2)
    atoms.rattle(sigma, seed=seed)
    return atoms


@pytest.fixture(scope="module")
def train():
    return training_set([copper(0.1, k) for k in range(30)])


def test_training_structures_are_near_and_others_as_far_as_these_from_each_other(train):
    assert train.distances([copper(0.1, 3)])[0] == pytest.approx(0, abs=1e-6)
    again = train.distances([copper(0.1, k) for k in range(100, 120)])
    assert 0.7 < again.mean() < 1.4


def test_distance_grows_with_what_is_different(train):
    means = [
        train.distances([copper(sigma, k) for k in range(100, 110)]).mean()
        for sigma in (0.1, 0.2, 0.3)
    ]
    assert means[0] < means[1] < means[2]
    assert means[2] > 2


def test_unknown_species_are_infinitely_far_and_a_scale_needs_two_structures(train):
    found = train.distances([copper(0.1, 1, "Au"), copper(0.1, 100)])
    assert list(np.isinf(found)) == [True, False]
    with pytest.raises(ValueError, match="at least 2"):
        training_set([copper(0.1, 1)])


def test_descriptor_is_the_same_for_the_same_crystal():
    """Moved, turned, in another cell and another order of atoms."""
    atoms = copper(0.1, 1)
    expected = descriptor(atoms, [29])
    moved = atoms.copy()
    moved.positions += 0.3
    turned = atoms.copy()
    turned.rotate(30, (1, 2, 3), rotate_cell=True)
    larger = make_supercell(atoms, np.diag([2, 1, 1]))
    shuffled = atoms[np.random.default_rng(0).permutation(len(atoms))]
    for other in (moved, turned, larger, shuffled):
        np.testing.assert_allclose(descriptor(other, [29]), expected, atol=1e-6)


def test_descriptor_counts_neighbours():
    """Twelve at a/sqrt(2), six at a; the fade at the cutoff is divided out."""
    atoms = bulk("Cu", "fcc", a=3.6, cubic=True)
    found = descriptor(atoms, [29])
    centres = np.arange(len(found)) * 0.05 + 0.025
    fade = 0.5 * (np.cos(np.pi * centres / 5.0) + 1)
    counts = found / fade
    for distance, number in ((3.6 / np.sqrt(2), 12), (3.6, 6)):
        near = np.abs(centres - distance) < 0.5
        assert counts[near].sum() == pytest.approx(number, rel=0.02)


def test_warning_names_distance_and_species(train):
    assert far("cold", np.array([0.9, 1.2]), train.species) == ""
    assert "3.0 times as far" in far("hot", np.array([2.0, 4.0]), train.species)
    assert "it knows Cu" in far("gold", np.array([np.inf]), train.species)
