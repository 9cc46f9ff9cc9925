"""Checks of force constants, and of the displacements and forces that they are fitted to.

Force constants of finite displacements and of real codes carry noise, of up to about 1 % of the
largest of them. Violations of 5 % have other causes, such as another order of atoms.
"""

from __future__ import annotations

from bisect import bisect_left

import numpy as np
from ase import Atoms
from ase.geometry import find_mic
from phonopy import Phonopy
from phonopy.interface.symfc import SymfcFCSolver
from phonopy.structure.snf import SNF3x3
from phonopy.structure.symmetry import Symmetry
from symfc.solvers import FCSolverO2

from schnetpack_phonon.structures.atom_properties import to_phonopy
from schnetpack_phonon.structures.crystals import Crystal

_TOLERANCE = 0.05  # largest violation of a symmetry, relative to the largest force constant
_RECOVERED = 0.01  # largest relative error of coefficients that a fit determines


def check_force_constants(ideal: Atoms, force_constants: np.ndarray) -> None:
    """Raises ValueError for invalid force constants.

    They have another shape or NaN, are not symmetric, or break the acoustic sum rule by more than
    5 % of the largest of them.

    Args:
        ideal: the undisplaced supercell.
        force_constants: in eV/Ang^2, shape=(n_atoms, n_atoms, 3, 3).
    """
    n = len(ideal)
    if force_constants.shape != (n, n, 3, 3):
        raise ValueError(
            f"force constants have shape {force_constants.shape}; expected {(n, n, 3, 3)} for the "
            f"supercell of {ideal.get_chemical_formula()}"
        )
    if not np.isfinite(force_constants).all():
        i, j = np.argwhere(~np.isfinite(force_constants))[0][:2]
        raise ValueError(f"force constants between atoms {i} and {j} are not finite")
    largest = _largest_violation(force_constants)
    asymmetry = np.abs(force_constants - force_constants.transpose(1, 0, 3, 2)).max(axis=(2, 3))
    if asymmetry.max() > largest:
        i, j = np.unravel_index(asymmetry.argmax(), asymmetry.shape)
        raise ValueError(
            "force constants break the symmetry of second derivatives by "
            f"{asymmetry.max():.2g} eV/Ang^2, between atoms {i} ({ideal.symbols[i]}) and {j} "
            f"({ideal.symbols[j]}); expected at most {largest:.2g}, 5 % of the largest: converge "
            "the forces better"
        )
    drift = np.abs(force_constants.sum(axis=1)).max(axis=(1, 2))
    if drift.max() > largest:
        atom = int(np.argmax(drift))
        raise ValueError(
            f"force constants break the acoustic sum rule: those of atom {atom} "
            f"({ideal.symbols[atom]}) sum to {drift[atom]:.2g} eV/Ang^2; expected at most "
            f"{largest:.2g}, 5 % of the largest: converge the forces better"
        )


def _largest_violation(force_constants: np.ndarray) -> float:
    return _TOLERANCE * max(np.abs(force_constants).max(), 1e-3)


def check_symmetry(crystal: Crystal, force_constants: np.ndarray, where: str) -> None:
    """Raises ValueError if force constants break a symmetry of the crystal.

    Each translation of the unit cell, and each operation of its space group that the supercell has
    too, must leave them as they are within 5 % of the largest of them.

    Args:
        crystal: unit cell and supercell.
        force_constants: in eV/Ang^2, in the supercell's order, shape=(n_atoms, n_atoms, 3, 3).
        where: file of the force constants, for the message.
    """
    cells = _Cells(crystal)
    origin = cells.atom(np.arange(len(crystal.unitcell)), np.zeros(3, int))
    rows = force_constants[origin]
    for step in np.ndindex(*cells.shape):
        image = cells.translated(np.array(step))
        violation = np.abs(force_constants[np.ix_(image[origin], image)] - rows)
        words = "a translation by a cell vector"
        _compare(crystal, violation, force_constants, origin, image, f"{where}: {words}")
    lattice = crystal.unitcell.cell.array.T
    operations = Symmetry(to_phonopy(crystal.unitcell)).symmetry_operations
    for rotation, shift in zip(operations["rotations"], operations["translations"], strict=True):
        found = cells.rotated(rotation, shift)
        if found is None:
            continue
        image = found
        cartesian = lattice @ rotation @ np.linalg.inv(lattice)
        turned = np.einsum("ab,ijbc,dc->ijad", cartesian, rows, cartesian, optimize=True)
        violation = np.abs(force_constants[np.ix_(image[origin], image)] - turned)
        words = f"the operation {rotation.tolist()} of its space group"
        _compare(crystal, violation, force_constants, origin, image, f"{where}: {words}")


