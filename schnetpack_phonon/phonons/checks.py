"""Checks of force constants."""

from __future__ import annotations

import numpy as np
from ase import Atoms

_TOLERANCE = 0.01  # largest violation of a symmetry, relative to the largest force constant


def check_force_constants(ideal: Atoms, force_constants: np.ndarray) -> None:
    """Raises ValueError for invalid force constants.

    They have another shape or NaN, are not symmetric, or break the acoustic sum rule.
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
    largest = max(np.abs(force_constants).max(), 1.0)
    asymmetry = np.abs(force_constants - force_constants.transpose(1, 0, 3, 2)).max()
    if asymmetry > _TOLERANCE * largest:
        raise ValueError(
            f"force constants break the symmetry of second derivatives by {asymmetry:.2g} eV/Ang^2"
            f"; expected at most {_TOLERANCE * largest:.2g}: symmetrise them (phonopy: "
            "symmetrize_force_constants)"
        )
    drift = np.abs(force_constants.sum(axis=1)).max(axis=(1, 2))
    if drift.max() > _TOLERANCE * largest:
        atom = int(np.argmax(drift))
        raise ValueError(
            f"force constants break the acoustic sum rule: those of atom {atom} "
            f"({ideal.symbols[atom]}) sum to {drift[atom]:.2g} eV/Ang^2; expected at most "
            f"{_TOLERANCE * largest:.2g}: symmetrise them (phonopy: symmetrize_force_constants) or "
            "converge the forces better"
        )
