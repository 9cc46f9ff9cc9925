"""Phonon bands and densities of states, for the eye: imaginary branches are drawn below zero."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from schnetpack_phonon.structures.crystals import Crystal

_POINTS = 40  # of each segment of the path


_MESH = 80.0  # density of q-points for the density of states, times 2 pi / Ang


@dataclass(frozen=True)
class Dispersion:
    """Bands along a path and the density of states.

    Attributes:
        distances: along the path, shape=(n_points,), in 1/Ang.
        frequencies: in THz, negative where imaginary, NaN between segments of the path,
            shape=(n_points, n_branches).
        ticks: special points and their distances.
        dos_frequencies: in THz, shape=(n,).
        dos: states per THz and unit cell, shape=(n,).
    """

    distances: np.ndarray
    frequencies: np.ndarray
    ticks: tuple[tuple[str, float], ...]
    dos_frequencies: np.ndarray
    dos: np.ndarray


def dispersion(crystal: Crystal, force_constants: np.ndarray) -> Dispersion:
    """Bands of the unit cell along the standard path of its lattice (ASE's).

    Without the non-analytical term of polar crystals: modes at Gamma are those of a periodic cell,
    in which there is no macroscopic field.

    Args:
        crystal: whose supercell the force constants are of.
        force_constants: in eV/Ang^2, shape=(n_atoms, n_atoms, 3, 3).
    """
    phonon = crystal.phonopy()
    phonon.force_constants = force_constants
    path = crystal.unitcell.cell.bandpath(npoints=0)
    points = path.special_points
    segments, labels = [], []
    for part in path.path.split(","):
        names = _names(part)
        for start, end in pairwise(names):
            segments.append(np.linspace(points[start], points[end], _POINTS))
            labels.append((start, end))
    phonon.run_band_structure(segments)
    bands = phonon.band_structure
    phonon.run_mesh(_MESH, is_gamma_center=True)
    phonon.run_total_dos()
    dos = phonon.total_dos
    # NaN after each segment keeps lines from being drawn across a jump of the path.
    distances = [np.append(x, x[-1]) for x in bands.distances]
    frequencies = [np.vstack([f, np.full(f.shape[1], np.nan)]) for f in bands.frequencies]
    return Dispersion(
        np.concatenate(distances),
        np.concatenate(frequencies),
        _ticks(labels, bands.distances),
        np.array(dos.frequency_points),
        np.array(dos.dos),
    )


def _names(part: str) -> list[str]:
    """``GX1M`` -> ``[G, X1, M]``."""
    names: list[str] = []
    for character in part:
        if character.isdigit():
            names[-1] += character
        else:
            names.append(character)
    return names


def _ticks(labels, distances) -> tuple[tuple[str, float], ...]:
    ticks: list[tuple[str, float]] = []
    for (start, end), along in zip(labels, distances, strict=True):
        if ticks and ticks[-1][0] != start:  # the path jumps
            ticks[-1] = (f"{ticks[-1][0]}|{start}", ticks[-1][1])
        elif not ticks:
            ticks.append((start, float(along[0])))
        ticks.append((end, float(along[-1])))
    return tuple((name.replace("G", "Γ"), x) for name, x in ticks)
