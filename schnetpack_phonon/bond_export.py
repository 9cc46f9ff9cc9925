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

    OVITO: open the extended XYZ file, add the modifier "Load trajectory" with this file, map
    ``batom1`` and ``batom2`` to the components of "Particle Identifiers" and the images to those of
    "Periodic Image", and colour the bonds by ``attribution``.

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
            table = pd.DataFrame(
                {
                    "index": np.arange(1, len(own) + 1),
                    "batom1": own["i"] + 1,
                    "batom2": own["j"] + 1,
                    **{name: own[name] for name in ("image_x", "image_y", "image_z", "distance")},
                    "change": own["distance"] - own["ideal_distance"],
                    **{name: own[name] for name in ("shell", "attribution")},
                }
            )
            file.write(f"ITEM: ENTRIES {' '.join(map(str, table))}\n")
            table.to_csv(file, sep=" ", header=False, index=False, float_format="%.8g")
