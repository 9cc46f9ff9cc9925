"""Forces and force constants in text files of phonopy and phono3py."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
from phonopy.file_IO import parse_FORCE_SETS, read_force_constants_hdf5

FORCES_FC2 = "FORCES_FC2"
_DISPLACED = re.compile(r"^#\s*(\d+)" + 3 * r"\s+([-+.\deE]+)" + r"\s*$", re.MULTILINE)


def read_forces(path: Path, n_atoms: int) -> dict[str, Any]:
    """Displacements and forces in FORCE_SETS of phonopy or FORCES_FC2 of phono3py.

    FORCES_FC2 has the forces on all atoms of each supercell below comments that say which atom is
    displaced and how (``# 1  0.03 0 0``), or displacement and force of each atom in one line.

    Args:
        path: of the file; one of phono3py is called FORCES_FC2.
        n_atoms: of the supercell.

    Returns:
        As phonopy holds them.

    Raises:
        ValueError: if displacements and forces do not belong together.
    """
    if not path.name.startswith(FORCES_FC2):
        return parse_FORCE_SETS(natom=n_atoms, filename=path)
    rows = np.loadtxt(path, ndmin=2)
    if len(rows) % n_atoms:
        raise ValueError(f"{len(rows)} forces; expected those of {n_atoms} atoms a supercell")
    if rows.shape[1] == 6:
        displacements, forces = rows.reshape(-1, n_atoms, 2, 3).transpose(2, 0, 1, 3)
        return {"displacements": displacements.copy(), "forces": forces.copy()}
    forces = rows.reshape(-1, n_atoms, 3)
    displaced = _DISPLACED.findall(path.read_text())
    if len(displaced) != len(forces):
        raise ValueError(
            f"forces of {len(forces)} supercells and comments about {len(displaced)} displaced "
            "atoms; expected one displaced atom a supercell, as in FORCES_FC2 of phono3py --cf2"
        )
    first_atoms = [
        {"number": int(atom) - 1, "displacement": np.array(vector, float), "forces": own}
        for (atom, *vector), own in zip(displaced, forces, strict=True)
    ]
    return {"natom": n_atoms, "first_atoms": first_atoms}


def n_rows(file: Path | None, known: np.ndarray | None) -> int | None:
    """Number of atoms whose force constants with all others are known; None without any.

    Args:
        file: FORCE_CONSTANTS or force_constants.hdf5.
        known: force constants, where there is no file.
    """
    if file is None:
        return None if known is None else len(known)
    if file.suffix == ".hdf5":
        return len(read_force_constants_hdf5(file))
    with file.open() as lines:
        return int(lines.readline().split()[0])
