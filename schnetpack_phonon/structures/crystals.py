"""Crystals: prototypes, supercells, distances."""

from __future__ import annotations

import re
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

import numpy as np
import spglib
from ase import Atoms
from ase.data import chemical_symbols
from ase.neighborlist import neighbor_list
from phonopy import Phonopy
from phonopy.structure.cells import get_supercell
from phonopy.structure.snf import SNF3x3

from schnetpack_phonon.common.errors import check_positive
from schnetpack_phonon.structures.atom_properties import (
    check_atom_properties,
    magnetic_moments,
    to_ase,
    to_phonopy,
)

# Positions are rounded to 1e-6 Ang: rounding errors of linear algebra, which depend on the library
# and on the number of threads, must not make another snapshot that needs another label.
DECIMALS = 6
_SAME_SITE = 1e-3  # of a cell vector

#: Cubic lattice constants in Angstrom from which a relaxation starts: PBEsol for the sulfides
#: (Benitez et al., arXiv:2511.15222); PBEsol with localised orbitals for the selenides.
LATTICE_CONSTANTS = {"Ag3SBr": 4.793, "Ag3SI": 4.869, "Ag3SeBr": 5.01, "Ag3SeI": 5.07}


@dataclass(frozen=True)
class Crystal:
    """A crystal and the supercell in which its atoms are displaced.

    Attributes:
        name: in databases, tables and figures.
        unitcell: the undisplaced unit cell, with masses and magnetic moments (collinear, in Bohr
            magnetons); see :func:`.check_atom_properties` for what must not be there.
        supercell_matrix: three integers, or a matrix of shape (3, 3) in phonopy's convention,
            which it then is.
        end_members: of a mixed crystal: (crystal, fraction), with supercells of the same sites in
            the same order. The lattice is their average.
        own_lattice: whether the lattice of a mixed crystal was given instead.
        own_force_constants: whether those of a mixed crystal are calculated; otherwise they are the
            average over the end members.
        composition: name in tables of a crystal that is one of many arrangements.
        parent: of all snapshots of such a crystal, see :class:`.Snapshot`.
    """

    name: str
    unitcell: Atoms
    supercell_matrix: tuple[tuple[int, int, int], ...]
    end_members: tuple[tuple[Crystal, float], ...] = ()
    own_lattice: bool = False
    own_force_constants: bool = False
    composition: str | None = None
    parent: str | None = None

    def __post_init__(self) -> None:
        if not isinstance(self.unitcell, Atoms):
            raise TypeError(
                f"the unit cell of {self.name} is {self.unitcell!r}; expected ase.Atoms, such as "
                "ase.io.read(FILE)"
            )
        object.__setattr__(self, "supercell_matrix", supercell_matrix(self.supercell_matrix))
        if not self.name or "/" in self.name:
            raise ValueError(
                f"the name of a crystal is {self.name!r}; expected one without '/', which can be "
                "part of a file's name: set data.structure.name"
            )
        if len(self.unitcell) * round(np.linalg.det(self.supercell_matrix)) < 2:
            raise ValueError(
                f"the supercell of {self.name} has 1 atom, which nothing can be displaced against; "
                "expected at least 2: set data.structure.supercell, to [2,2,2] for example"
            )
        check_atom_properties(self.unitcell, self.name)

    def phonopy(self) -> Phonopy:
        """A new phonopy object; its primitive cell is the unit cell itself ("P").

        phonopy's default ("auto") would reduce an ordered alloy to a smaller cell.

        Raises:
            ValueError: for a cell that phonopy or spglib cannot use, such as overlapping atoms.
        """
        with warnings.catch_warnings():
            # Harmless: the case for every supercell that is longer in one direction.
            warnings.filterwarnings("ignore", ".*Point group symmetries of supercell and primitive")
            try:
                return Phonopy(
                    to_phonopy(self.unitcell),
                    supercell_matrix=np.array(self.supercell_matrix),
                    primitive_matrix="P",
                )
            except RuntimeError as error:
                raise ValueError(f"phonopy cannot use the crystal {self.name}: {error}") from error

    @property
    def space_group(self) -> str:
        """International symbol and number, found by spglib; that of the moments by its number."""
        symmetry = self.phonopy().primitive_symmetry.dataset
        if magnetic_moments(self.unitcell) is not None:
            group: Any = spglib.get_magnetic_spacegroup_type(symmetry.uni_number)
            return f"magnetic, BNS {group.bns_number}"
        return f"{symmetry.international} ({symmetry.number})"

    @property
    def supercell(self) -> Atoms:
        """The undisplaced supercell in phonopy's order of atoms."""
        return to_ase(get_supercell(to_phonopy(self.unitcell), np.array(self.supercell_matrix)))

    def with_masses(self, masses: np.ndarray) -> Crystal:
        """The crystal with these masses of the atoms of its supercell, in amu, shape=(n_atoms,).

        Raises:
            ValueError: if copies of one atom of the unit cell have different masses.
        """
        copies = np.reshape(masses, (len(self.unitcell), -1))
        if not np.array_equal(copies, copies[:, :1].repeat(copies.shape[1], axis=1)):
            raise ValueError(
                f"the masses of {self.name} differ among copies of an atom of its unit cell: take "
                "a unit cell in data.structure that is as large as that of the masses"
            )
        if np.array_equal(copies[:, 0], self.unitcell.get_masses()):
            return self
        unitcell = self.unitcell.copy()
        unitcell.set_masses(copies[:, 0])
        return replace(self, unitcell=unitcell)

    @property
    def translations(self) -> np.ndarray:
        """Translations of the unit cell in the supercell, see :func:`.translations`."""
        return translations(self.supercell, self.unitcell, np.array(self.supercell_matrix))


