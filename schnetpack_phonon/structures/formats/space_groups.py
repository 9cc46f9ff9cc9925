"""Settings of space groups that a CIF file without symmetry operations may mean."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import spglib
from ase.io.cif import CIFBlock

_SAME_METRIC = 0.01  # of the square of a cell vector
_NUMBERS = ("_space_group_it_number", "_space_group.it_number", "_symmetry_int_tables_number")
_HERMANN_MAUGUIN = (
    "_space_group_name_h-m_alt",
    "_space_group.name_h-m_alt",
    "_symmetry_space_group_name_h-m",
)
_HALL = ("_space_group_name_hall", "_space_group.name_hall", "_symmetry_space_group_name_hall")
_STANDARD = ("", "1", "2", "H", "R", "b", "b1")  # choices of spglib in the settings of the Tables


def first_value(block: CIFBlock, tags: tuple[str, ...]) -> Any:
    """Of the first of these tags that has one; None if none has."""
    return next((block[tag] for tag in tags if block.get(tag) not in (None, "?", ".")), None)


def group_name(block: CIFBlock) -> str:
    """Symbol and number of the space group, as far as the block tells them."""
    parts = [first_value(block, tags) for tags in (_HERMANN_MAUGUIN, _NUMBERS)]
    return " ".join(str(part) for part in parts if part is not None)


def settings(block: CIFBlock) -> list[int]:
    """Numbers of Hall of the settings that a file without operations may mean."""
    hall, name = first_value(block, _HALL), first_value(block, _HERMANN_MAUGUIN)
    number = first_value(block, _NUMBERS)
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
            f"space group {group_name(block) or hall} without symmetry operations is no setting "
            "that spglib knows: list the operations (_space_group_symop_operation_xyz)"
        )
    metric = block.get_cell().array @ block.get_cell().array.T
    same = [k for k in named if _keeps(metric, k)]
    if not same:
        raise ValueError(f"its cell does not have the symmetry of {group_name(block) or hall}")
    return same


def operations(number: int) -> tuple[np.ndarray, np.ndarray]:
    """Rotations, shape=(n, 3, 3), and translations, shape=(n, 3), of a setting."""
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
    rotations, _ = operations(number)
    turned = np.einsum("oba,bc,ocd->oad", rotations, metric, rotations)
    return bool(np.abs(turned - metric).max() < _SAME_METRIC * metric.diagonal().max())
