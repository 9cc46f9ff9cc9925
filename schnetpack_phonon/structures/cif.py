"""Crystals of CIF files: settings of space groups, special positions, and what a file says of both.

ASE's reader takes the first setting of a space group where a file lists no operations, and keeps
images of one atom apart whose coordinates are rounded (0.333 for 1/3).
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from math import gcd
from pathlib import Path
from typing import Any

import numpy as np
import spglib
from ase import Atoms
from ase.data import chemical_symbols
from ase.io.cif import CIFBlock, parse_cif
from ase.spacegroup.spacegroup import parse_sitesym

from schnetpack_phonon.structures.crystals import shortest_distance

#: Of different atoms in any crystal, in Ang.
SMALLEST_DISTANCE = 0.5
_MASS_OF_DEUTERIUM = 2.01410178
_SAME_ATOM = 0.3  # Ang; images of one site that are closer are one atom
_SAME_METRIC = 0.01  # of the square of a cell vector
_OPERATIONS = (
    "_space_group_symop_operation_xyz",
    "_space_group_symop.operation_xyz",
    "_symmetry_equiv_pos_as_xyz",
)
_NUMBERS = ("_space_group_it_number", "_space_group.it_number", "_symmetry_int_tables_number")
_HERMANN_MAUGUIN = (
    "_space_group_name_h-m_alt",
    "_space_group.name_h-m_alt",
    "_symmetry_space_group_name_h-m",
)
_HALL = ("_space_group_name_hall", "_space_group.name_hall", "_symmetry_space_group_name_hall")
_STANDARD = ("", "1", "2", "H", "R", "b", "b1")  # choices of spglib in the settings of the Tables
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


def _read_block(block: CIFBlock) -> Atoms:
    for tag in block:
        for start, what in _UNSUPPORTED.items():
            if tag.startswith(start):
                raise ValueError(f"{tag}: {what}; expected an ordinary crystal, without moments")
    if block.get_cell().rank < 3:
        raise ValueError("it has no cell")
    _check_order(block)
    listed = _first(block, _OPERATIONS)
    if listed:
        rotations, shifts = parse_sitesym([listed] if isinstance(listed, str) else listed)
        atoms = _expanded(block, rotations, shifts)
        if wrong := _contradiction(atoms, block):
            raise ValueError(wrong)
        return atoms
    found: list[Atoms] = []
    wrong = None
    for number in _settings(block):
        atoms = _expanded(block, *_operations(number))
        reason = _contradiction(atoms, block)
        wrong = wrong or reason
        if not reason and not any(_same(atoms, other) for other in found):
            found.append(atoms)
    if len(found) == 1:
        return found[0]
    if wrong and not found:
        raise ValueError(wrong)
    raise ValueError(
        f"space group {_group(block)} without symmetry operations: "
        f"{len(found)} settings fit; list the operations (_space_group_symop_operation_xyz), or "
        "write a POSCAR with a program that knows the setting"
    )


def _first(block: CIFBlock, tags: tuple[str, ...]) -> Any:
    return next((block[tag] for tag in tags if block.get(tag) not in (None, "?", ".")), None)


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
        if occupancy not in (".", "?") and abs(float(occupancy) - 1) > 1e-3:
            raise ValueError(
                f"sites of mixed or partial occupancy ({label}: {occupancy}); expected whole "
                "atoms: write arrangements of the mixture into an extxyz file, each with "
                "name=NAME in its comment line, for data/structure=files "
                "data.structure.paths=FILE; data/structure=mixed_antiperovskite draws those of "
                "antiperovskites"
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


def _group(block: CIFBlock) -> str:
    parts = [_first(block, tags) for tags in (_HERMANN_MAUGUIN, _NUMBERS)]
    return " ".join(str(part) for part in parts if part is not None)


def _settings(block: CIFBlock) -> list[int]:
    """Numbers of Hall of the settings that a file without operations may mean."""
    hall, name = _first(block, _HALL), _first(block, _HERMANN_MAUGUIN)
    number = _first(block, _NUMBERS)
    if hall is None and name is None and number is None:
        raise ValueError(
            "it names neither symmetry operations nor a space group; add "
            "'_space_group_IT_number 1' if it lists all atoms of the cell"
        )
    known: dict[int, Any] = {k: spglib.get_spacegroup_type(k) for k in range(1, 531)}
    fitting = [k for k in known if number is None or known[k].number == int(number)]
    if hall is not None:
        named = [k for k in fitting if _plain(known[k].hall_symbol) == _plain(str(hall))]
    elif name is not None:
        symbol, _, choice = _plain(str(name)).partition(":")
        choice = {"s": "1", "z": "2"}.get(choice, choice)
        full = [k for k in fitting if symbol in _full_names(known[k])]
        short = [k for k in fitting if symbol in _short_names(known[k])]
        named = full or [k for k in short if known[k].choice[:1] in ("b", "")] or short
        if choice:
            named = [k for k in named if known[k].choice.lower() == choice]
    else:
        named = [k for k in fitting if known[k].choice in _STANDARD]
    if not named:
        raise ValueError(
            f"space group {_group(block) or hall} without symmetry operations is no setting that "
            "spglib knows: list the operations (_space_group_symop_operation_xyz)"
        )
    metric = block.get_cell().array @ block.get_cell().array.T
    same = [k for k in named if _keeps(metric, k)]
    if not same:
        raise ValueError(f"its cell does not have the symmetry of {_group(block) or hall}")
    return same


def _operations(number: int) -> tuple[np.ndarray, np.ndarray]:
    symmetry: Any = spglib.get_symmetry_from_database(number)
    return symmetry["rotations"], symmetry["translations"]


def _plain(symbol: str) -> str:
    return re.sub(r"[\s_]", "", symbol).lower()


def _full_names(group: Any) -> set[str]:
    return {_plain(group.international_full), _plain(group.international.split("=")[-1])}


def _short_names(group: Any) -> set[str]:
    """Also ``P 21/n`` for ``P 1 21/n 1``, and both names of groups such as Cmce (Cmca)."""
    names = ["".join(word for word in group.international_full.split() if word != "1")]
    if group.choice in _STANDARD:  # for others they name the standard setting
        names += [group.international_short, *group.international.split("=")]
    return {_plain(name) for name in names}


def _keeps(metric: np.ndarray, number: int) -> bool:
    rotations, _ = _operations(number)
    turned = np.einsum("oba,bc,ocd->oad", rotations, metric, rotations)
    return bool(np.abs(turned - metric).max() < _SAME_METRIC * metric.diagonal().max())
