"""Band edges and levels next to the gap, counted by electrons."""

from __future__ import annotations

from typing import Any

import numpy as np
from ase.calculators.calculator import CalculationFailed

from schnetpack_phonon.common import properties

# Larger than the errors of outputs, smaller than what matters in a gap.
_SAME_LEVEL = 1e-3  # eV


def band_edges(energies: np.ndarray, occupations: np.ndarray) -> tuple[float, float]:
    """Highest level that the electrons fill, two in each, and the lowest of the others.

    With an odd number of electrons both are the level that holds one, and there is no gap.

    Args:
        energies: orbital energies, shape=(n_orbitals,), any unit.
        occupations: electrons per orbital between 0 and 2, shape=(n_orbitals,).

    Raises:
        CalculationFailed: if all levels are full or all are empty.
    """
    n_electrons = round(float(occupations.sum()))
    highest, lowest = (n_electrons + 1) // 2 - 1, n_electrons // 2
    if highest < 0 or lowest >= energies.size:
        raise CalculationFailed(f"no band edge: {n_electrons} electrons in {energies.size} levels")
    levels = np.sort(energies)
    return float(levels[highest]), float(levels[lowest])


def levels_at_gap(
    n_electrons: float,
    energies: np.ndarray,
    kpoints: np.ndarray,
    weights: np.ndarray,
    n_levels: int,
    n_kpoints: int,
) -> dict[str, np.ndarray]:
    """Levels below and above the gap at each k-point, of a crystal without spin polarisation.

    With an odd number of electrons the level that holds one counts as below and as above.

    Args:
        n_electrons: number of electrons in the cell.
        energies: levels in eV, shape=(n, n_bands).
        kpoints: in units of the reciprocal cell, shape=(n, 3).
        weights: of the k-points, in any unit, shape=(n,).
        n_levels: number of levels on either side of the gap.
        n_kpoints: of the result, n or more; the rest is NaN.

    Returns:
        levels, ascending, shape=(1, n_kpoints, 2 n_levels), and kpoints with their weights, which
        add up to 1, shape=(1, n_kpoints, 4).

    Raises:
        CalculationFailed: for two spins, fewer levels, or more k-points.
    """
    if energies.ndim == 3:
        raise CalculationFailed("levels of two spins are no labels: set data.calculator.n_levels=0")
    n, n_bands = energies.shape
    below, above = (round(n_electrons) + 1) // 2, round(n_electrons) // 2
    if not n_levels <= min(below, n_bands - above):
        raise CalculationFailed(
            f"{n_bands} bands and {n_electrons:g} electrons are {below} levels below the gap and "
            f"{n_bands - above} above; data.calculator.n_levels={n_levels} needs as many of both: "
            "take fewer, or calculate more empty bands"
        )
    if n > n_kpoints:
        raise CalculationFailed(f"the output has {n} k-points; expected at most {n_kpoints}")
    ordered = np.sort(energies, axis=1)
    parts = ordered[:, below - n_levels : below], ordered[:, above : above + n_levels]
    found = {
        properties.levels: np.concatenate(parts, axis=1),
        properties.kpoints: np.column_stack([kpoints, weights / weights.sum()]),
    }
    if wrong := [key for key, value in found.items() if not np.isfinite(value).all()]:
        raise CalculationFailed(f"not finite: {', '.join(wrong)}")
    rest = ((0, n_kpoints - n), (0, 0))
    return {key: np.pad(x, rest, constant_values=np.nan)[None] for key, x in found.items()}


def partial_occupation(occupations: np.ndarray) -> float:
    """Largest deviation of an orbital from full or empty, in electrons: 0 to 1.

    Args:
        occupations: electrons per orbital between 0 and 2, any shape.
    """
    return float(np.minimum(occupations, 2 - occupations).max())


def mesh_edges(
    n_electrons: float, energies: np.ndarray, occupations: np.ndarray, at_gamma: np.ndarray | None
) -> dict[str, Any]:
    """Band edges of a crystal over k-points and spins.

    Without spin polarisation each band holds two electrons. With it, each band of one spin holds
    one; how many electrons have each spin follows from the occupations. The gap is that between
    all levels of both spins, which is not above that of either; the gaps of each spin are given
    where both have electrons and their band edges differ by more than 1 meV.
    If the bands overlap, ``vbm`` is above ``cbm``; :func:`.labels_from_results` handles that.

    Args:
        n_electrons: number of electrons in the cell.
        energies: levels in eV, ascending at each k-point, shape=(n_kpoints, n_bands), or
            (2, n_kpoints, n_bands) for two spins.
        occupations: 2 for a full level and 0 for an empty one, of two spins, too; same shape.
        at_gamma: levels at Gamma, which may be one of the k-points, shape=(n_bands,) or
            (2, n_bands); None if they are not known.

    Returns:
        vbm, cbm (over the k-points and Gamma), band_gap_gamma (where Gamma is known),
        partial_occupation and, for spins that differ, band_gap_spin, shape=(2,), 0 for a spin in
        which the crystal is a metal.

    Raises:
        CalculationFailed: if the number of electrons is odd without spin polarisation, or no band
            is empty.
    """
    n_bands, levels = energies.shape[-1], energies
    if at_gamma is not None:
        n_bands = min(n_bands, at_gamma.shape[-1])
        levels = np.concatenate([energies[..., :n_bands], at_gamma[..., None, :n_bands]], axis=-2)
    if energies.ndim == 2:
        levels = levels[None]
        if round(n_electrons, 4) % 2:
            raise CalculationFailed(
                f"{n_electrons:g} electrons: a closed shell needs an even number"
            )
        filled = [round(n_electrons) // 2]
    else:
        electrons = occupations.sum(axis=-1) / 2  # of each spin at each k-point
        known = int(np.ptp(electrons, axis=1).argmin())  # a half-metal has the same in one spin
        n_known = round(float(electrons[known].mean()))
        filled = [round(n_electrons) - n_known] * 2
        filled[known] = n_known
    if not (sum(filled) > 0 and 0 <= min(filled) <= max(filled) < n_bands):
        raise CalculationFailed(
            f"no band edge: {n_bands} bands and {n_electrons:g} electrons, "
            + ("two in each" if len(filled) == 1 else f"{filled[0]} and {filled[1]} by spin")
        )
    spins = list(zip(levels, filled, strict=True))
    valence = np.concatenate([own[:, :n][:, -1:] for own, n in spins], axis=1)  # Gamma last
    conduction = np.concatenate([own[:, n : n + 1] for own, n in spins], axis=1)
    edges: dict[str, Any] = {
        "vbm": float(valence.max()),
        "cbm": float(conduction.min()),
        properties.partial_occupation: partial_occupation(occupations),
    }
    if at_gamma is not None:
        edges[properties.band_gap_gamma] = float(conduction[-1].min() - valence[-1].max())
    if len(spins) == 2 and min(filled) > 0:
        vbm, cbm = np.array([[own[:, n - 1].max(), own[:, n].min()] for own, n in spins]).T
        if max(np.ptp(vbm), np.ptp(cbm)) > _SAME_LEVEL:
            partly = (electrons.round() != np.array(filled)[:, None]).any(axis=1)
            metal = partly & (edges["vbm"] > edges["cbm"])
            edges[properties.band_gap_spin] = np.where(metal, 0, (cbm - vbm).clip(min=0))
    return edges
