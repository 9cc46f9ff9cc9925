"""Figures of bands beside the density of states, and of hoppings."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
from ase.spectrum.band_structure import BandStructure
from ase.spectrum.dosdata import GridDOSData
from matplotlib.figure import Figure

from schnetpack_phonon.common.style import COLORS, color, hide_frame, panels


def band_figure(
    bands: BandStructure,
    dos: GridDOSData,
    zero: tuple[str, float],
    window: tuple[float, float],
    labels: Mapping[str, float],
    title: str,
) -> Figure:
    """Bands along a path beside the density of states.

    Args:
        bands: of :meth:`.Levels.bands`.
        dos: of :meth:`.Levels.density_of_states`.
        zero: name and energy in eV of the zero of the figure.
        window: lowest and highest energy that are shown, relative to this zero.
        labels: name -> energy in eV, drawn as a line.
        title: of the figure.
    """
    figure, (left, right) = panels(2, (3.4, 4.0), sharey=True, width_ratios=[4, 1])
    x, ticks, names = bands.path.get_linear_kpoint_axis()
    energies = bands.energies[0] - zero[1]
    if len(x) == 1:  # a molecule
        x, energies = np.array([0, 1]), np.repeat(energies, 2, axis=0)
    jumps = np.flatnonzero(np.diff(x) < 1e-9) + 1  # no line across them
    energies = np.insert(energies, jumps, np.nan, axis=0)
    width = 0.9 if energies.shape[1] < 100 else 0.5
    left.plot(np.insert(x, jumps, x[jumps]), energies, color=COLORS[0], linewidth=width)
    for tick in ticks:
        left.axvline(tick, color="0.8", linewidth=0.6, zorder=0)
    left.set_xticks(*_merged(ticks, names))
    left.set_xlim(x[0], x[-1])
    shown = (dos.get_energies() - zero[1] > window[0]) & (dos.get_energies() - zero[1] < window[1])
    states, levels = dos.get_weights()[shown], dos.get_energies()[shown] - zero[1]
    right.plot(states, levels, color=COLORS[0], linewidth=0.9)
    filled = levels <= bands.reference - zero[1]
    right.fill_betweenx(levels[filled], states[filled], color=COLORS[0], alpha=0.2, linewidth=0)
    for axis in (left, right):
        axis.axhline(bands.reference - zero[1], color="0.4", linewidth=0.8, linestyle=":")
        for k, (name, energy) in enumerate(labels.items()):
            line = axis.axhline(energy - zero[1], color=color(k + 1), linewidth=1.1, linestyle="--")
            if axis is left:
                line.set_label(f"{name} of the label")
    left.set_ylim(*window)
    left.set_ylabel(f"energy − {zero[0]} (eV)")
    right.set_xlabel("states / eV")
    right.set_xlim(0, 1.05 * max(states.max(initial=0), 1e-9))
    if labels:
        figure.legend(loc="outside lower center", frameon=False, fontsize="small", ncols=2)
    figure.suptitle(title, fontsize="medium")
    return figure


def hopping_figure(
    table: pd.DataFrame,
    own: Mapping[str, np.ndarray],
    trained: Mapping[str, np.ndarray],
) -> Figure:
    """Size of hoppings against distance, a panel for each pair of elements.

    Args:
        table: of :func:`.hopping_table`.
        own: distances of the bonds of the structure in Ang, by pair: ticks.
        trained: the same of the training set, drawn as a histogram; empty if it is not known.
    """
    pairs = list(table["pair"].unique())
    figure, axes = panels(len(pairs), (3.5, 3.0), (0, 0.3), n_columns=3)
    for axis, pair in zip(axes, pairs, strict=True):
        rows = table[table["pair"] == pair]
        for k, (name, line) in enumerate(rows.groupby("orbitals", sort=False)):
            look: dict[str, Any] = {"color": color(k), "linewidth": 1.2}
            style = "-" if k < len(COLORS) else "--"
            axis.plot(
                line["distance"], line["trained"], style, label=str(name).replace("-", "–"), **look
            )
            axis.plot(line["distance"], line["start"], ":", **look)
        limits = rows["distance"].min(), rows["distance"].max()
        bottom = axis.get_xaxis_transform()
        if pair in trained:
            counts, edges = np.histogram(trained[pair], 60, limits)
            heights = 0.15 * counts / max(counts.max(), 1)
            axis.stairs(heights, edges, transform=bottom, fill=True, color="0.85", zorder=0)
        if pair in own:
            place = np.full(len(own[pair]), 0.02)
            axis.plot(own[pair], place, "|", transform=bottom, color="0.3", ms=6, mew=0.5)
        axis.axhline(0, color="0.5", linewidth=0.6, zorder=0)
        axis.set_xlim(*limits)
        axis.set_title(pair.replace("-", "–"), loc="left", fontsize="medium")
        axis.set_xlabel("distance (Å)")
        columns = 1 if rows["orbitals"].nunique() <= len(COLORS) else 2
        axis.legend(
            frameon=False, fontsize="x-small", loc="upper right", ncols=columns, columnspacing=1
        )
    for axis in axes[::3]:
        axis.set_ylabel("hopping (eV)")
    hide_frame(axes)
    marks = "lines: trained, dotted: start; ticks: bonds of this structure"
    figure.suptitle(marks + ", grey: of the training set" * bool(trained), fontsize="medium")
    return figure


def _merged(ticks: np.ndarray, names: list[str]) -> tuple[list[float], list[str]]:
    """Ticks at one place, where the path jumps, are one tick with both names."""
    found: dict[float, str] = {}
    for tick, name in zip(ticks.tolist(), names, strict=True):
        shown = name.replace("G", "Γ")
        near = next((x for x in found if abs(x - tick) < 1e-9), None)
        found[tick if near is None else near] = shown if near is None else f"{found[near]}|{shown}"
    return list(found), list(found.values())
