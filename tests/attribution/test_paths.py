"""Edges of a path by brute force, bonds, types and shells."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk

from schnetpack_phonon.attribution.paths import path_edges, shells, straight_path
from tests.models.model_fixtures import CUTOFF, passing, thermal


def skew(seed: int) -> tuple[Atoms, Atoms]:
    """Two atoms in a flat, skew cell, some way outside it; strain and large displacements."""
    rng = np.random.default_rng(seed)
    ideal = Atoms("NaCl", cell=[[4, 0, 0], [2.5, 3, 0], [-1, 1.5, 4]], pbc=True)
    ideal.positions = rng.uniform(-6, 6, (2, 3))
    displaced = ideal.copy()
    displaced.set_cell(ideal.cell.array @ (np.eye(3) + 0.03 * rng.normal(size=(3, 3))), True)
    displaced.positions += rng.normal(0, 0.5, (2, 3))
    return ideal, displaced


def stretched() -> tuple[Atoms, Atoms]:
    """A chain with a short period, of which distant images come within the cutoff."""
    ideal = Atoms("Cu", cell=[1.5, 12, 12], pbc=True)
    displaced = ideal.copy()
    displaced.set_cell([1.2, 12, 12], scale_atoms=True)
    return ideal, displaced


@pytest.mark.parametrize(
    "ends",
    [thermal(1), thermal(2, strain=0.03, amplitude=0.3), skew(0), skew(1), stretched(), passing()],
    ids=["thermal", "hot and strained", "skew", "skew too", "stretched", "passing"],
)
def test_path_edges_by_brute_force(ends):
    """Every pair of atoms and every image, along 401 points of the path."""
    ideal, displaced = ends
    n = len(ideal)
    shifts = np.array(list(product(range(-9, 10), repeat=3)))
    shortest = np.full((n, n, len(shifts)), np.inf)
    for u in np.linspace(0, 1, 401):
        positions = (1 - u) * ideal.positions + u * displaced.positions
        cell = (1 - u) * ideal.cell.array + u * displaced.cell.array
        vectors = positions[None, :, None] - positions[:, None, None] + shifts @ cell
        shortest = np.minimum(shortest, np.linalg.norm(vectors, axis=-1))
    shortest[np.arange(n), np.arange(n), len(shifts) // 2] = np.inf  # an atom and itself
    assert np.abs(shortest - CUTOFF).min() > 1e-5  # else the samples could not decide
    i, j, s = np.nonzero(shortest < CUTOFF)
    expected = {(a, b, *shifts[c]) for a, b, c in zip(i, j, s, strict=True)}
    i, j, image = path_edges(ideal, displaced, CUTOFF)
    found = list(zip(i, j, *image.T, strict=True))
    assert len(set(found)) == len(found)
    assert set(found) == expected
    assert {(b, a, -x, -y, -z) for a, b, x, y, z in found} == set(found)


def test_every_bond_has_two_edges_that_are_opposite():
    """Also the bonds of an atom with its own images, most of those in a cell of five atoms."""
    path = straight_path(*thermal(2, strain=0.03), CUTOFF)
    assert (np.bincount(path.bond) == 2).all()
    order = np.argsort(path.bond, kind="stable").reshape(-1, 2)
    vectors = path.vectors(0.7)
    np.testing.assert_allclose(vectors[order[:, 0]], -vectors[order[:, 1]], atol=1e-12)
    assert (path.idx_i == path.idx_j).any()


def test_bond_types_are_unordered():
    path = straight_path(*thermal(), CUTOFF)
    symbols = path.ideal.get_chemical_symbols()
    for name, k in zip(path.bond_types, path.first, strict=True):
        assert name == "-".join(sorted([symbols[path.idx_i[k]], symbols[path.idx_j[k]]]))


def test_shells_are_the_crystals():
    """Antiperovskite of lattice constant a: Ag-S at a/2 and a sqrt(5)/2, Ag-Ag at a/sqrt(2), a."""
    ideal, displaced = thermal(1)
    a = ideal.cell.lengths()[0]
    path = straight_path(ideal, displaced, 6.5)
    distances = np.linalg.norm(path.vectors(0)[path.first], axis=1)
    found = shells(ideal, path.bond_types, distances)
    lengths = {"Ag-S": [a / 2, a * 5**0.5 / 2], "Ag-Ag": [a / 2**0.5, a], "Br-S": [a * 0.75**0.5]}
    for name, expected in lengths.items():
        for k, d in enumerate(expected, 1):
            own = (path.bond_types == name) & (found == k)
            assert own.any()
            np.testing.assert_allclose(distances[own], d, atol=1e-6)


def test_atoms_in_another_order_are_an_error():
    """Not called wrapped: the site of another atom is where it is."""
    ideal = bulk("Cu", cubic=True).repeat((3, 1, 1))
    displaced = ideal[[8, 1, 2, 3, 4, 5, 6, 7, 0, 9, 10, 11]]
    with pytest.raises(ValueError, match=r"ideal site of atom [08]: give .* in the same order"):
        straight_path(ideal, displaced, CUTOFF)


def test_atoms_wrapped_back_are_an_error():
    ideal, displaced = thermal()
    displaced.positions[1] += displaced.cell.array[0]
    with pytest.raises(ValueError, match=r"atom 1 is .* not wrapped back"):
        straight_path(ideal, displaced, CUTOFF)
