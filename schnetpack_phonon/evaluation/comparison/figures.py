"""Figures of comparisons. Nothing here computes."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from schnetpack_phonon.common.properties import label, unit
from schnetpack_phonon.common.style import COLORS

_MARKERS = "osD^vP*"


_FAR = 1.25  # times the 98th percentile of distances: where the axis ends


_WIDE = 30.0  # largest by smallest error, above which an axis is logarithmic


def cross_matrix(matrix: pd.DataFrame) -> Figure:
    """Errors of models on test sets, a panel a property, a place a test set, a colour a model.

    Args:
        matrix: as :func:`.error_matrix` gives it, in report units.
    """
    keys, models = _unique(matrix, "property"), _unique(matrix, "model")
    sets = _unique(matrix, "test_set")
    figure, axes = _panels(len(keys), width=1.6 + 0.28 * len(sets) * len(models), height=2.9)
    for axis, key in zip(axes, keys, strict=False):
        for k, model in enumerate(models):
            own = matrix[(matrix["property"] == key) & (matrix["model"] == model)]
            own = own.set_index("test_set").reindex(sets)
            place = np.arange(len(sets)) + (k - (len(models) - 1) / 2) * 0.7 / len(models)
            interval = np.clip([own["mae"] - own["low"], own["high"] - own["mae"]], 0, None)
            color = COLORS[k % len(COLORS)]
            axis.errorbar(
                place,
                own["mae"],
                interval,
                fmt=_MARKERS[k % len(_MARKERS)],
                color=color,
                markersize=6,
                linewidth=1.3,
                label=f"trained on {model}",
            )
            axis.plot(place, own["mae_mean"], "_", color=color, alpha=0.6, markersize=11)
        for edge in range(1, len(sets)):
            axis.axvline(edge - 0.5, color="0.9", linewidth=0.8, zorder=0)
        axis.set_xticks(range(len(sets)), [name.replace(" (", "\n(") for name in sets])
        axis.set_xlim(-0.5, len(sets) - 0.5)
        rows = matrix.loc[matrix["property"] == key, "mae"]
        if rows.max() > _WIDE * rows.min() > 0:
            axis.set_yscale("log")
        else:
            axis.set_ylim(bottom=0)
        axis.set_ylabel(f"mean absolute error ({unit(key)})")
        axis.set_title(label(key), loc="left", fontsize="medium")
        axis.set_xlabel("tested on")
        axis.spines[["top", "right"]].set_visible(False)
    handles, names = axes[0].get_legend_handles_labels()
    figure.legend(handles, names, loc="outside upper center", frameon=False, fontsize="small")
    figure.supxlabel(
        "bars: 95 % over structures; dashes: predicting each crystal's training mean",
        fontsize="small",
        color="0.3",
    )
    return figure


def learning_curves(curves: pd.DataFrame, laws: pd.DataFrame) -> Figure:
    """Error against number of labels, a row a property, a column a test set, a colour an ensemble.

    Args:
        curves: as :func:`.learning_curves` gives them, in report units.
        laws: as :func:`.power_laws` gives them, in report units.
    """
    keys, sets = _unique(curves, "property"), _unique(curves, "test_set")
    ensembles = _unique(curves, "ensemble")
    figure = Figure(figsize=(1.2 + 2.9 * len(sets), 0.6 + 2.4 * len(keys)), layout="constrained")
    axes = figure.subplots(len(keys), len(sets), squeeze=False, sharex=True, sharey="row")
    sizes = sorted(curves["n_train"].unique())
    for i, key in enumerate(keys):
        for j, test_set in enumerate(sets):
            axis = axes[i, j]
            own = curves[(curves["property"] == key) & (curves["test_set"] == test_set)]
            for k, ensemble in enumerate(ensembles):
                color = COLORS[k % len(COLORS)]
                rows = own[own["ensemble"] == ensemble]
                marker = _MARKERS[k % len(_MARKERS)]
                axis.plot(rows["n_train"], rows["mae"], marker, color=color, alpha=0.5, ms=4, mew=0)
                means = rows.groupby("n_train")["mae"].mean()
                axis.plot(means.index, means, "_", color=color, ms=13, mew=2)
                law = laws.query(
                    "ensemble == @ensemble and test_set == @test_set and property == @key"
                )
                name = ensemble
                for row in law.to_dict("records"):
                    n = np.geomspace(row["n_min"], row["n_max"])
                    axis.plot(n, row["a"] * n ** -row["b"], color=color, linewidth=1)
                    name = f"{ensemble}, N^{-row['b']:+.2f}"
                axis.plot([], [], marker, color=color, ms=5, label=name)
            axis.set(xscale="log", yscale="log")
            axis.set_xticks(sizes, [f"{n:g}" for n in sizes], minor=False)
            axis.minorticks_off()
            _decades(axis)
            axis.legend(frameon=False, fontsize="x-small", handletextpad=0.1)
            if i == 0:
                axis.set_title(f"tested on {test_set}", fontsize="medium")
            if i == len(keys) - 1:
                axis.set_xlabel("training structures N")
        axes[i, 0].set_ylabel(f"MAE of {label(key)} ({unit(key)})", fontsize="small")
    figure.supxlabel("dots: seeds, bars: their mean, lines: power law", fontsize="small")
    return figure


def attribution_shares(shares: pd.DataFrame) -> Figure:
    """Variance shares by bond type of models side by side, a panel a crystal.

    Args:
        shares: ``structure``, ``bond_type``, ``model``, ``share`` (mean over seeds), ``seed_sd``;
            the model ``untrained`` is the control.
    """
    crystals, models = _unique(shares, "structure"), _unique(shares, "model")
    figure, axes = _panels(len(crystals), width=4.6, height=2.8)
    for axis, crystal in zip(axes, crystals, strict=False):
        own = shares[shares["structure"] == crystal]
        first = own[own["model"] == models[0]].sort_values("share", ascending=False)
        types = list(dict.fromkeys([*first["bond_type"], *own["bond_type"]]))
        for k, model in enumerate(models):
            rows = own[own["model"] == model].set_index("bond_type").reindex(types)
            place = np.arange(len(types)) + (k - (len(models) - 1) / 2) * 0.8 / len(models)
            color = "0.72" if model == "untrained" else COLORS[k % len(COLORS)]
            axis.bar(place, rows["share"], 0.8 / len(models), color=color, label=model)
            axis.errorbar(place, rows["share"], rows["seed_sd"], fmt="none", ecolor="0.2", lw=1)
        axis.axhline(0, color="0.4", linewidth=0.8)
        axis.set_xticks(range(len(types)), types, rotation=30)
        axis.set_title(crystal, loc="left", fontsize="medium")
        axis.set_ylabel("variance share")
        axis.spines[["top", "right"]].set_visible(False)
    handles, names = axes[0].get_legend_handles_labels()
    figure.legend(handles, names, loc="outside upper center", frameon=False, fontsize="small")
    return figure


def _panels(n: int, width: float, height: float) -> tuple[Figure, list[Axes]]:
    """Panels in at most two columns; those without content are off."""
    n_columns = min(n, 2)
    n_rows = -(-n // n_columns)
    figure = Figure(figsize=(width * n_columns, 0.9 + height * n_rows), layout="constrained")
    axes = list(figure.subplots(n_rows, n_columns, squeeze=False).ravel())
    for axis in axes[n:]:
        axis.set_axis_off()
    return figure, axes


def _unique(table: pd.DataFrame, column: str) -> Sequence:
    return list(table[column].unique())


def _decades(axis: Axes) -> None:
    """Numbers on a logarithmic axis that spans less than two decades."""
    low, high = axis.get_ylim()
    ticks = [m * 10.0**e for e in range(-8, 6) for m in (1, 2, 5)]
    shown = [t for t in ticks if low <= t <= high]
    axis.set_yticks(shown, [f"{t:g}" for t in shown])


def coverage(
    densities: pd.DataFrame,
    amplitudes: pd.DataFrame,
    labels: pd.DataFrame,
    errors: pd.DataFrame,
    crystal: str,
    key: str,
    temperature: float,
) -> Figure:
    """Distances, amplitudes of modes, labels, and error against distance from the training set.

    Args:
        densities: as :func:`.pair_densities` gives them.
        amplitudes: as :func:`.mode_amplitudes` gives them; may be empty.
        labels: as :func:`.label_distributions` gives them, in report units.
        errors: as :func:`.distances_and_errors` gives them, in report units.
        crystal: of the first two.
        key: property of the last two.
        temperature: of the standard deviations, in K.
    """
    names = list(labels["ensemble"].unique())
    colors = {name: COLORS[k % len(COLORS)] for k, name in enumerate(names)}
    figure = Figure(figsize=(9.6, 7), layout="constrained")
    ((first, second), (third, fourth)) = figure.subplots(2, 2)
    for name, own in densities.groupby("ensemble", sort=False):
        first.plot(own["distance"], own["density"], color=colors[str(name)], lw=1.3, label=name)
    first.set(xlabel="distance (Å)", ylabel="pairs per atom and Å", title=f"{crystal}: distances")
    first.legend(frameon=False, fontsize="small")
    for name, own in amplitudes.groupby("ensemble", sort=False):
        second.plot(own["frequency"], own["amplitude"], ".", color=colors[str(name)], ms=5)
    second.axhline(1, color="0.5", linewidth=0.8)
    second.set(
        xlabel="frequency (THz), imaginary below 0",
        ylabel=f"rms amplitude (σ of {temperature:g} K)",
        title=f"{crystal}: modes",
    )
    if amplitudes.empty:
        second.text(
            0.5, 0.5, "phonons not in the label store", ha="center", transform=second.transAxes
        )
    edges = np.histogram_bin_edges(labels["label"], 20)
    for name, own in labels.groupby("ensemble", sort=False):
        density, _ = np.histogram(own["label"], edges, density=True)
        third.stairs(density, edges, color=colors[str(name)], linewidth=1.3)
    third.set(xlabel=f"{label(key)} ({unit(key)})", ylabel="share", title="labels, all crystals")
    third.set_yticks([])
    models: Sequence[str] = list(errors["model"].unique())
    errors = errors[np.isfinite(errors["distance"])]
    both = ["distance", "error"]
    edge = _FAR * errors[both].quantile(0.98)  # few outliers would take all the room
    beyond = (errors[both] > edge).any(axis=1)
    for k, model in enumerate(models):
        own = errors[errors["model"] == model]
        color = colors.get(model.split(", N")[0], COLORS[k % len(COLORS)])
        for shown, marker in ((~beyond[own.index], "."), (beyond[own.index], "D")):
            points = own.loc[shown, both].clip(upper=edge, axis=1).to_numpy().T
            fourth.plot(*points, marker, ms=4, color=color, alpha=0.25, mew=0)
        bins = pd.qcut(own["distance"], 6, duplicates="drop")
        means = own.groupby(bins, observed=True)[["distance", "error"]].mean()
        means = means[(means <= edge).all(axis=1)]
        fourth.plot(
            means["distance"], means["error"], _MARKERS[k % 7], color=color, ls="-", ms=6,
            label=f"trained on {model}",
        )  # fmt: skip
    fourth.set(
        xlabel="distance from the training set (1: of each other)",
        ylabel=f"error of the {label(key)} ({unit(key)})",
        title=f"error against distance (at the edge: {beyond.sum()} beyond)"
        if beyond.any()
        else "error against distance",
    )
    first.set_xlim(left=densities.loc[densities["density"] > 0, "distance"].min() - 0.1)
    fourth.legend(frameon=False, fontsize="small")
    for axis in (first, second, third, fourth):
        axis.title.set_fontsize("medium")
        axis.spines[["top", "right"]].set_visible(False)
    return figure
