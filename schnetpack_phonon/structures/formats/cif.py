"""Crystals of CIF files: settings of space groups, special positions, and what a file says of both.

ASE's reader takes the first setting of a space group where a file lists no operations, and keeps
images of one atom apart whose coordinates are rounded (0.333 for 1/3).
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from dataclasses import dataclass
from math import gcd
from pathlib import Path

import numpy as np
from ase import Atoms
from ase.data import chemical_symbols
from ase.io.cif import CIFBlock, parse_cif
from ase.spacegroup.spacegroup import parse_sitesym

from schnetpack_phonon.structures.crystals import shortest_distance
from schnetpack_phonon.structures.formats.space_groups import (
    first_value,
    group_name,
    operations,
    settings,
)

#: Of different atoms in any crystal, in Ang.
SMALLEST_DISTANCE = 0.5
_MASS_OF_DEUTERIUM = 2.01410178
_SAME_ATOM = 0.3  # Ang; images of one site that are closer are one atom
_OPERATIONS = (
    "_space_group_symop_operation_xyz",
    "_space_group_symop.operation_xyz",
    "_symmetry_equiv_pos_as_xyz",
)
FULL = 1e-3  #: a site is full if its occupancies differ from 1 by less
_SAME_SITE = 1e-3  # of a cell vector; atoms of one site that share it
_UNSUPPORTED = {
    "_space_group_magn": "a magnetic space group",
    "_space_group_symop_magn": "a magnetic space group",
    "_space_group_symop.magn": "a magnetic space group",
    "_cell_modulation_dimension": "a modulated structure",
}


def read_cif(path: Path) -> list[Atoms]:
    """Crystals of a CIF file, one of each data block with atoms.

    Where a block lists no operations, they are those of its space group's setting, from its symbol
    (``:1``, ``:2``, ``:H``, ``:R``), the cell, the formula and Z. Images of an atom on a special
    position are one atom in their mean position. Deuterium is hydrogen with its mass.

    Raises:
        ValueError: for partial occupancies and disorder; for magnetic and modulated structures; for
            a setting that the file does not tell; for a crystal of another formula or Z than the
            file says, or with atoms closer than 0.5 Ang.
    """
    return [_read_block(block) for block in parse_cif(str(path)) if block.has_structure()]


@dataclass(frozen=True)
class DisorderedSites:
    """Sites of a crystal with mixed or partial occupancies.

    Attributes:
        sites: of one unit cell; ``numbers`` count the kinds of sites from 1, they name no elements.
        occupancies: of each kind: element -> share of its sites; the rest is vacant.
    """

    sites: Atoms
    occupancies: tuple[dict[str, float], ...]


def read_disordered_cif(path: Path) -> DisorderedSites:
    """Sites of a CIF file whose atoms share sites, or are not in all cells.

    Sites of equal occupancies are of one kind, whether symmetry makes them equivalent or not.

    Raises:
        ValueError: as :func:`read_cif`, but for occupancies; for a site with more than one atom,
            atoms on split positions, isotopes, or more than one data block with atoms.
    """
    blocks = [block for block in parse_cif(str(path)) if block.has_structure()]
    if len(blocks) != 1:
        raise ValueError(f"{path} has {len(blocks)} structures; expected one")
    (block,) = blocks
    axes = [_column(block, f"_atom_site_fract_{axis}") for axis in "xyz"]
    types = _column(block, "_atom_site_type_symbol") or _column(block, "_atom_site_label")
    given = _column(block, "_atom_site_occupancy") or ["."] * len(types)
    if not all(axes):
        raise ValueError(f"{path} has no fractional coordinates")
    rows = np.array(axes, dtype=float).T
    steps = rows[:, None] - rows
    same = (np.abs(steps - steps.round()) < _SAME_SITE).all(axis=2)
    firsts = same.argmax(axis=1)  # the first row of each site
    shares: dict[int, dict[str, float]] = {int(k): defaultdict(float) for k in firsts}
    for first, kind, occupancy in zip(firsts, types, given, strict=True):
        element = _symbol(str(kind))
        if element == "D":
            raise ValueError(f"{path} has deuterium on a site; expected elements")
        shares[int(first)][element] += 1.0 if occupancy in (".", "?") else float(occupancy)
    for k, own in shares.items():
        if sum(own.values()) > 1 + FULL or min(own.values()) <= 0:
            text = ", ".join(f"{element} {share:g}" for element, share in own.items())
            raise ValueError(
                f"{path}: the site at {', '.join(f'{x:g}' for x in rows[k])} has {text}; expected "
                "positive occupancies of at most 1 in all"
            )
    occupancies = list({tuple(sorted(own.items())): own for own in shares.values()}.values())
    kinds = [chemical_symbols[1 + occupancies.index(own)] for own in shares.values()]
    kept = [_column(block, f"_atom_site_{tag}") for tag in ("calc_flag", "disorder_group")]
    tags = {tag: value for tag, value in block.items() if not tag.startswith("_atom_site_")}
    tags.pop("_chemical_formula_sum", None)
    tags |= {f"_atom_site_fract_{x}": rows[list(shares), i].tolist() for i, x in enumerate("xyz")}
    tags["_atom_site_type_symbol"] = kinds
    for tag, values in zip(("calc_flag", "disorder_group"), kept, strict=True):
        if values:
            tags[f"_atom_site_{tag}"] = [values[k] for k in shares]
    try:
        sites = _read_block(CIFBlock(block.name, tags))
    except ValueError as error:
        raise ValueError(f"{path}, with all sites full: {error}") from error
    return DisorderedSites(sites, tuple(dict(own) for own in occupancies))


def _read_block(block: CIFBlock) -> Atoms:
    for tag in block:
        for start, what in _UNSUPPORTED.items():
            if tag.startswith(start):
                raise ValueError(f"{tag}: {what}; expected an ordinary crystal, without moments")
    if block.get_cell().rank < 3:
        raise ValueError("it has no cell")
    _check_order(block)
    listed = first_value(block, _OPERATIONS)
    if listed:
        rotations, shifts = parse_sitesym([listed] if isinstance(listed, str) else listed)
        atoms = _expanded(block, rotations, shifts)
        if wrong := _contradiction(atoms, block):
            raise ValueError(wrong)
        return atoms
    found: list[Atoms] = []
    wrong = None
    for number in settings(block):
        atoms = _expanded(block, *operations(number))
        reason = _contradiction(atoms, block)
        wrong = wrong or reason
        if not reason and not any(_same(atoms, other) for other in found):
            found.append(atoms)
    if len(found) == 1:
        return found[0]
    if wrong and not found:
        raise ValueError(wrong)
    raise ValueError(
        f"space group {group_name(block)} without symmetry operations: "
        f"{len(found)} settings fit; list the operations (_space_group_symop_operation_xyz), or "
        "write a POSCAR with a program that knows the setting"
    )


def _column(block: CIFBlock, tag: str) -> list:
    values = block.get(tag, [])
    return values if isinstance(values, list) else [values]


def _check_order(block: CIFBlock) -> None:
    """Raises ValueError for atoms that are not there in all cells."""
    labels = _column(block, "_atom_site_label") or _column(block, "_atom_site_type_symbol")
    occupancies = _column(block, "_atom_site_occupancy") or [1.0] * len(labels)
    groups = _column(block, "_atom_site_disorder_group") or ["."] * len(labels)
    kinds = _column(block, "_atom_site_calc_flag") or ["."] * len(labels)
    for label, occupancy, group, kind in zip(labels, occupancies, groups, kinds, strict=True):
        if occupancy not in (".", "?") and abs(float(occupancy) - 1) > FULL:
            raise ValueError(
                f"sites of mixed or partial occupancy ({label}: {occupancy}); expected whole "
                "atoms. data/structure=disordered data.structure.path=FILE draws random "
                "arrangements of them; those of an extxyz file, each with name=NAME in its comment "
                "line, are taken by data/structure=files data.structure.paths=FILE"
            )
        if group not in (".", "?"):
            raise ValueError(
                f"disorder ({label} in group {group}); expected one arrangement of whole atoms"
            )
        if kind == "dum":
            raise ValueError(f"{label} is a dummy atom; expected atoms only")


def _expanded(block: CIFBlock, rotations: np.ndarray, shifts: np.ndarray) -> Atoms:
    """All atoms of the cell; those of a site one after the other."""
    cell = block.get_cell()
    types = _column(block, "_atom_site_type_symbol") or _column(block, "_atom_site_label")
    axes = [_column(block, f"_atom_site_fract_{axis}") for axis in "xyz"]
    if all(axes):
        sites = np.array(axes, dtype=float).T
    else:
        cartesian = [_column(block, f"_atom_site_cartn_{axis}") for axis in "xyz"]
        sites = cell.scaled_positions(np.array(cartesian, dtype=float).T)
    if not np.isfinite(sites).all():
        raise ValueError("coordinates are not finite")
    images = np.einsum("oab,sb->soa", rotations, sites) + shifts
    positions, symbols = [], []
    for kind, around in zip(types, images, strict=True):
        left = np.ones(len(around), dtype=bool)
        for k, image in enumerate(around):
            if left[k]:
                steps = around - image
                steps -= steps.round()
                same = np.linalg.norm(steps @ cell.array, axis=1) < _SAME_ATOM
                left &= ~same
                positions.append(image + steps[same].mean(axis=0))
                symbols.append(_symbol(str(kind)))
    atoms = Atoms(
        ["H" if s == "D" else s for s in symbols],
        scaled_positions=np.array(positions).round(12) % 1.0,
        cell=cell,
        pbc=True,
    )
    if "D" in symbols:
        atoms.set_masses([_MASS_OF_DEUTERIUM if s == "D" else None for s in symbols])
    return atoms


def _symbol(text: str) -> str:
    """``Ag1+``, ``AG`` or ``Ag_pv`` -> ``Ag``; ``OW1`` -> ``O``; ``D`` stays."""
    letters = re.match(r"[A-Za-z]*", text)
    for n in (2, 1):
        word = letters[0][:n].capitalize() if letters else ""
        if word == "D" or word in chemical_symbols[1:]:
            return word
    raise ValueError(f"{text!r} is no chemical element")


def _contradiction(atoms: Atoms, block: CIFBlock) -> str | None:
    """What the crystal has that its file denies."""
    formula = atoms.get_chemical_formula()
    distance = shortest_distance(atoms)
    if distance < SMALLEST_DISTANCE:
        return (
            f"{formula} in its cell has atoms {distance:.3f} Ang apart: coordinates with too few "
            "digits, or operations of another setting"
        )
    said = block.get("_chemical_formula_sum")
    counts: dict[str, float] = defaultdict(float)
    for symbol, count in re.findall(r"([A-Z][a-z]?)\s*(\d*\.?\d*)", str(said or "")):
        counts["H" if symbol == "D" else symbol] += float(count or 1)
    if not counts:
        return None
    here = Counter(atoms.get_chemical_symbols())
    n, m = sum(counts.values()), len(atoms)
    if here.keys() != counts.keys() or any(abs(counts[s] * m / n - here[s]) > 1e-3 for s in here):
        return f"{formula} in its cell, but _chemical_formula_sum is {said!r}"
    units = block.get("_cell_formula_units_z")
    if isinstance(units, int) and units > 0:
        # Z counts units of the sum or, where this is of the whole cell, of the reduced formula.
        reduced = n / gcd(*(round(count) for count in counts.values()))
        if not any(abs(m - x) < 1e-3 for x in (n, units * n, units * reduced)):
            return (
                f"{formula} in its cell, but _chemical_formula_sum is {said!r} and "
                f"_cell_formula_units_Z is {units}: the operations are of another setting, or "
                "atoms are missing"
            )
    return None


def _same(one: Atoms, other: Atoms) -> bool:
    """Whether two crystals in one cell have the same atoms at the same places."""
    if len(one) != len(other):
        return False
    steps = one.get_scaled_positions()[:, None] - other.get_scaled_positions()
    near = np.linalg.norm((steps - steps.round()) @ one.cell.array, axis=2) < _SAME_ATOM
    return bool((near & (one.numbers[:, None] == other.numbers)).any(axis=1).all())
