"""Tables of bonds -> CSV, Parquet, extended XYZ and LAMMPS dump local (OVITO)."""

from __future__ import annotations

from collections.abc import Iterable
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pandas as pd
from ase import Atoms
from ase.io import write


def write_table(table: pd.DataFrame, path: Path) -> None:
    """CSV always; Parquet beside it where pyarrow is there."""
    table.to_csv(path, index=False)
    if find_spec("pyarrow") is not None:
        table.to_parquet(path.with_suffix(".parquet"), index=False)


def atom_sums(n_atoms: int, bonds: pd.DataFrame) -> np.ndarray:
    """Half of each bond's attribution on each of its atoms, shape=(n_atoms,)."""
    half = bonds["attribution"].to_numpy() / 2
    return np.bincount(bonds["i"], half, n_atoms) + np.bincount(bonds["j"], half, n_atoms)


def write_bond_extxyz(
    path: Path, structures: Iterable[tuple[int, Atoms]], bonds: pd.DataFrame
) -> None:
    """Displaced crystals with the half sums of their bonds (``bond_attribution``) on the atoms.

    Args:
        path: the file.
        structures: index and displaced crystal.
        bonds: table of the bonds of all.
    """
    frames = []
    for index, atoms in structures:
        frame = Atoms(atoms.numbers, atoms.positions, cell=atoms.cell, pbc=atoms.pbc)
        frame.set_array("id", np.arange(1, len(atoms) + 1))
        sums = atom_sums(len(atoms), bonds[bonds["index"] == index])
        frame.set_array("bond_attribution", sums)
        frame.info["index"] = index
        frames.append(frame)
    write(path, frames, format="extxyz")


def write_dump_local(
    path: Path, structures: Iterable[tuple[int, Atoms]], bonds: pd.DataFrame
) -> None:
    """LAMMPS dump local, one frame a structure, in the order of the extended XYZ file.

    OVITO: open the extended XYZ file, add "Load trajectory" with this file, map ``batom1`` and
    ``batom2`` to the particle identifiers, and colour the bonds by ``attribution``.

    Args:
        path: the file.
        structures: index and displaced crystal.
        bonds: table of the bonds of all.
    """
    with open(path, "w") as file:
        for frame, (index, atoms) in enumerate(structures):
            own = bonds[bonds["index"] == index]
            cell = atoms.cell.standard_form()[0].array
            tilts = xy, xz, yz = cell[1, 0], cell[2, 0], cell[2, 1]
            low_x, high_x = min(0, xy, xz, xy + xz), max(0, xy, xz, xy + xz)
            bounds = [
                (low_x, cell[0, 0] + high_x, tilts[0]),
                (min(0, yz), cell[1, 1] + max(0, yz), tilts[1]),
                (0.0, cell[2, 2], tilts[2]),
            ]
            file.write(f"ITEM: TIMESTEP\n{frame}\nITEM: NUMBER OF ENTRIES\n{len(own)}\n")
            file.write("ITEM: BOX BOUNDS xy xz yz pp pp pp\n")
            file.writelines(f"{low:.10g} {high:.10g} {tilt:.10g}\n" for low, high, tilt in bounds)
            file.write("ITEM: ENTRIES index batom1 batom2 distance change shell attribution\n")
            change = own["distance"] - own["ideal_distance"]
            columns = (own["i"] + 1, own["j"] + 1, own["distance"], change, own["shell"])
            rows = zip(*columns, own["attribution"], strict=True)
            file.writelines(
                f"{k} {i} {j} {d:.6f} {dd:.6f} {shell} {a:.8g}\n"
                for k, (i, j, d, dd, shell, a) in enumerate(rows, 1)
            )
