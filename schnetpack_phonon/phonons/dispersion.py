"""Figures of phonon bands, densities of states and the convergence of a renormalisation."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from phonopy.harmonic.dynmat_to_fc import get_commensurate_points

from schnetpack_phonon.common.style import COLORS, color, panels
from schnetpack_phonon.structures.crystals import Crystal

_POINTS = 40  # of each segment of the path
_MESH = 80.0  # density of q-points for the density of states, times 2 pi / Ang
# Cells with more branches have a smaller Brillouin zone and get fewer q-points, since the time of
# each grows with the third power of their number.
_BRANCHES = 60


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

    The non-analytical term of polar crystals is left out: modes at Gamma are those of a periodic
    cell without a macroscopic field.

    Args:
        crystal: unit cell and supercell.
        force_constants: of the supercell, in eV/Ang^2, shape=(n_atoms, n_atoms, 3, 3).
    """
    phonon = crystal.phonopy()
    phonon.force_constants = force_constants
    path = crystal.unitcell.cell.bandpath(npoints=0)
    points = path.special_points
    # GX1M,R is G to X1 to M, and a jump to R.
    parts = [re.findall(r"\D\d*", part) for part in path.path.split(",")]
    labels = [ends for names in parts for ends in pairwise(names)]
    share = min(1.0, _BRANCHES / (3 * len(crystal.unitcell)))
    n_points = max(round(share * _POINTS), 3)
    segments = [np.linspace(points[start], points[end], n_points) for start, end in labels]
    phonon.run_band_structure(segments)
    bands = phonon.band_structure
    phonon.run_mesh(_MESH * share ** (1 / 3), is_gamma_center=True)
    phonon.run_total_dos()
    dos = phonon.total_dos
    # NaN after each segment: no line across a jump of the path.
    distances = [np.append(x, x[-1]) for x in bands.distances]
    frequencies = [np.vstack([f, np.full(f.shape[1], np.nan)]) for f in bands.frequencies]
    return Dispersion(
        np.concatenate(distances),
        np.concatenate(frequencies),
        _ticks(labels, bands.distances),
        np.array(dos.frequency_points),
        np.array(dos.dos),
    )


def commensurate_points(crystal: Crystal) -> np.ndarray:
    """Wave vectors that fit into the supercell, in the primitive cell's, shape=(n, 3)."""
    return np.array(get_commensurate_points(crystal.supercell_matrix))


def _ticks(labels, distances) -> tuple[tuple[str, float], ...]:
    ticks: list[tuple[str, float]] = []
    for (start, end), along in zip(labels, distances, strict=True):
        if ticks and ticks[-1][0] != start:  # the path jumps
            ticks[-1] = (f"{ticks[-1][0]}|{start}", ticks[-1][1])
        elif not ticks:
            ticks.append((start, float(along[0])))
        ticks.append((end, float(along[-1])))
    return tuple((name.replace("G", "Γ"), x) for name, x in ticks)


def bands(found: Mapping[str, Dispersion], title: str) -> Figure:
    """Phonon bands and densities of states of several force constants of one crystal.

    Args:
        found: label in the legend -> bands.
        title: of the figure.
    """
    figure, (left, right) = panels(2, (3.3, 3.8), sharey=True, width_ratios=[4, 1])
    for k, (label, one) in enumerate(found.items()):
        style = ("-", "--", ":")[k % 3]
        lines = left.plot(one.distances, one.frequencies, style, color=color(k), lw=0.9)
        lines[0].set_label(label)
        right.plot(one.dos, one.dos_frequencies, style, color=color(k), lw=0.9)
    first = next(iter(found.values()))
    for _, x in first.ticks:
        left.axvline(x, color="0.8", linewidth=0.6, zorder=0)
    for axis in (left, right):
        axis.axhline(0, color="0.5", linewidth=0.6, zorder=0)
    left.set_xticks([x for _, x in first.ticks], [name for name, _ in first.ticks])
    left.set_xlim(0, first.ticks[-1][1])
    low = min(np.nanmin(one.frequencies) for one in found.values())
    high = max(np.nanmax(one.frequencies) for one in found.values())
    left.set_ylim(min(low, 0) - 0.05 * (high - low), high + 0.15 * (high - low))
    left.set_ylabel("frequency (THz), imaginary below 0")
    left.legend(frameon=False, fontsize="small", loc="upper right", ncols=2)
    right.set_xlabel("states / THz")
    right.set_xlim(left=0)
    figure.suptitle(title, fontsize="medium")
    return figure


def convergence(history: pd.DataFrame, title: str) -> Figure:
    """Steps of a renormalisation against the number of forces.

    Args:
        history: ``n_forces``, ``effective_samples``, ``deviation`` and ``lowest`` in THz,
            ``free_energy`` in eV per atom.
        title: of the figure.
    """
    figure, axes = panels(3, (2.4, 2.9), n_columns=3)
    left, middle, right = axes
    n = history["n_forces"]
    style: dict[str, Any] = {"marker": "o", "markersize": 3, "linewidth": 1}
    left.plot(n, history["deviation"], color=COLORS[0], label="rms deviation", **style)
    left.plot(n, history["lowest"], color=COLORS[1], label="lowest fitted", **style)
    left.axhline(0, color="0.5", linewidth=0.6)
    left.set_ylabel("frequency (THz)")
    above = (0, 1)  # points may be anywhere in the panel
    left.legend(
        frameon=False, fontsize="small", loc="lower left", bbox_to_anchor=above, borderpad=0
    )
    middle.plot(n, 1e3 * history["free_energy"], color=COLORS[2], **style)
    middle.set_ylabel("free energy (meV/atom)")
    right.plot(n, history["effective_samples"], color=COLORS[3], **style)
    right.plot([0, n.max()], [0, n.max()], color="0.5", linewidth=0.6, linestyle=":")
    right.set_ylabel("effective sample size")
    for axis in axes:
        axis.set_xlabel("number of forces")
    figure.suptitle(title, fontsize="medium")
    return figure
