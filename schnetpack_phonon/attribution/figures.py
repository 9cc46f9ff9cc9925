"""Pictures of bond attributions from their tables. Nothing here computes."""

from __future__ import annotations

from collections.abc import Mapping

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

from schnetpack_phonon.common.style import COLORS, property_of


def against_length(bonds: pd.DataFrame, label: str, n_types: int = 6) -> Figure:
    """Attribution of each bond against its change of length, one panel a bond type.

    Args:
        bonds: table of bonds.
        label: of the property, with its unit.
        n_types: at most so many panels, those with the largest attributions.
    """
    size = bonds["attribution"].abs().groupby(bonds["bond_type"]).sum()
    types = list(size.sort_values(ascending=False).index[:n_types])
    n_columns = min(len(types), 3)
    n_rows = -(-len(types) // n_columns)
    figure = Figure(figsize=(3.2 * n_columns + 0.4, 2.6 * n_rows + 0.5), layout="constrained")
    axes = figure.subplots(n_rows, n_columns, sharex=True, squeeze=False).ravel()
    for axis, name in zip(axes, types, strict=False):
        for k, (_, own) in enumerate(bonds[bonds["bond_type"] == name].groupby("shell")):
            shown = own.sample(min(len(own), 4000), random_state=0)
            axis.plot(
                shown["distance"] - shown["ideal_distance"],
                shown["attribution"],
                ".",
                color=COLORS[k % len(COLORS)],
                markersize=3,
                alpha=0.4,
                markeredgewidth=0,
                label=f"{own['ideal_distance'].mean():.2f} Å",
                rasterized=True,
            )
        axis.axhline(0, color="0.5", linewidth=0.6, zorder=0)
        axis.axvline(0, color="0.5", linewidth=0.6, zorder=0)
        axis.set_title(name, loc="left", fontsize="medium")
        legend = axis.legend(
            frameon=False, fontsize="x-small", title="shell", title_fontsize="x-small"
        )
        for handle in legend.legend_handles:
            handle.set(markersize=8, alpha=1)
        axis.spines[["top", "right"]].set_visible(False)
    for axis in axes[len(types) :]:
        axis.set_axis_off()
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
    figure = Figure(figsize=(4.2, 3.9), layout="constrained")
    axis = figure.subplots()
    values = table[["predicted", "actual"]]
    centred = values - values.groupby(table["index"]).transform("mean")
    for k, (name, own) in enumerate(centred.groupby(table["structure"])):
        axis.plot(
            own["predicted"],
            own["actual"],
            ".",
            color=COLORS[k % len(COLORS)],
            markersize=5,
            alpha=0.5,
            markeredgewidth=0,
            label=name,
        )
    limit = 1.05 * float(centred.abs().to_numpy().max(initial=0)) or 1.0
    axis.plot([-limit, limit], [-limit, limit], color="0.4", linewidth=0.8, zorder=0)
    axis.set(
        xlim=(-limit, limit),
        ylim=(-limit, limit),
        xlabel=f"predicted by attributions, {label}",
        ylabel=f"effect of resetting 30 % of bonds, {label}",
    )
    axis.set_aspect("equal")
    axis.locator_params(nbins=5)
    axis.set_title(f"about each structure's mean,  r = {r:.2f}", fontsize="medium")
    axis.legend(frameon=False, fontsize="small")
    return figure


def snapshot(
    pictures: Mapping[str, tuple[Atoms, pd.DataFrame]], label: str, drawn: float = 0.35
) -> Figure:
    """Displaced crystals with their bonds coloured, side by side on one scale.

    Args:
        pictures: title -> displaced crystal and table of its bonds.
        label: of the property, with its unit.
        drawn: share of the bonds that are drawn, those with the largest attributions.
    """
    figure = Figure(figsize=(4.6 * len(pictures) + 0.8, 4.6), layout="constrained")
    tops = [np.quantile(bonds["attribution"].abs(), 0.99) for _, bonds in pictures.values()]
    largest = float(max(tops)) or 1.0
    scale, colors = Normalize(-largest, largest), colormaps["RdBu_r"]
    axes = []
    for k, (title, (atoms, bonds)) in enumerate(pictures.items(), 1):
        axis = figure.add_subplot(1, len(pictures), k, projection="3d")
        axes.append(axis)
        size = bonds["attribution"].abs()
        shown = bonds[size >= size.quantile(1 - drawn)].sort_values(
            "attribution", key=lambda x: x.abs()
        )
        i, j = shown["i"].to_numpy(), shown["j"].to_numpy()
        image = shown[["image_x", "image_y", "image_z"]].to_numpy()
        half = (atoms.positions[j] + image @ atoms.cell.array - atoms.positions[i]) / 2
        # Each half from its own atom: bonds through a face of the cell end at both faces.
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
    figure.colorbar(
        ScalarMappable(scale, colors), ax=axes, shrink=0.6, label=f"bond's part of the {label}"
    )
    return figure


def bond_shares(shares: pd.DataFrame, key: str) -> Figure:
    """Variance shares by bond type, trained beside untrained, one panel a crystal.

    Args:
        shares: ``structure``, ``model`` (trained or untrained), ``bond_type``, ``share``,
            ``low``, ``high``.
        key: the property that was attributed.
    """
    structures = sorted(shares["structure"].unique())
    n_columns = min(len(structures), 2)
    n_rows = -(-len(structures) // n_columns)
    figure = Figure(figsize=(4.4 * n_columns, 0.7 + 2.9 * n_rows), layout="constrained")
    axes = figure.subplots(n_rows, n_columns, sharey=True, squeeze=False).ravel()
    for axis, structure in zip(axes, structures, strict=False):
        own = shares[shares["structure"] == structure]
        trained = own[own["model"] == "trained"].sort_values("share", ascending=False)
        types = list(trained["bond_type"])
        for offset, model, color in ((-0.2, "trained", COLORS[0]), (0.2, "untrained", "0.72")):
            rows = own[own["model"] == model].set_index("bond_type").reindex(types)
            position = np.arange(len(types)) + offset
            interval = [rows["share"] - rows["low"], rows["high"] - rows["share"]]
            axis.bar(position, rows["share"], 0.38, color=color, label=model)
            axis.errorbar(
                position, rows["share"], np.clip(interval, 0, None), fmt="none", ecolor="0.2", lw=1
            )
        axis.axhline(0, color="0.4", linewidth=0.8)
        axis.set_xticks(range(len(types)), types, rotation=30)
        axis.set_title(structure, loc="left", fontsize="medium")
        if axis.get_subplotspec().is_first_col():
            axis.set_ylabel("variance share")
        axis.spines[["top", "right"]].set_visible(False)
    for axis in axes[len(structures) :]:
        axis.set_axis_off()
    # Few structures give intervals of any length: they may leave the picture, bars may not.
    trained = shares[shares["model"] == "trained"]
    shown = [*shares["share"], *trained["low"].clip(lower=-1), *trained["high"].clip(upper=2)]
    axes[0].set_ylim(min(shown) - 0.1, max(shown) + 0.1)
    axes[0].legend(frameon=False, fontsize="small")
    figure.suptitle(
        f"Which bonds carry the change of the {property_of(key).label}", fontsize="medium"
    )
    return figure
