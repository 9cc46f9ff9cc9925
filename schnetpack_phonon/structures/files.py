"""Structures from files of other programs."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator, Sequence
from glob import escape, glob
from pathlib import Path
from typing import Any

import numpy as np
import spglib
from ase import Atoms
from ase.io import iread
from ase.io.espresso import get_atomic_positions, get_atomic_species, read_fortran_namelist
from ase.io.formats import filetype
from ase.neighborlist import neighbor_list
from ase.spacegroup.symmetrize import refine_symmetry

from schnetpack_phonon.common.errors import UnreadableFileError, check_positive
from schnetpack_phonon.structures.atom_properties import check_atom_properties, own_masses
from schnetpack_phonon.structures.crystals import Crystal
from schnetpack_phonon.structures.formats.cif import SMALLEST_DISTANCE, read_cif
from schnetpack_phonon.structures.formats.phonopy_yaml import SIGNATURE, phonopy_unitcell
from schnetpack_phonon.structures.supercells import supercell_of

log = logging.getLogger(__name__)

# Of files that ASE knows by their names only.
_SIGNATURES = {
    "espresso-in": re.compile(rb"(?im)^\s*&(control|system)\b"),
    "vasp-xml": re.compile(rb"<modeling>"),
    "phonopy": SIGNATURE,
}
# Order of non-metals in formulas (IUPAC recommendations 2005, table VI).
_NON_METALS = re.findall("[A-Z][a-z]?", "RnXeKrArNeHeBSiCSbAsPNHTeSeSAtIBrClOF")
_NEARLY = 0.01  # Ang; of positions with few digits
_ROUNDED_MASS = 2e-3  # relative; the masses of an input often have a few digits


class StructureFile:
    """A crystal from a file of phonopy, a CIF file or any that ASE reads (POSCAR, extxyz, ...).

    It has the masses and the magnetic moments of the file: the initial ones, or those that a
    calculation found.

    Args:
        path: the file.
        supercell: three integers, a 3x3 matrix, or ``auto``: that of a file of phonopy, else see
            :func:`.supercell_of`.
        name: in tables and names of files; the chemical formula by default.
        relax: relax cell and positions with the calculator, keeping the symmetry.
        format: ASE's name of the format, such as ``vasp-xml``; by default it is told from the name
            and the beginning of the file.
        frame: which structure of a file with several, 0 is the first and -1 the last.
        symmetry_tolerance: in Ang; positions and cell are made symmetric by the operations found
            within it. By default they are taken as they are, and phonopy looks for operations
            within 1e-5 Ang.
        calculator: of the relaxation; by default that of the labels.
        work_dir: where a relative path starts.
        min_length: of an automatic supercell, in Ang.
        min_atoms: of an automatic supercell.
    """

    def __init__(
        self,
        path: str,
        supercell: Sequence[Any] | str = "auto",
        name: str | None = None,
        relax: bool = True,
        format: str | None = None,
        frame: int | None = None,
        symmetry_tolerance: float | None = None,
        calculator: Any = None,
        work_dir: str = ".",
        min_length: float = 7.5,
        min_atoms: int = 2,
    ):
        atoms = read_structure(Path(work_dir, path), format, frame, "data.structure.")
        unitcell = checked_unitcell(atoms, path, symmetry_tolerance)
        self.relax, self.calculator = relax, calculator
        name = name or formula(unitcell)
        matrix = supercell_of(unitcell, supercell, min_length, min_atoms)
        self.crystals = [Crystal(name, unitcell, matrix)]


def formula(atoms: Atoms) -> str:
    """Reduced formula: metals in the order of the atoms, then non-metals in IUPAC's order."""
    reduced, _ = atoms.symbols.formula.reduce()
    counts = reduced.count()
    metals = [symbol for symbol in counts if symbol not in _NON_METALS]
    order = metals + [symbol for symbol in _NON_METALS if symbol in counts]
    return "".join(f"{s}{counts[s] if counts[s] > 1 else ''}" for s in order)


def checked_unitcell(atoms: Atoms, path: str | Path, symmetry_tolerance: float | None) -> Atoms:
    """The crystal of a file with its masses and magnetic moments.

    Args:
        atoms: as they were read; changed.
        path: for messages.
        symmetry_tolerance: in Ang, see :class:`StructureFile`.

    Raises:
        ValueError: for what is no crystal, and for atoms closer than 0.5 Ang.
    """
    if not atoms.pbc.all():
        raise ValueError(
            f"{path} is periodic along {atoms.pbc.sum()} of 3 directions; expected a crystal"
        )
    i, j, distances = neighbor_list("ijd", atoms, SMALLEST_DISTANCE)
    if distances.size:
        k = int(distances.argmin())
        pair = " and ".join(f"{atom} ({atoms.symbols[atom]})" for atom in (i[k], j[k]))
        raise ValueError(
            f"{path} has atoms {pair} {distances[k]:.3f} Ang apart; expected at least "
            f"{SMALLEST_DISTANCE:g} Ang: the positions or the cell are wrong"
        )
    if symmetry_tolerance is not None:
        check_positive("Ang", **{"data.structure.symmetry_tolerance": symmetry_tolerance})
        refine_symmetry(atoms, symprec=symmetry_tolerance)
    else:
        _warn_of_rounding(atoms, path)
    _take_calculated_moments(atoms)
    atoms.calc = None
    check_atom_properties(atoms, str(path))
    atoms.set_masses(own_masses(atoms))
    return atoms


