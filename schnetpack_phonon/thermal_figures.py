"""Figures of properties at temperature. Nothing here computes."""

from __future__ import annotations

import pandas as pd
from matplotlib.figure import Figure

from schnetpack_phonon.common.properties import PROPERTIES, label, unit
from schnetpack_phonon.common.style import COLORS

_STYLES = {"quantum": (COLORS[0], "-"), "classical": (COLORS[1], "--")}


def against_temperature(averages: pd.DataFrame, static: pd.DataFrame) -> Figure:
    """Averages against temperature, a row a property, a column a crystal.

    Args:
        averages: as :class:`.ThermalProperties` holds them, in report units.
        static: the same.
    """
    keys = list(averages.loc[averages["estimate"] == "ensemble", "property"].unique())
    crystals = list(averages["structure"].unique())
    figure = Figure(figsize=(1 + 2.7 * len(crystals), 0.6 + 2.3 * len(keys)), layout="constrained")
    axes = figure.subplots(len(keys), len(crystals), squeeze=False, sharex=True)
    for i, key in enumerate(keys):
        relative = key in PROPERTIES and PROPERTIES[key].arbitrary_zero
        for j, crystal in enumerate(crystals):
            axis = axes[i, j]
            own = averages[(averages["property"] == key) & (averages["structure"] == crystal)]
            rest = static[(static["property"] == key) & (static["structure"] == crystal)]["value"]
            zero = rest.item() if relative else 0.0
            _draw(axis, own.assign(value=own["value"] - zero))
            if len(rest):
                axis.axhline(rest.item() - zero, color="0.6", linewidth=0.8, linestyle=":")
            if i == 0:
                axis.set_title(crystal, fontsize="medium")
            if i == len(keys) - 1:
                axis.set_xlabel("temperature (K)")
            axis.locator_params(axis="y", nbins=5)
        what = f"{label(key)} − at rest" if relative else label(key)
        axes[i, 0].set_ylabel(f"{what} ({unit(key) if key in PROPERTIES else 'GPa'})")
    handles, names = axes[0, 0].get_legend_handles_labels()
    figure.legend(
        handles, names, loc="outside upper center", frameon=False, fontsize="small", ncols=3
    )
    return figure


def modes(table: pd.DataFrame, temperature: float) -> Figure:
    """Change of the gap along each mode against its frequency, a panel a crystal.

    Args:
        table: ``structure``, ``frequency`` (THz), ``shift`` (eV).
        temperature: of the displacements in K.
    """
    crystals = list(table["structure"].unique())
    n_columns = min(2, len(crystals))
    n_rows = -(-len(crystals) // n_columns)
    figure = Figure(figsize=(4.2 * n_columns, 0.5 + 2.4 * n_rows), layout="constrained")
    axes = figure.subplots(n_rows, n_columns, squeeze=False, sharex=True, sharey=True).ravel()
    for axis in axes[len(crystals) :]:
        axis.set_axis_off()
    for k, (axis, crystal) in enumerate(zip(axes, crystals, strict=False)):
        own = table[table["structure"] == crystal]
        color = COLORS[k % len(COLORS)]
        axis.vlines(own["frequency"], 0, 1e3 * own["shift"], color=color, linewidth=1)
        axis.plot(own["frequency"], 1e3 * own["shift"], "o", color=color, markersize=3)
        axis.axhline(0, color="0.4", linewidth=0.8)
        axis.set_title(crystal, loc="left", fontsize="medium")
        axis.set_xlabel("frequency (THz), imaginary below 0")
        axis.set_ylabel("change of the gap (meV)")
        axis.spines[["top", "right"]].set_visible(False)
    figure.suptitle(f"one mode displaced by ±1 σ of {temperature:g} K", fontsize="medium")
    return figure


def _draw(axis, own: pd.DataFrame) -> None:
    """One crystal and property."""
    for statistics, (color, style) in _STYLES.items():
        rows = own[(own["statistics"] == statistics) & (own["estimate"] == "ensemble")]
        rows = rows.sort_values("temperature")
        x, y = rows["temperature"], rows["value"]
        name = f"model, {statistics}"
        axis.errorbar(
            x, y, rows["error"], color=color, fmt="o", ls=style, lw=1.2, ms=3.5, label=name
        )
        if rows["seed_sd"].notna().any():
            low, high = y - rows["seed_sd"], y + rows["seed_sd"]
            axis.fill_between(x, low, high, color=color, alpha=0.15, linewidth=0)
    rows = own[(own["statistics"] == "quantum") & (own["estimate"] == "special")]
    axis.plot(
        rows["temperature"], rows["value"], "x", color=COLORS[2], ms=6, label="special displacement"
    )
    rows = own[own["estimate"] == "labels"]
    axis.errorbar(
        rows["temperature"], rows["value"], rows["error"], fmt="s", color="black", ms=4, lw=1,
        mfc="white", label="labels",
    )  # fmt: skip