def _compare(crystal, violation, force_constants, origin, image, what) -> None:
    largest = _largest_violation(force_constants)
    if violation.max() <= largest:
        return
    i, j = np.unravel_index(violation.max(axis=(2, 3)).argmax(), violation.shape[:2])
    i = origin[i]
    symbols = crystal.supercell.symbols
    raise ValueError(
        f"{what} takes atoms {i} ({symbols[i]}) and {j} ({symbols[j]}) of the supercell of "
        f"{crystal.name} to {image[i]} and {image[j]}, but changes their force constants by "
        f"{violation.max():.2g} eV/Ang^2; expected at most {largest:.2g}, 5 % of the largest. "
        "Most likely the force constants have the atoms in another order than the supercell of "
        "the file (phonopy: all copies of the first atom of the unit cell, then all of the "
        "second), or their axes are others"
    )


class _Cells:
    """Atoms of a supercell by site of the unit cell and cell."""

    def __init__(self, crystal: Crystal):
        unitcell, ideal = crystal.unitcell, crystal.supercell
        self._matrix = np.array(crystal.supercell_matrix)
        self._atoms, self._to_element = crystal.translations, SNF3x3(self._matrix).P
        self.shape = self._atoms.shape[1:]
        self._positions = unitcell.get_scaled_positions(wrap=False)
        n_copies = len(ideal) // len(unitcell)
        self._site = np.repeat(np.arange(len(unitcell)), n_copies)
        steps = ideal.positions - unitcell.positions[self._site]
        self._cell = (steps @ np.linalg.inv(unitcell.cell.array)).round().astype(int)

    def atom(self, site: np.ndarray, cell: np.ndarray) -> np.ndarray:
        """Index in the supercell, shape=(n,); sites, shape=(n,), cells, shape=(n, 3) or (3,)."""
        element = (cell @ self._to_element.T) % self.shape
        return self._atoms[site, *element.T]

    def translated(self, step: np.ndarray) -> np.ndarray:
        """Where each atom is after a step in the group of translations, shape=(n_atoms,)."""
        image = np.empty(self._atoms.size, dtype=int)
        image[self._atoms] = np.roll(self._atoms, -step, axis=(1, 2, 3))
        return image

    def rotated(self, rotation: np.ndarray, shift: np.ndarray) -> np.ndarray | None:
        """The same after an operation of the space group; None if the supercell lacks it."""
        vectors = self._matrix.T @ rotation.T @ np.linalg.inv(self._matrix.T)
        if np.abs(vectors - vectors.round()).max() > 1e-6:
            return None
        turned = self._positions @ rotation.T + shift
        apart = turned[:, None] - self._positions
        site = np.abs(apart - apart.round()).max(axis=2).argmin(axis=1)
        moved = (turned - self._positions[site]).round().astype(int)
        return self.atom(site[self._site], moved[self._site] + self._cell @ rotation.T)