def files_of_crystals(pattern: str) -> list[Path]:
    """Files of a path in which ``{name}`` stands for any crystal's name, sorted."""
    return [Path(name) for name in sorted(glob(escape(pattern).replace("{name}", "*")))]


def read_frames(
    path: str | Path, index: str = ":", format: str | None = None, option: str = ""
) -> Iterator[Atoms]:
    """Structures in a file, one after the other.

    Args:
        path: CIF files are read by :func:`.read_cif`, those of phonopy and phono3py by
            :func:`.phonopy_unitcell`, all others by ASE.
        index: which, as slices are written.
        format: ASE's name of the format; told from the file by default.
        option: what stands before ``format`` in messages; empty where a user cannot set it.

    Raises:
        FileNotFoundError: if there is no file.
        UnreadableFileError: names the file; for an unknown format and whatever else ASE raises.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"no structure file at {path.absolute()}")
    kind = format
    try:
        kind = kind or file_format(path)
        if kind == "cif":
            parts = [int(part) if part else None for part in index.split(":")]
            yield from read_cif(path)[slice(*parts)]
        elif kind == "espresso-in":
            yield _pw_input(path)
        elif kind == "phonopy":
            yield phonopy_unitcell(path)
        else:
            yield from _ase(path, index, kind)
    except Exception as error:  # ASE raises whatever its many readers raise
        named = isinstance(error, ValueError) and str(error)
        reason = str(error) if named else f"{type(error).__name__}: {error}"
        if isinstance(error, KeyError) and (isotope := re.search(r"\b[DT]\b", reason)):
            reason = (
                f"{isotope[0]} is an isotope; expected H with its mass, such as in a column "
                "masses:R:1 of an extxyz file"
            )
        if option and kind != "cif":
            reason += f"; set {option}format if it is of another format ('ase info --formats')"
        raise UnreadableFileError(f"cannot read {path}: {reason}") from error


def read_structure(
    path: str | Path, format: str | None = None, frame: int | None = None, option: str = ""
) -> Atoms:
    """The structure of a file, or the chosen one of several.

    Args:
        path: as :func:`read_frames` takes it.
        format: ASE's name of the format.
        frame: which, 0 is the first and -1 the last; needed for a file with several.
        option: what stands before ``frame`` and ``format`` in messages.

    Raises:
        ValueError: for no structure, several without ``frame``, or a frame that is not there.
    """
    frames = list(read_frames(path, format=format, option=option))
    if not frames:
        raise UnreadableFileError(f"{path} has no structure")
    if frame is None and len(frames) > 1:
        formulas = dict.fromkeys(atoms.get_chemical_formula() for atoms in frames)
        raise ValueError(
            f"{path} has {len(frames)} structures ({', '.join(list(formulas)[:4])}); expected one: "
            f"set {option}frame, 0 for the first or -1 for the last"
        )
    try:
        return frames[frame or 0]
    except IndexError:
        raise ValueError(
            f"{option}frame is {frame}; {path} has {len(frames)} structures, the first is 0"
        ) from None


def file_format(path: Path) -> str:
    """ASE's name of the format of a file, by its content or else by its name."""
    with open(path, "rb") as file:
        beginning = file.read(2000)
    for name, signature in _SIGNATURES.items():
        if signature.search(beginning):
            return name
    return filetype(str(path.absolute()))


def _ase(path: Path, index: str, format: str) -> Iterator[Atoms]:
    # An absolute name is no address of a database, and "@" is a character as any other.
    return iread(str(path.absolute()), index, format, do_not_split_by_at_sign=True)


def _pw_input(path: Path) -> Atoms:
    """Input of pw.x with the masses of its species.

    Raises:
        ValueError: for starting magnetisations, which are no moments.
    """
    with open(path) as file:
        namelists, cards = read_fortran_namelist(file)
    (atoms,) = _ase(path, ":", "espresso-in")
    system = namelists["system"]
    if moments := [k for k, v in system.items() if k.startswith("starting_magn") and v]:
        raise ValueError(
            f"{moments[0]} is a share of the valence electrons; expected no magnetisation, or a "
            "format with moments in Bohr magnetons, such as extxyz"
        )
    masses = {label: mass for label, mass, _ in get_atomic_species(cards, system["ntyp"])}
    sites = get_atomic_positions(cards, system["nat"], np.eye(3), 1.0)
    own = np.array([masses[label] for label, *_ in sites])
    if not np.allclose(own, atoms.get_masses(), rtol=_ROUNDED_MASS):
        atoms.set_masses(own)
    return atoms


def _take_calculated_moments(atoms: Atoms) -> None:
    """Moments of a calculation, to 0.01 Bohr magnetons, where there are no initial ones."""
    if atoms.calc and not atoms.get_initial_magnetic_moments().any():
        found = atoms.calc.results.get("magmoms")
        atoms.set_initial_magnetic_moments(None if found is None else np.round(found, 2))


def _warn_of_rounding(atoms: Atoms, path: str | Path) -> None:
    cell = (atoms.cell.array, atoms.get_scaled_positions(), atoms.numbers)
    exact, near = (spglib.get_symmetry_dataset(cell, symprec=t) for t in (1e-5, _NEARLY))
    if exact and near and exact.number != near.number:
        log.warning(
            "%s has space group %s, but %s within %g Ang: if digits are missing, set "
            "data.structure.symmetry_tolerance=%g",
            *(path, exact.international, near.international, _NEARLY, _NEARLY),
        )
