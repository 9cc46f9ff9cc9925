"""Bonds along the straight path from an ideal crystal to a displaced one."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from ase import Atoms
from ase.data import chemical_symbols
from ase.geometry import get_distances
from matscipy.neighbours import neighbour_list

#: Ideal distances of one pair of species that are closer than this belong to one shell, in Ang.
SHELL_GAP = 0.05


@dataclass(frozen=True)
class StraightPath:
    """The straight path from an ideal to a displaced crystal, and its graph.

    Attributes:
        ideal: reference structure.
        displaced: same atoms in the same order, not wrapped back into the cell.
        idx_i: first atom of each edge, shape=(n_edges,).
        idx_j: second atom of each edge, shape=(n_edges,).
        image: lattice image of the second atom, integers, shape=(n_edges, 3).
        bond: index of the bond of each directed edge, shape=(n_edges,).
    """

    ideal: Atoms
    displaced: Atoms
    idx_i: np.ndarray
    idx_j: np.ndarray
    image: np.ndarray
    bond: np.ndarray

    def vectors(self, u: float) -> np.ndarray:
        """Edge vectors in Ang at ideal + u (displaced - ideal), shape=(n_edges, 3)."""
        edges = self.idx_i, self.idx_j, self.image
        start, end = (edge_vectors(atoms, *edges) for atoms in (self.ideal, self.displaced))
        return start + u * (end - start)

    @property
    def first(self) -> np.ndarray:
        """One edge of each bond, shape=(n_bonds,)."""
        return np.unique(self.bond, return_index=True)[1]

    @property
    def bond_types(self) -> np.ndarray:
        """Species pair of each bond, such as ``Ag-S``, shape=(n_bonds,)."""
        numbers, k = self.ideal.numbers, self.first
        return bond_types(numbers[self.idx_i[k]], numbers[self.idx_j[k]])


def straight_path(
    ideal: Atoms, displaced: Atoms, cutoff: float, mirrored: bool = True
) -> StraightPath:
    """The path with all edges that are within the cutoff anywhere on it.

    Args:
        ideal: reference structure.
        displaced: same atoms in the same order, not wrapped back into the cell.
        cutoff: in Ang.
        mirrored: also edges of the path to the opposite displacement.

    Raises:
        ValueError: if the atoms differ, or one is displaced by more than half of the cell: it was
            wrapped back into it.
    """
    if not np.array_equal(ideal.numbers, displaced.numbers):
        raise ValueError(
            "ideal and displaced crystal have different atoms "
            f"({ideal.get_chemical_formula()}, {displaced.get_chemical_formula()}, or their order)"
        )
    _check_unwrapped(ideal, displaced)
    start = opposite(ideal, displaced) if mirrored else ideal
    i, j, image = path_edges(start, displaced, cutoff)
    return StraightPath(ideal, displaced, i, j, image, bond_numbers(i, j, image))


def opposite(ideal: Atoms, displaced: Atoms) -> Atoms:
    """The crystal with the opposite displacements and strain."""
    atoms = ideal.copy()
    atoms.set_cell(2 * ideal.cell.array - displaced.cell.array)
    atoms.positions = 2 * ideal.positions - displaced.positions
    return atoms


def path_edges(
    start: Atoms, end: Atoms, cutoff: float
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Edges that are within the cutoff anywhere on the straight path from start to end.

    Args:
        start: a structure.
        end: same atoms in the same order, not wrapped back into the cell.
        cutoff: in Ang.

    Returns:
        idx_i and idx_j, shape=(n_edges,), and the lattice image of j, shape=(n_edges, 3).
    """
    # R(u) = R0 (1 + u e) + u (m_j - m_i), so |R(u)| >= |R0| (1 - |e|) - 2 max|m|.
    strain = np.zeros((3, 3))
    if start.cell.rank == 3:
        strain = np.linalg.solve(start.cell.array, end.cell.array) - np.eye(3)
    move = end.positions - start.positions @ (np.eye(3) + strain)
    reach = cutoff + 2 * np.linalg.norm(move, axis=1).max()
    i, j, image = neighbour_list("ijS", start, reach / (1 - np.linalg.norm(strain, 2)))
    first = edge_vectors(start, i, j, image)
    step = edge_vectors(end, i, j, image) - first
    length = (step**2).sum(axis=1)
    nearest = np.clip(-(first * step).sum(axis=1) / np.where(length > 0, length, 1.0), 0.0, 1.0)
    shortest = np.linalg.norm(first + nearest[:, None] * step, axis=1)
    inside = shortest < cutoff
    return i[inside], j[inside], image[inside]


