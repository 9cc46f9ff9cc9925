"""Labels in what ASE holds for a structure: results of a calculator, comment lines, columns, rows.

Everything comes with the units and signs of ASE. What is computed from levels follows
:func:`.mesh_edges`, whichever code wrote them.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from ase import Atoms
from ase.calculators.calculator import Calculator

from schnetpack_phonon.calculators.reading.levels import mesh_edges
from schnetpack_phonon.common import properties
from schnetpack_phonon.structures.elasticity import voigt_to_tensor

# Names in files, by what they are; the first that is there is taken.
_NAMES = {
    "energy": ("energy",),
    "free_energy": ("free_energy",),
    "forces": ("forces", "force"),
    "stress": ("stress",),
    "virial": ("virial", "virials"),
    "band_gap": ("band_gap", "bandgap", "gap"),
    "vbm": ("vbm",),
    "cbm": ("cbm",),
    properties.band_gap_gamma: (properties.band_gap_gamma,),
    properties.band_gap_spin: (properties.band_gap_spin,),
    properties.partial_occupation: (properties.partial_occupation,),
    "converged": ("converged",),
}
_GAMMA = 1e-8  # of reciprocal cell vectors


def ase_results(atoms: Atoms, prefix: str = "") -> dict[str, Any]:
    """What is known of a structure, as :func:`.labels_from_results` takes it.

    Args:
        atoms: as ASE reads it.
        prefix: of the names that are taken, such as ``REF_``; others are left.

    Returns:
        Those of energy and free_energy (eV), forces (eV/Ang), stress (ASE's sign, eV/Ang^3,
        shape=(3, 3); a virial is divided by minus the volume), band_gap, vbm, cbm (eV) and so on
        that are there.
    """
    results = atoms.calc.results if atoms.calc else {}
    pairs = atoms.info.get("key_value_pairs") or {}
    # Not the data of a row: SchNetPack keeps properties there, in units that ASE does not tell.
    there = {**atoms.arrays, **pairs, **atoms.info, **results}
    found = {}
    for key, names in _NAMES.items():
        for name in names:
            value = there.get(prefix + name)
            if value is not None and not _missing(value):
                found[key] = np.asarray(value) if np.ndim(value) else value
                break
    virial = found.pop("virial", None)
    if virial is not None and "stress" not in found:
        found["stress"] = -_tensor(virial) / atoms.get_volume()
    elif "stress" in found:
        found["stress"] = _tensor(found["stress"])
    if not prefix and atoms.calc and "band_gap" not in found and "vbm" not in found:
        found |= level_edges(atoms.calc)
    return found


def unit_of(name: str, prefix: str = "") -> str | None:
    """The property in whose unit a value of this name is expected; None for no label."""
    for key, names in _NAMES.items():
        if name.startswith(prefix) and name.removeprefix(prefix) in names:
            return properties.energy if key in ("free_energy", "virial") else key
    return None


def prefixes(atoms: Atoms) -> list[str]:
    """What stands before the names of energy and forces in a structure, such as ``REF_``."""
    ends = ("energy", "forces")
    names = [name for name in (*atoms.info, *atoms.arrays) if name.endswith(ends)]
    found = {name.removesuffix("energy").removesuffix("forces") for name in names}
    return sorted(found - {"", "free_"})


def level_edges(calculator: Calculator) -> dict[str, Any]:
    """Band edges of an ASE calculator that offers levels and occupations at its k-points.

    A mesh without Gamma, or of k-points that it does not tell, lacks the gap at Gamma.

    Returns:
        As :func:`.mesh_edges`; empty if there are no levels.

    Raises:
        CalculationFailed: as :func:`.mesh_edges`.
    """
    try:
        spins = range(int(calculator.get_number_of_spins()))
        weights = np.asarray(calculator.get_k_point_weights(), dtype=float)
        points = calculator.get_ibz_k_points()
        kpoints = np.empty((0, 3)) if points is None else np.asarray(points, float).reshape(-1, 3)
        energies, filled = (
            np.array([[read(k, s) for k in range(len(weights))] for s in spins], dtype=float)
            for read in (calculator.get_eigenvalues, calculator.get_occupation_numbers)
        )
    except (AttributeError, NotImplementedError, RuntimeError, TypeError, ValueError):
        return {}  # ASE has no way to ask whether a calculator offers levels
    if energies.ndim != 3 or energies.shape != filled.shape or not np.isfinite(filled).all():
        return {}
    n_electrons = float((weights / weights.sum() * filled.sum(axis=(0, 2))).sum())
    occupations = filled * len(spins)  # 2 for a full level, of one spin, too
    if len(spins) == 1:
        energies, occupations = energies[0], occupations[0]
    at = np.flatnonzero(np.abs(kpoints).max(axis=1) < _GAMMA)
    gamma = energies[..., at[0], :] if at.size else None
    return mesh_edges(round(n_electrons, 2), energies, occupations, gamma)


def _missing(value: Any) -> bool:
    """Whether a value is NaN throughout, which stands for a missing label."""
    array = np.asarray(value)
    return array.dtype.kind == "f" and bool(np.isnan(array).all())


def _tensor(value: np.ndarray) -> np.ndarray:
    """Nine numbers, or six in Voigt's order, shape=(3, 3)."""
    value = np.asarray(value, dtype=float)
    return voigt_to_tensor(value.reshape(3, 3) if value.size == 9 else value.reshape(6))