class StructureSource(Protocol):
    """Where crystals come from."""

    crystals: list[Crystal]
    relax: bool
    """Whether cell and free positions are relaxed first."""
    calculator: Any
    """Of the relaxation; None for that of the labels."""


@dataclass(frozen=True)
class Crystals:
    """Crystals at hand: a :class:`StructureSource` for scripts.

    Attributes:
        crystals: with different names.
        relax: cell and free positions with the calculator first, keeping the symmetry.
        calculator: of the relaxation; by default that of the labels.
    """

    crystals: list[Crystal]
    relax: bool = True
    calculator: Any = None

    def __post_init__(self) -> None:
        names = [crystal.name for crystal in self.crystals]
        if not names or len(set(names)) < len(names):
            raise ValueError(f"the names of the crystals are {names}; expected different ones")


def supercell_matrix(value: Sequence[Any] | np.ndarray) -> tuple[tuple[int, int, int], ...]:
    """Three integers (diagonal) or a 3x3 integer matrix -> a 3x3 tuple.

    Raises:
        ValueError: for any other shape, a fractional entry or a determinant below 1.
    """
    try:
        matrix = np.array(value, dtype=float)
    except (TypeError, ValueError):
        matrix = np.zeros(0)
    if matrix.shape == (3,):
        matrix = np.diag(matrix)
    if matrix.shape != (3, 3) or not np.array_equal(matrix, matrix.round()):
        raise ValueError(f"supercell is {value}; expected 3 integers or a 3x3 integer matrix")
    if np.linalg.det(matrix) < 0.5:
        raise ValueError(f"supercell {value} has determinant {np.linalg.det(matrix):g}, not >= 1")
    return tuple(tuple(int(n) for n in row) for row in matrix)  # type: ignore[misc]


