"""Supercells that are large enough and nearly cubic."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import spglib
from ase import Atoms

from schnetpack_phonon.common.errors import check_positive
from schnetpack_phonon.structures.crystals import supercell_matrix

_NEARLY = 0.01  # Ang; the shape needs no better symmetry
_EQUAL = 1e-3  # relative difference of lengths


def supercell_of(
    unitcell: Atoms, supercell: Sequence[Any] | str, min_length: float, min_atoms: int
) -> tuple[tuple[int, int, int], ...]:
    """A supercell as :func:`.supercell_matrix` takes it, or an automatic one.

    That is the supercell of a file of phonopy, and otherwise :func:`auto_supercell`.

    Args:
        unitcell: that is repeated; phonopy's supercell is its ``info["supercell"]``.
        supercell: three integers, a 3x3 matrix, or ``auto``.
        min_length: of an automatic one, in Ang.
        min_atoms: of an automatic one.
    """
    if supercell == "auto" and "supercell" in unitcell.info:
        supercell = unitcell.info["supercell"]
    if supercell == "auto":
        return supercell_matrix(auto_supercell(unitcell, min_length, min_atoms))
    return supercell_matrix(supercell)


def auto_supercell(unitcell: Atoms, min_length: float, min_atoms: int) -> np.ndarray:
    """The smallest multiple of the conventional cell that is long enough and has enough atoms.

    Equivalent axes are repeated equally often, so that the supercell keeps the symmetry of the
    crystal. A cell that the conventional one is no multiple of, such as a supercell, is repeated as
    it is.

    Args:
        unitcell: primitive, conventional or any other.
        min_length: smallest distance between opposite faces, in Ang.
        min_atoms: smallest number of atoms.

    Returns:
        Integers, shape=(3, 3), phonopy's convention: columns are the axes of the supercell in
        units of those of the unit cell.

    Raises:
        ValueError: for a limit that is not positive.
    """
    check_positive("Ang", **{"data.structure.min_length": min_length})
    check_positive("atoms", **{"data.structure.min_atoms": min_atoms})
    matrix = _conventional(unitcell)
    cell = matrix.T @ unitcell.cell.array
    heights = 1 / np.linalg.norm(np.linalg.inv(cell), axis=0)
    repeats = np.maximum(np.ceil(min_length / heights - _EQUAL), 1).astype(int)
    n_atoms = len(unitcell) * round(np.linalg.det(matrix))
    while n_atoms * repeats.prod() < min_atoms:
        lengths = repeats * heights
        repeats[lengths < lengths.min() * (1 + _EQUAL)] += 1
    return matrix * repeats


def _conventional(unitcell: Atoms) -> np.ndarray:
    """The conventional cell in units of a given one; the given one if it is as large."""
    cell = unitcell.cell.array, unitcell.get_scaled_positions(), unitcell.numbers
    found = spglib.get_symmetry_dataset(cell, symprec=_NEARLY)
    if found is not None:
        matrix = np.linalg.inv(found.transformation_matrix)
        if np.linalg.det(matrix) > 1.5 and np.allclose(matrix, matrix.round(), atol=_NEARLY):
            return matrix.round().astype(int)
    return np.eye(3, dtype=int)
