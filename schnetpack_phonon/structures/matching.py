"""Frames of other programs matched to the ideal crystal: cell, orientation, drift, images, order.

A frame of the crystal with cell vectors ``A`` (rows) has the cell ``M A S R``: an integer matrix
``M`` of determinant +-1 (another choice of cell vectors), a symmetric strain ``S`` and a rotation
``R``. The rotation is undone, for forces and stress, too.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from itertools import product

import numpy as np
from ase import Atoms
from ase.geometry import find_mic, get_distances
from ase.neighborlist import neighbor_list
from scipy.optimize import linear_sum_assignment
from scipy.spatial import KDTree

from schnetpack_phonon.common.properties import Labels, forces, stress
from schnetpack_phonon.structures.atom_properties import check_same_moments
from schnetpack_phonon.structures.crystals import DECIMALS

_LARGEST_STRAIN = 0.2
_NO_ROTATION = 1e-6  # rad; rounding of cells in files
_N_REFINED = 3  # times that the drift is taken from the atoms that were found


@dataclass(frozen=True)
class Match:
    """A frame in the cell, orientation and order of the ideal crystal.

    Attributes:
        ideal: the ideal crystal in the strained cell of the frame.
        atoms: the frame, each atom near its site, without drift.
        order: which atom of the frame is on each site, shape=(n_atoms,).
        rotation: that was undone, shape=(3, 3): a vector ``v`` of the frame is ``v @ rotation.T``.
    """

    ideal: Atoms
    atoms: Atoms
    order: np.ndarray
    rotation: np.ndarray

    @property
    def reordered(self) -> bool:
        """Whether the frame has its atoms in another order."""
        return not np.array_equal(self.order, np.arange(len(self.order)))

    @property
    def rotated(self) -> bool:
        """Whether the frame is rotated."""
        return _angle(self.rotation) > _NO_ROTATION

    def labels(self, own: Labels) -> Labels:
        """Labels of the frame in the order and orientation of the ideal crystal."""
        own = dict(own)
        turn = self.rotation.T
        if forces in own:
            own[forces] = own[forces][self.order] @ turn
        if stress in own:
            own[stress] = turn.T @ own[stress] @ turn
        return own


def match(ideal: Atoms, frame: Atoms, where: str, order: np.ndarray | None = None) -> Match:
    """Finds the atoms of a frame on the sites of the ideal crystal.

    The order of the file is taken where every atom is near its site; else ``order``; else atoms
    are given to the sites next to them, one to each, which must be nearer than half of the distance
    to another site.

    Args:
        ideal: the supercell.
        frame: the same atoms, displaced; one without a cell is in that of ``ideal``.
        where: names the frame in messages.
        order: of a frame before this one.

    Raises:
        ValueError: for other atoms, another cell, or atoms that are not near a site.
    """
    if len(frame) != len(ideal):
        raise ValueError(
            f"{where} has {len(frame)} atoms; the supercell of data.structure has {len(ideal)}"
        )
    if sorted(frame.numbers) != sorted(ideal.numbers):
        raise ValueError(
            f"{where} is {frame.get_chemical_formula()}; the supercell of data.structure is "
            f"{ideal.get_chemical_formula()}"
        )
    cell = frame.cell.array if frame.cell.rank == 3 else ideal.cell.array
    complaint = None
    for strain, rotation in _orientations(ideal.cell.array, cell, where):
        reference = ideal.copy()
        reference.set_cell(ideal.cell.array @ strain, scale_atoms=True)
        positions = frame.positions @ rotation.T
        candidates = [np.arange(len(ideal))] + ([] if order is None else [order])
        for known in candidates:
            if (frame.numbers[known] == ideal.numbers).all():
                u, lengths = _displacements(reference, positions[known])
                if not (far := too_far(reference, lengths)).any():
                    return _matched(reference, frame, known, u, rotation, where)
                complaint = complaint or (lengths, far)
        for found in _assignments(reference, frame.numbers, positions):
            u, lengths = _displacements(reference, positions[found])
            if not too_far(reference, 2 * lengths).any():  # one atom in the cell of each site
                return _matched(reference, frame, found, u, rotation, where)
    if complaint is None:
        raise ValueError(
            f"{where}: its atoms are in another order than those of data.structure, and no order "
            "or orientation brings each near a site: they diffuse, or the frame is of another "
            "crystal"
        )
    lengths, far = complaint
    atom = int(far.argmax())
    raise ValueError(
        f"{where}: atom {atom} ({ideal.symbols[atom]}) is {lengths[atom]:.2f} Ang from its site, "
        "too far for a neighbouring one, and no other order or orientation of the atoms fits: they "
        "diffuse, or the frame is of another crystal"
    )


def in_images_of(displaced: Atoms, ideal: Atoms) -> Atoms:
    """The ideal crystal with each atom in the periodic image next to that of the displaced one.

    Files of a crystal, and positions of other programs, are often wrapped back into the cell.

    Args:
        displaced: a structure.
        ideal: same atoms in the same order; others are returned as they are.

    Raises:
        ValueError: if an atom in another image is nearest to the site of another one.
    """
    if not (ideal.pbc.any() and np.array_equal(displaced.numbers, ideal.numbers)):
        return ideal
    fractions = displaced.cell.scaled_positions(displaced.positions)
    shifts = np.rint(fractions - ideal.cell.scaled_positions(ideal.positions)) * ideal.pbc
    shifted = np.flatnonzero(shifts.any(axis=1))
    if not shifted.size:
        return ideal
    places = fractions[shifted] @ ideal.cell.array
    _, distances = get_distances(places, ideal.positions, cell=ideal.cell, pbc=ideal.pbc)
    for k, nearest in zip(shifted, distances.argmin(axis=1), strict=True):
        if nearest != k:
            raise ValueError(
                f"atom {k} is nearest to the ideal site of atom {nearest}: give the atoms of the "
                "ideal and the displaced crystal in the same order"
            )
    placed = ideal.copy()
    placed.positions += shifts @ ideal.cell.array
    return placed


def assigned_order(ideal: Atoms, positions: np.ndarray) -> np.ndarray:
    """Which atom is on each site, shape=(n_atoms,): the least sum of squared displacements.

    Atoms of one element and mass may exchange their sites.

    Args:
        ideal: the supercell.
        positions: of the same atoms without a drift, in Ang, in any image, shape=(n_atoms, 3).
    """
    order = np.arange(len(ideal))
    masses = ideal.get_masses()
    _, kind = np.unique(np.c_[ideal.numbers, masses], axis=0, return_inverse=True)
    for number in range(kind.max() + 1):
        own = np.flatnonzero(kind.ravel() == number)
        vectors = positions[own] - ideal.positions[own, None]
        _, lengths = find_mic(vectors.reshape(-1, 3), ideal.cell, ideal.pbc)
        sites, atoms = linear_sum_assignment(lengths.reshape(len(own), -1) ** 2)
        order[own[sites]] = own[atoms]
    return order


def _matched(
    reference: Atoms,
    frame: Atoms,
    order: np.ndarray,
    u: np.ndarray,
    rotation: np.ndarray,
    where: str,
) -> Match:
    if frame.get_initial_magnetic_moments().any():
        check_same_moments(frame[order], reference, where)
    atoms = reference.copy()
    atoms.positions = (reference.positions + u).round(DECIMALS)
    return Match(reference, atoms, order, rotation)


def _orientations(
    ideal: np.ndarray, cell: np.ndarray, where: str
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """(1 + strain, rotation) that map the ideal lattice to that of a cell, the closest first.

    The same cell vectors come first; others are looked for only if the atoms do not fit.
    """
    strain, rotation = _polar(np.linalg.solve(ideal, cell))
    straight = np.abs(strain - np.eye(3)).max()
    if np.linalg.det(rotation) > 0 and straight <= _LARGEST_STRAIN:
        if _angle(rotation) <= _NO_ROTATION:
            yield np.linalg.solve(ideal, cell), np.eye(3)  # as it is, without rounding errors
        else:
            yield strain, rotation
    found = []
    for matrix in _changes_of_basis():
        gradient = np.linalg.solve(matrix @ ideal, cell)
        if np.linalg.det(gradient) > 0 and np.abs(gradient.T @ gradient - np.eye(3)).max() < 0.5:
            strain, rotation = _polar(gradient)
            size = np.abs(strain - np.eye(3)).max()
            if size <= _LARGEST_STRAIN / 2:
                found.append((round(size, 2), _angle(rotation), strain, rotation))
    if not found and straight > _LARGEST_STRAIN:
        raise ValueError(
            f"the cell of {where}, {np.diag(cell).round(3)}, is strained by {straight:.2f} "
            f"relative to that of data.structure, {np.diag(ideal).round(3)}; expected at most "
            f"{_LARGEST_STRAIN:g}"
        )
    for *_, strain, rotation in sorted(found, key=lambda one: one[:2]):
        yield strain, rotation


@cache
def _changes_of_basis() -> np.ndarray:
    """Integer matrices of determinant +-1 with entries -1, 0 and 1, shape=(n, 3, 3)."""
    entries = np.array([*product((-1, 0, 1), repeat=9)]).reshape(-1, 3, 3)
    return entries[np.abs(np.linalg.det(entries)).round() == 1]


def _polar(gradient: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """``F = S R``: the symmetric part first, as rows are multiplied from the right."""
    left, values, right = np.linalg.svd(gradient)
    return left @ np.diag(values) @ left.T, left @ right


def _angle(rotation: np.ndarray) -> float:
    """Of a rotation, in rad; accurate for small ones."""
    return float(np.linalg.norm(rotation - np.eye(3)) / np.sqrt(2))


def _displacements(reference: Atoms, positions: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Displacements without drift and their lengths, with drift removed for the nearest image."""
    steps = positions - reference.positions
    # Remove the drift of the whole crystal first: then the nearest image of each atom is its own.
    u, lengths = find_mic(steps - _drift(steps, reference), reference.cell)
    return u - u.mean(axis=0), lengths


