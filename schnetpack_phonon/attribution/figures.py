"""Figures of bond attributions from their tables."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
from ase import Atoms
from ase.data import covalent_radii
from ase.data.colors import jmol_colors
from matplotlib import colormaps
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from mpl_toolkits.mplot3d.art3d import Line3DCollection

from schnetpack_phonon.common.properties import property_of
from schnetpack_phonon.common.style import COLORS, color, hide_frame, panels


def against_length(bonds: pd.DataFrame, label: str, n_types: int = 6) -> Figure:
    """Attribution of each bond against its change of length, one panel for each bond type.

    Args:
        bonds: table of bonds.
        label: of the property, with its unit.
        n_types: largest number of panels, for the types with the largest attributions.
    """
    size = bonds["attribution"].abs().groupby(bonds["bond_type"]).sum()
    types = list(size.sort_values(ascending=False).index[:n_types])
    figure, axes = panels(len(types), (3.2, 2.6), (0.4, 0.5), n_columns=3, sharex=True)
    for axis, name in zip(axes, types, strict=True):
        for k, (_, own) in enumerate(bonds[bonds["bond_type"] == name].groupby("shell")):
            shown = own.sample(min(len(own), 4000), random_state=0)
            axis.plot(
                shown["distance"] - shown["ideal_distance"],
                shown["attribution"],
                ".",
                color=color(k),
                markersize=3,
                alpha=0.4,
                markeredgewidth=0,
                label=f"{own['ideal_distance'].mean():.2f} Å",
                rasterized=True,
            )
        axis.axhline(0, color="0.5", linewidth=0.6, zorder=0)
        axis.axvline(0, color="0.5", linewidth=0.6, zorder=0)
        axis.set_title(name, loc="left", fontsize="medium")
        legend: Any = axis.legend(
            frameon=False, fontsize="x-small", title="shell", title_fontsize="x-small"
        )
        for handle in legend.legend_handles:
            handle.set(markersize=8, alpha=1)
    hide_frame(axes)
    figure.supxlabel("change of bond length (Å)", fontsize="medium")
    part = "even part" if (bonds["part"] == "even").all() else "attribution"
    figure.supylabel(f"{part} of a bond in the {label}", fontsize="medium")
    return figure


def predicted_against_actual(table: pd.DataFrame, r: float, label: str) -> Figure:
    """Predicted and actual effects of subsets of bonds, about the mean of each structure.

    Args:
        table: ``index``, ``structure``, ``predicted``, ``actual``.
        r: their correlation.
        label: of the property, with its unit.
    """
    figure, (axis,) = panels(1, (4.2, 3.9))
    values = table[["predicted", "actual"]]
    centred = values - values.groupby(table["index"]).transform("mean")
    for k, (name, own) in enumerate(centred.groupby(table["structure"])):
        x, y = own["predicted"], own["actual"]
        axis.plot(x, y, ".", color=color(k), ms=5, alpha=0.5, mew=0, label=name)
    limit = 1.05 * float(centred.abs().to_numpy().max(initial=0)) or 1.0
    axis.plot([-limit, limit], [-limit, limit], color="0.4", linewidth=0.8, zorder=0)
    axis.set(
        xlim=(-limit, limit),
        ylim=(-limit, limit),
        xlabel=f"predicted by attributions, {label}",
        ylabel=f"effect of resetting 30 % of bonds, {label}",
        aspect="equal",
    )
    axis.locator_params(nbins=5)
    axis.set_title(f"about the mean of each structure,  r = {r:.2f}", fontsize="medium")
    axis.legend(frameon=False, fontsize="small")
    return figure


def snapshot(
    pictures: Mapping[str, tuple[Atoms, pd.DataFrame]], label: str, drawn: float = 0.35
) -> Figure:
    """Displaced crystals with coloured bonds, side by side on one scale.

    Args:
        pictures: title -> displaced crystal and table of its bonds.
        label: of the property, with its unit.
        drawn: share of the bonds that are drawn, those with the largest attributions.
    """
    figure, axes = panels(
        len(pictures), (4.6, 4.6), (0.8, 0), len(pictures), subplot_kw={"projection": "3d"}
    )
    tops = [np.quantile(bonds["attribution"].abs(), 0.99) for _, bonds in pictures.values()]
    largest = float(max(tops)) or 1.0
    scale, colors = Normalize(-largest, largest), colormaps["RdBu_r"]
    axis: Any  # three-dimensional
    for axis, (title, (atoms, bonds)) in zip(axes, pictures.items(), strict=True):
        size = bonds["attribution"].abs()
        shown = bonds[size >= size.quantile(1 - drawn)].sort_values("attribution", key=np.abs)
        i, j = shown["i"].to_numpy(), shown["j"].to_numpy()
        image = shown[["image_x", "image_y", "image_z"]].to_numpy()
        half = (atoms.positions[j] + image @ atoms.cell.array - atoms.positions[i]) / 2
        # Each half starts at its own atom: bonds through a face of the cell end at both faces.
        starts = np.concatenate([atoms.positions[i], atoms.positions[j]])
        ends = starts + np.concatenate([half, -half])
        value = np.tile(shown["attribution"].to_numpy(), 2)
        widths = 0.4 + 3.6 * np.clip(np.abs(value) / largest, 0, 1)
        lines = Line3DCollection(np.stack([starts, ends], axis=1), linewidths=widths)
        lines.set_color(colors(scale(value)))
        axis.add_collection3d(lines)
        axis.scatter(
            *atoms.positions.T,
            s=60 * covalent_radii[atoms.numbers] ** 2,
            c=jmol_colors[atoms.numbers],
            edgecolors="0.2",
            linewidths=0.5,
            depthshade=False,
        )
        for number in np.unique(atoms.numbers):
            symbol = atoms[atoms.numbers == number].get_chemical_symbols()[0]
            axis.scatter([], [], [], c=[jmol_colors[number]], edgecolors="0.2", label=symbol)
        axis.legend(frameon=False, fontsize="small", loc="upper left")
        low, high = atoms.positions.min(axis=0), atoms.positions.max(axis=0)
        middle, width = (low + high) / 2, (high - low).max() / 2
        axis.set(**{f"{x}lim": (m - width, m + width) for x, m in zip("xyz", middle, strict=True)})
        axis.set_box_aspect((1, 1, 1), zoom=1.15)
        axis.set_axis_off()
        axis.view_init(elev=14, azim=-68)
        axis.set_title(title, fontsize="medium")
    bar = ScalarMappable(scale, colors)
    figure.colorbar(bar, ax=axes, shrink=0.6, label=f"part of a bond in the {label}")
    return figure


def bond_shares(shares: pd.DataFrame, key: str) -> Figure:
    """Variance shares by bond type, trained and untrained, one panel for each crystal.

    Args:
        shares: ``structure``, ``model`` (trained or untrained), ``bond_type``, ``share``,
            ``low``, ``high``.
        key: the property that was attributed.
    """
    structures = sorted(shares["structure"].unique())
    figure, axes = panels(len(structures), (4.4, 2.9), (0, 0.7), sharey=True)
    for axis, structure in zip(axes, structures, strict=True):
        own = shares[shares["structure"] == structure]
        trained = own[own["model"] == "trained"].sort_values("share", ascending=False)
        types = list(trained["bond_type"])
        for offset, model, fill in ((-0.2, "trained", COLORS[0]), (0.2, "untrained", "0.72")):
            rows = own[own["model"] == model].set_index("bond_type").reindex(types)
            share, x = rows["share"], np.arange(len(types)) + offset
            interval = np.clip([share - rows["low"], rows["high"] - share], 0, None)
            axis.bar(x, share, 0.38, color=fill, label=model)
            axis.errorbar(x, share, interval, fmt="none", ecolor="0.2", lw=1)
        axis.axhline(0, color="0.4", linewidth=0.8)
        axis.set_xticks(range(len(types)), types, rotation=30)
        axis.set_title(structure, loc="left", fontsize="medium")
    for axis in axes[::2]:
        axis.set_ylabel("variance share")
    hide_frame(axes)
    # Intervals of few structures can be very long: they may be cut off, but bars must not be.
    trained = shares[shares["model"] == "trained"]
    ends = [*trained["low"].dropna().clip(lower=-1), *trained["high"].dropna().clip(upper=2)]
    shown = [*shares["share"], *ends]
    axes[0].set_ylim(min(shown) - 0.1, max(shown) + 0.1)
    axes[0].legend(frameon=False, fontsize="small")
    figure.suptitle(
        f"Which bonds carry the change of the {property_of(key).label}", fontsize="medium"
    )
    return figure