def antiperovskite(formula: str, lattice_constant: float | None = None) -> Atoms:
    """Cubic antiperovskite X3BA, space group Pm-3m, five atoms.

    X sits on the faces, B in the body centre, A on the corner: ``Ag3SBr`` has silver around
    sulfur in corner-sharing octahedra and bromine between them.

    Args:
        formula: three element symbols, the first followed by a 3.
        lattice_constant: in Angstrom; may be left out for the crystals in
            :data:`LATTICE_CONSTANTS`.

    Raises:
        ValueError: for a formula of another form, an unknown element, or a missing constant.
    """
    match = re.fullmatch(r"([A-Z][a-z]?)3([A-Z][a-z]?)([A-Z][a-z]?)", formula)
    if match is None or not set(match.groups()) <= set(chemical_symbols[1:]):
        raise ValueError(
            f"{formula!r} is not a cubic antiperovskite X3BA of three elements; expected a formula "
            f"like 'Ag3SBr'. With a built-in lattice constant: {', '.join(LATTICE_CONSTANTS)}"
        )
    a = LATTICE_CONSTANTS.get(formula) if lattice_constant is None else lattice_constant
    if a is None:
        raise ValueError(
            f"no lattice constant is known for {formula!r} (known: {', '.join(LATTICE_CONSTANTS)})"
            f": set data.structure.lattice_constants.{formula}"
        )
    check_positive("Ang", **{f"lattice constant of {formula}": a})
    x, b, c = match.groups()
    sites = [(0.5, 0.5, 0), (0.5, 0, 0.5), (0, 0.5, 0.5), (0.5, 0.5, 0.5), (0, 0, 0)]
    return Atoms([x, x, x, b, c], cell=[a, a, a], scaled_positions=sites, pbc=True)


def check_formulas(names: Sequence[str]) -> None:
    """Raises ValueError for no names, or one that is there twice."""
    if not names or len(set(names)) != len(names):
        raise ValueError(f"data.structure.names is {list(names)}; expected different formulas")


class Antiperovskites:
    """Cubic antiperovskites by formula.

    Args:
        names: formulas such as ``Ag3SBr``.
        supercell: three integers or a 3x3 matrix.
        relax: relax cell and free positions with the calculator, keeping the symmetry.
        lattice_constants: formula -> Angstrom, for crystals without a built-in constant.
        calculator: of the relaxation; by default that of the labels.
    """

    def __init__(
        self,
        names: Sequence[str],
        supercell: Sequence[Any] = (2, 2, 2),
        relax: bool = True,
        lattice_constants: Mapping[str, float] | None = None,
        calculator: Any = None,
    ):
        self.relax, self.calculator = relax, calculator
        constants = dict(lattice_constants or {})
        matrix = supercell_matrix(supercell)
        check_formulas(names)
        self.crystals = [
            Crystal(name, antiperovskite(name, constants.get(name)), matrix) for name in names
        ]


def translations(ideal: Atoms, unitcell: Atoms, supercell_matrix: np.ndarray) -> np.ndarray:
    """Atom of each site and translation of the unit cell, see :class:`.BlochModes`.

    Args:
        ideal: the supercell in phonopy's order: all copies of an atom one after the other.
        unitcell: that is repeated in it.
        supercell_matrix: phonopy's convention.

    Returns:
        shape=(n_sites, d1, d2, d3), the d by Smith's normal form of the supercell matrix.
    """
    form = SNF3x3(np.array(supercell_matrix))
    shape = np.abs(np.diag(form.D))
    n_sites = len(unitcell)
    site = np.repeat(np.arange(n_sites), len(ideal) // n_sites)
    steps = (ideal.positions - unitcell.positions[site]) @ np.linalg.inv(unitcell.cell.array)
    cells = steps.round()
    if np.abs(steps - cells).max() > _SAME_SITE or (ideal.numbers != unitcell.numbers[site]).any():
        raise ValueError("the supercell is not the unit cell repeated, in phonopy's order of atoms")
    element = (cells.astype(int) @ form.P.T) % shape
    atoms = np.empty((n_sites, *shape), dtype=int)
    atoms[site, *element.T] = np.arange(len(ideal))
    return atoms


def shortest_distance(atoms: Atoms) -> float:
    """Shortest distance between two different atoms of the cell, periodic images included."""
    if len(atoms) < 2:
        return np.inf
    cutoff = 2.0
    while True:  # all pairs would take 1 GB at 1,080 atoms
        i, j, distances = neighbor_list("ijd", atoms, cutoff)
        distances = distances[i != j]
        if distances.size:
            return float(distances.min())
        cutoff *= 1.5


def displaced_positions(ideal: Atoms, displacements: np.ndarray) -> np.ndarray:
    """Positions with the geometric centre kept, rounded; shape=(n, n_atoms, 3)."""
    centred = displacements - displacements.mean(axis=-2, keepdims=True)
    return (ideal.positions + centred).round(DECIMALS)