def _drift(steps: np.ndarray, reference: Atoms) -> np.ndarray:
    """Rigid shift of the crystal, from the circular mean of all displacements."""
    phases = 2 * np.pi * steps @ np.linalg.inv(reference.cell.array)
    mean = np.exp(1j * phases).mean(axis=0)
    return np.angle(mean) / (2 * np.pi) @ reference.cell.array


def too_far(reference: Atoms, lengths: np.ndarray) -> np.ndarray:
    """Whether each atom is farther from its site than the nearest other site."""
    # Of sites closer than the largest displacement; thermal ones leave none.
    i, j, distances = neighbor_list("ijd", reference, lengths.max())
    nearest = np.full(len(reference), np.inf)
    np.minimum.at(nearest, i[i != j], distances[i != j])
    return lengths > nearest


def _assignments(
    reference: Atoms, numbers: np.ndarray, positions: np.ndarray
) -> Iterator[np.ndarray]:
    """Orders in which each site has the atom near it, for each shift of the crystal.

    None comes first; the others put one atom of the rarest element on each site of that element.
    """
    cell, sites = reference.cell, reference.get_scaled_positions()
    images = np.array([*product((-1, 0, 1), repeat=3)])
    tree = KDTree((sites + images[:, None]).reshape(-1, 3) @ cell.array)
    rarest = min(set(numbers), key=list(numbers).count)
    first = int(np.flatnonzero(numbers == rarest)[0])
    ends = reference.positions[reference.numbers == rarest]
    for shift in (np.zeros(3), *(ends - positions[first])):
        for _ in range(_N_REFINED):
            there = cell.scaled_positions(positions + shift) % 1.0 @ cell.array
            _, nearest = tree.query(there)
            shift = shift - (there - tree.data[nearest]).mean(axis=0)
        site = nearest % len(sites)
        order = np.argsort(site)
        one_each = np.array_equal(site[order], np.arange(len(site)))
        if one_each and np.array_equal(numbers[order], reference.numbers):
            yield order