def same_atoms(there: Atoms, here: Atoms, where: str, tolerance: float = 0.02) -> np.ndarray:
    """Index in ``there`` of each atom of ``here``.

    Args:
        there: supercell of a file.
        here: supercell of the structure.
        where: name of both for the error message.
        tolerance: in Ang, of cell vectors and positions.

    Raises:
        ValueError: if the cells differ, or an atom has no partner of its species.
    """
    if len(there) != len(here):
        raise ValueError(
            f"{where} do not match: {len(there)} atoms in the file's supercell, {len(here)} here. "
            "Set data.structure.supercell to the matrix of the force constants"
        )
    if not np.allclose(there.cell.array, here.cell.array, rtol=0, atol=tolerance):
        difference = np.abs(there.cell.array - here.cell.array).max()
        raise ValueError(
            f"{where} do not match: the supercells differ by {difference:.3f} Ang (diagonals: "
            f"{np.round(np.diag(there.cell.array), 3)} in the file, "
            f"{np.round(np.diag(here.cell.array), 3)} here). Use the structure for which the force "
            "constants were computed, and set data.structure.relax=false"
        )
    order = np.empty(len(here), dtype=int)
    for i, (position, number) in enumerate(zip(here.positions, here.numbers, strict=True)):
        _, distances = find_mic(there.positions - position, here.cell)
        nearest = int(distances.argmin())
        if distances[nearest] > tolerance or there.numbers[nearest] != number:
            raise ValueError(
                f"{where} do not match: atom {i} ({here.symbols[i]} at {position.round(3)}) is "
                f"nearest to atom {nearest} ({there.symbols[nearest]}) of the file, "
                f"{distances[nearest]:.3f} Ang away"
            )
        order[i] = nearest
    return order


def check_fit(phonon: Phonopy, where: str) -> None:
    """Raises ValueError if displacements and forces do not determine the force constants.

    Args:
        phonon: with a dataset, either of single displaced atoms, or of random displacements.
        where: file or crystal, for the message.
    """
    if "displacements" in phonon.dataset:
        _check_random(phonon, where)
    else:
        _check_single(phonon, where)


def _check_random(phonon: Phonopy, where: str) -> None:
    """A random member of the space of force constants must come back from its own forces."""
    given = np.array(phonon.dataset["displacements"])
    n_atoms, rng = given.shape[1], np.random.default_rng(0)
    solver = SymfcFCSolver(phonon.supercell, symmetry=phonon.symmetry)
    basis = solver.compute_basis_set(orders=[2])[2]
    n_unknown = basis.blocked_basis_set.shape[1]
    expected = rng.standard_normal(n_unknown)
    constants = basis.compression_matrix @ (basis.blocked_basis_set @ expected)
    constants = constants.reshape(n_atoms, n_atoms, 3, 3)

    def determined_by(displacements: np.ndarray) -> bool:
        if len(displacements) * (3 * n_atoms - 3) < n_unknown:
            return False
        forces = -np.einsum("ijab,njb->nia", constants, displacements, optimize=True)
        found = FCSolverO2(basis).solve(displacements, forces).coefs
        return bool(np.linalg.norm(found - expected) < _RECOVERED * np.linalg.norm(expected))

    if not determined_by(given):
        others = given.std() * rng.standard_normal((3 * n_atoms, n_atoms, 3))
        n = bisect_left(range(len(others)), True, key=lambda n: determined_by(others[:n]))
        raise ValueError(
            f"{where}: {len(given)} structures with random displacements cannot determine the "
            f"{n_unknown} independent force constants of {phonon.supercell.formula}; expected at "
            f"least {n}, each with other displacements of all atoms"
        )


def _check_single(phonon: Phonopy, where: str) -> None:
    """Displacements of an atom and those equivalent at its site span space, for each orbit."""
    symmetry, lattice = phonon.symmetry, phonon.supercell.cell.T
    displaced: dict[int, list[np.ndarray]] = {}
    for one in phonon.dataset["first_atoms"]:
        displaced.setdefault(int(one["number"]), []).append(np.array(one["displacement"]))
    orbits = symmetry.get_map_atoms()
    missing = set(orbits) - {orbits[atom] for atom in displaced}
    spans = {}
    for atom, vectors in displaced.items():
        rotations = lattice @ symmetry.get_site_symmetry(atom) @ np.linalg.inv(lattice)
        spans[atom] = np.linalg.matrix_rank(np.concatenate(rotations @ np.array(vectors).T, axis=1))
    for atom, rank in [*dict.fromkeys(missing, 0).items(), *spans.items()]:
        if rank < 3:
            raise ValueError(
                f"{where}: atom {atom} ({phonon.supercell.symbols[atom]}) of the supercell and "
                f"those equivalent to it are displaced along {rank} of 3 directions, symmetry "
                "included; expected all: force constants need the forces of all displacements"
            )
