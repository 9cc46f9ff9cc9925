"""What atoms of a crystal have besides element and position: masses and magnetic moments.

Both are carried to phonopy and back. Everything else that ASE keeps for atoms and that would change
a label is refused.
"""

from __future__ import annotations

import numpy as np
from ase import Atoms
from ase.data import atomic_masses
from phonopy.structure.atoms import PhonopyAtoms

_SAME_MASS = 1e-5  # relative; files have rounded masses

_REFUSED = {
    "initial_charges": "charges, which are not given to the codes: set them to zero",
    "tags": "tags, which name species or layers for some codes: set them to zero",
}


def to_phonopy(atoms: Atoms) -> PhonopyAtoms:
    """ASE -> phonopy; cell, scaled positions, numbers, masses and magnetic moments are kept."""
    return PhonopyAtoms(
        numbers=atoms.numbers,
        cell=atoms.cell.array,
        scaled_positions=atoms.get_scaled_positions(wrap=False),
        masses=atoms.get_masses(),
        magnetic_moments=magnetic_moments(atoms),
    )


def to_ase(atoms: PhonopyAtoms) -> Atoms:
    """Phonopy -> ASE; periodic in all directions, masses and magnetic moments kept."""
    return Atoms(
        numbers=atoms.numbers,
        cell=atoms.cell,
        scaled_positions=atoms.scaled_positions,
        masses=atoms.masses,
        magmoms=atoms.magnetic_moments,
        pbc=True,
    )


def own_masses(atoms: Atoms) -> np.ndarray | None:
    """Masses in amu, shape=(n_atoms,); None if they are those of the natural elements."""
    masses = atoms.get_masses()
    natural = np.allclose(masses, atomic_masses[atoms.numbers], rtol=_SAME_MASS, atol=0)
    return None if natural else masses


def magnetic_moments(atoms: Atoms) -> np.ndarray | None:
    """Initial collinear moments in Bohr magnetons, shape=(n_atoms,); None if all are zero."""
    moments = atoms.get_initial_magnetic_moments()
    return moments if moments.any() else None


def check_same_moments(there: Atoms, here: Atoms, where: str) -> None:
    """Raises ValueError unless moments have the same directions, up to that of all together.

    Args:
        there: of a file, in the order of ``here``.
        here: of the crystal.
        where: the file, for the message.
    """
    one, other = (np.sign(a.get_initial_magnetic_moments().round(2)) for a in (there, here))
    if not any(np.array_equal(one, sign * other) for sign in (1, -1)):
        raise ValueError(
            f"{where} has magnetic moments on {np.count_nonzero(one)} atoms, the structure on "
            f"{np.count_nonzero(other)}; expected the same up and down: give those of the file to "
            "the structure (column initial_magmoms of an extxyz file)"
        )


def magnetic_kinds(atoms: Atoms) -> np.ndarray:
    """Atomic numbers, or where there are moments, a number from 1 for each pair of both."""
    moments = magnetic_moments(atoms)
    if moments is None:
        return atoms.numbers
    pairs = np.column_stack([atoms.numbers, moments.round(2)])
    return 1 + np.unique(pairs, axis=0, return_inverse=True)[1].ravel()


def check_atom_properties(atoms: Atoms, name: str) -> None:
    """Raises ValueError for what neither identifies a label nor reaches the code that computes it.

    Args:
        atoms: of a crystal.
        name: of the crystal or its file, for the message.
    """
    masses = atoms.get_masses()
    if not (np.isfinite(masses) & (masses > 0)).all():
        atom = int(np.argmin(np.isfinite(masses) & (masses > 0)))
        raise ValueError(
            f"{name}: the mass of atom {atom} ({atoms.symbols[atom]}) is {masses[atom]:g} amu; "
            "expected > 0"
        )
    moments = atoms.get_initial_magnetic_moments()
    if moments.ndim > 1 or not np.isfinite(moments).all():
        raise ValueError(
            f"{name} has magnetic moments of shape {moments.shape}, {moments[0]} on its first atom;"
            " expected one finite number for each atom: only collinear magnetism is supported"
        )
    for key, what in _REFUSED.items():
        if key in atoms.arrays and atoms.arrays[key].any():
            raise ValueError(f"{name} has {what}")
    if atoms.constraints:
        raise ValueError(
            f"{name} has constraints ({type(atoms.constraints[0]).__name__}), such as selective "
            "dynamics of a POSCAR; expected none, since all atoms vibrate and relax: remove them"
        )