def edge_vectors(atoms: Atoms, i: np.ndarray, j: np.ndarray, image: np.ndarray) -> np.ndarray:
    """R_j + S cell - R_i in Ang, shape=(n_edges, 3)."""
    return atoms.positions[j] + image @ atoms.cell.array - atoms.positions[i]


def bond_numbers(i: np.ndarray, j: np.ndarray, image: np.ndarray) -> np.ndarray:
    """Index of the bond of each edge: (i, j, S) and (j, i, -S) are one bond, shape=(n_edges,)."""
    there, back = np.column_stack([i, j, image]), np.column_stack([j, i, -image])
    differs = there != back
    k = np.where(differs.any(axis=1), differs.argmax(axis=1), 0)
    rows = np.arange(len(i))
    swapped = (back[rows, k] < there[rows, k])[:, None]
    return np.unique(np.where(swapped, back, there), axis=0, return_inverse=True)[1].reshape(-1)


def bond_types(numbers_i: np.ndarray, numbers_j: np.ndarray) -> np.ndarray:
    """Pairs of species in alphabetical order, such as ``Ag-S``."""
    symbols = np.array(chemical_symbols)
    pair = np.sort(np.stack([symbols[numbers_i], symbols[numbers_j]]), axis=0)
    return np.char.add(np.char.add(pair[0], "-"), pair[1])


def shells(ideal: Atoms, types: np.ndarray, distances: np.ndarray) -> np.ndarray:
    """Neighbour shell of each bond, counted from 1 within its type, by ideal distances.

    Args:
        ideal: the crystal.
        types: species pairs, shape=(n_bonds,).
        distances: in the ideal crystal in Ang, shape=(n_bonds,).
    """
    result = np.zeros(len(types), dtype=int)
    if len(types) == 0:
        return result
    i, j, d = neighbour_list("ijd", ideal, float(distances.max()) + SHELL_GAP)
    every = bond_types(ideal.numbers[i], ideal.numbers[j])
    for name in np.unique(types):
        found = np.sort(d[every == name])
        edges = found[1:][np.diff(found) > SHELL_GAP] - SHELL_GAP / 2
        own = types == name
        result[own] = 1 + np.searchsorted(edges, distances[own])
    return result


def _check_unwrapped(ideal: Atoms, displaced: Atoms) -> None:
    if not ideal.pbc.any():
        return
    fractions = displaced.cell.scaled_positions(displaced.positions)
    moved = np.abs(fractions - ideal.cell.scaled_positions(ideal.positions))[:, ideal.pbc]
    if moved.max(initial=0) > 0.5:
        k = int(moved.max(axis=1).argmax())
        text = f"atom {k} is displaced by {moved[k].max():.2f} of a lattice vector"
        _, distances = get_distances(
            fractions[[k]] @ ideal.cell.array, ideal.positions, cell=ideal.cell, pbc=ideal.pbc
        )
        nearest = int(distances[0].argmin())
        if nearest != k:
            raise ValueError(
                f"{text} and nearest to the ideal site of atom {nearest}: give the atoms of both "
                "crystals in the same order"
            )
        raise ValueError(
            f"{text}: give displaced positions that are not wrapped back into the cell"
        )
