"""Figures of comparisons. They only draw what is in their tables."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from textwrap import fill

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.image import imread

from schnetpack_phonon.attribution.results import FIGURES
from schnetpack_phonon.common.properties import label, unit
from schnetpack_phonon.common.style import (
    characters,
    color,
    grid,
    hide_frame,
    legend_above,
    marker,
    panels,
)

_SMALL = {"frameon": False, "fontsize": "small"}
_FAR = 1.25  # times the 98th percentile of distances: where the axis ends
_WIDE = 30.0  # largest by smallest error, above which an axis is logarithmic


def cross_matrix(matrix: pd.DataFrame) -> Figure:
    """Errors of models on test sets, a panel a property, a place a test set, a colour a model.

    Args:
        matrix: as :func:`.error_matrix` gives it, in report units.
    """
    keys, models, sets = (matrix[c].unique() for c in ("property", "model", "test_set"))
    width = max(1.6 + 0.28 * len(sets) * len(models), 3.5)
    figure, axes = panels(len(keys), (width, 2.9), (0, 0.9))
    for axis, key in zip(axes, keys, strict=True):
        rows = matrix[matrix["property"] == key]
        for k, model in enumerate(models):
            own = rows[rows["model"] == model].set_index("test_set").reindex(sets)
            place = _places(len(sets), k, len(models), 0.7)
            interval = np.clip([own["mae"] - own["low"], own["high"] - own["mae"]], 0, None)
            axis.errorbar(
                place, own["mae"], interval, fmt=marker(k), color=color(k), ms=6, lw=1.3,
                label=f"trained on {model}",
            )  # fmt: skip
            axis.plot(place, own["mae_mean"], "_", color=color(k), alpha=0.6, ms=11)
            for x in place[own["n_invalid"] > 0]:
                axis.text(
                    x, 0.02, "not ranked", color=color(k), fontsize="x-small", rotation=90,
                    ha="center", va="bottom", transform=axis.get_xaxis_transform(),
                )  # fmt: skip
        for border in range(1, len(sets)):
            axis.axvline(border - 0.5, color="0.9", lw=0.8, zorder=0)
        axis.set_xticks(range(len(sets)), [name.replace(" (", "\n(") for name in sets])
        axis.set_xlim(-0.5, len(sets) - 0.5)
        if rows["mae"].max() > _WIDE * rows["mae"].min() > 0:
            axis.set_yscale("log")
        else:
            axis.set_ylim(bottom=0)
        axis.set(xlabel="tested on", ylabel=f"mean absolute error ({unit(key)})")
        axis.set_title(label(key), loc="left", fontsize="medium")
    _finish(figure, axes)
    text = "bars: 95 % over structures; dashes: predicting each crystal's training mean"
    figure.supxlabel(fill(text, characters(figure)), fontsize="small", color="0.3")
    return figure


def learning_curves(curves: pd.DataFrame, laws: pd.DataFrame) -> Figure:
    """Error against number of labels, a row a property, a column a test set, a colour an ensemble.

    Args:
        curves: as :func:`.learning_curves` gives them, in report units.
        laws: as :func:`.power_laws` gives them, in report units.
    """
    keys, sets, ensembles = (curves[c].unique() for c in ("property", "test_set", "ensemble"))
    shape = len(keys), len(sets)
    figure, axes = grid(*shape, (2.9, 2.4), (1.2, 0.6), sharex=True, sharey="row")
    sizes = sorted(curves["n_train"].unique())
    for (i, j), axis in np.ndenumerate(axes):
        place = {"property": keys[i], "test_set": sets[j]}
        own, fits = (t[(t[[*place]] == [*place.values()]).all(axis=1)] for t in (curves, laws))
        for k, ensemble in enumerate(ensembles):
            rows = own[own["ensemble"] == ensemble]
            axis.plot(
                rows["n_train"], rows["mae"], marker(k), color=color(k), alpha=0.5, ms=4, mew=0
            )
            means = rows.groupby("n_train")["mae"].mean()
            axis.plot(means.index, means, "_", color=color(k), ms=13, mew=2)
            name = ensemble
            for row in fits[fits["ensemble"] == ensemble].to_dict("records"):
                n = np.geomspace(row["n_min"], row["n_max"])
                axis.plot(n, row["a"] * n ** -row["b"], color=color(k), lw=1)
                name = f"{ensemble}, N^{-row['b']:+.2f}"
            axis.plot([], [], marker(k), color=color(k), ms=5, label=name)
        axis.set(xscale="log", yscale="log")
        axis.set_xticks(sizes, [f"{n:g}" for n in sizes], minor=False)
        axis.minorticks_off()
        _decades(axis)
        axis.legend(frameon=False, fontsize="x-small", handletextpad=0.1)
    for axis, test_set in zip(axes[0], sets, strict=True):
        axis.set_title(f"tested on {test_set}", fontsize="medium")
    for axis in axes[-1]:
        axis.set_xlabel("training structures N")
    for axis, key in zip(axes[:, 0], keys, strict=True):
        axis.set_ylabel(f"MAE of {label(key)} ({unit(key)})", fontsize="small")
    figure.supxlabel("dots: seeds, bars: their mean, lines: power law", fontsize="small")
    return figure


def attribution_shares(shares: pd.DataFrame) -> Figure:
    """Variance shares by bond type of models side by side, a panel a crystal.

    Args:
        shares: ``structure``, ``bond_type``, ``model``, ``share`` (mean over seeds), ``seed_sd``;
            the model ``untrained`` is the control.
    """
    crystals, models = shares["structure"].unique(), shares["model"].unique()
    figure, axes = panels(len(crystals), (4.6, 2.8), (0, 0.9))
    for axis, crystal in zip(axes, crystals, strict=True):
        own = shares[shares["structure"] == crystal]
        first = own[own["model"] == models[0]].sort_values("share", ascending=False)
        types = list(dict.fromkeys([*first["bond_type"], *own["bond_type"]]))
        for k, model in enumerate(models):
            rows = own[own["model"] == model].set_index("bond_type").reindex(types)
            place = _places(len(types), k, len(models), 0.8)
            fill = "0.72" if model == "untrained" else color(k)
            axis.bar(place, rows["share"], 0.8 / len(models), color=fill, label=model)
            axis.errorbar(place, rows["share"], rows["seed_sd"], fmt="none", ecolor="0.2", lw=1)
        axis.axhline(0, color="0.4", lw=0.8)
        axis.set_xticks(range(len(types)), types, rotation=30)
        axis.set_title(crystal, loc="left", fontsize="medium")
        axis.set_ylabel("variance share")
    _finish(figure, axes)
    return figure


def bond_maps(runs: pd.DataFrame) -> Figure | None:
    """Pictures of attributed bonds side by side, of the first run of each model that has one.

    Args:
        runs: as :func:`.group_runs` gives them; those with the largest number of labels are shown.
    """
    images = {}
    for run in runs[runs["n_train"] == runs["n_train"].max()].to_dict("records"):
        path = Path(run["run"], FIGURES, "bonds_3d.png")
        if run["model"] not in images and path.is_file():
            images[run["model"]] = imread(path)
    if not images:
        return None
    height, width = next(iter(images.values())).shape[:2]
    figure, axes = panels(len(images), (4.6, 4.6 * height / width + 0.3), (0, 0))
    for axis, (model, image) in zip(axes, images.items(), strict=True):
        axis.imshow(image, interpolation="antialiased")
        axis.set_title(f"trained on {model}", loc="left", fontsize="medium")
        axis.set_axis_off()
    return figure


def coverage(
    densities: pd.DataFrame,
    amplitudes: pd.DataFrame,
    labels: pd.DataFrame,
    errors: pd.DataFrame,
    ensembles: Mapping[str, str],
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
        ensembles: model -> ensemble that it was trained on.
        crystal: of the first two.
        key: property of the last two.
        temperature: of the standard deviations, in K.
    """
    colors = {name: color(k) for k, name in enumerate(labels["ensemble"].unique())}
    figure, axes = grid(2, 2, (4.8, 3.5))
    first, second, third, fourth = axes.flat
    for name, own in densities.groupby("ensemble", sort=False):
        first.plot(own["distance"], own["density"], color=colors[str(name)], lw=1.3, label=name)
    first.set(xlabel="distance (Å)", ylabel="pairs per atom and Å", title=f"{crystal}: distances")
    first.set_xlim(left=densities.loc[densities["density"] > 0, "distance"].min() - 0.1)
    first.legend(**_SMALL)
    for name, own in amplitudes.groupby("ensemble", sort=False):
        second.plot(own["frequency"], own["amplitude"], ".", color=colors[str(name)], ms=5)
    second.axhline(1, color="0.5", lw=0.8)
    second.set(
        xlabel="frequency (THz), imaginary below 0",
        ylabel=f"rms amplitude (σ of {temperature:g} K)",
        title=f"{crystal}: modes",
    )
    if amplitudes.empty:
        text = "phonons not in the label store"
        second.text(0.5, 0.5, text, ha="center", transform=second.transAxes)
    bins = np.histogram_bin_edges(labels["label"], 20)
    for name, own in labels.groupby("ensemble", sort=False):
        density, _ = np.histogram(own["label"], bins, density=True)
        third.stairs(density, bins, color=colors[str(name)], lw=1.3)
    third.set(xlabel=f"{label(key)} ({unit(key)})", ylabel="share", title="labels, all crystals")
    third.set_yticks([])
    n_beyond = _errors_against_distance(fourth, errors, ensembles, colors)
    more = f" (at the edge: {n_beyond} beyond)" if n_beyond else ""
    fourth.set(
        xlabel="distance from the training set (1: of each other)",
        ylabel=f"error of the {label(key)} ({unit(key)})",
        title=f"error against distance{more}",
    )
    fourth.legend(**_SMALL)
    for axis in axes.flat:
        axis.title.set_fontsize("medium")
    hide_frame(axes.flat)
    return figure


def _errors_against_distance(
    axis: Axes, errors: pd.DataFrame, ensembles: Mapping[str, str], colors: Mapping[str, str]
) -> int:
    """Points and means of bins; returns how many outliers are drawn at the edge of the panel."""
    both = ["distance", "error"]
    models = errors["model"].unique()
    errors = errors[np.isfinite(errors["distance"])]
    errors = errors[~errors["model"].isin(errors.loc[errors["error"].isna(), "model"])]
    edge = _FAR * errors[both].quantile(0.98)  # few outliers would take all the room
    beyond = (errors[both] > edge).any(axis=1)
    for k, model in enumerate(models):
        own = errors[errors["model"] == model]
        shade = colors.get(ensembles[model], color(k))
        for shown, form in ((~beyond[own.index], "."), (beyond[own.index], "D")):
            points = own.loc[shown, both].clip(upper=edge, axis=1).to_numpy().T
            axis.plot(*points, form, ms=4, color=shade, alpha=0.25, mew=0)
        means = own[both]
        if len(own):
            bins = pd.qcut(own["distance"], 6, duplicates="drop")
            means = own.groupby(bins, observed=True)[both].mean()
        means = means[(means <= edge).all(axis=1)]
        axis.plot(
            means["distance"], means["error"], marker(k), color=shade, ls="-", ms=6,
            label=f"trained on {model}{'' if len(own) else ' (no errors)'}",
        )  # fmt: skip
    return int(beyond.sum())


def _places(n: int, k: int, n_models: int, width: float) -> np.ndarray:
    """Where the k-th model stands at each of n ticks, shape=(n,)."""
    return np.arange(n) + (k - (n_models - 1) / 2) * width / n_models


def _finish(figure: Figure, axes: list[Axes]) -> None:
    """One legend for all panels, and open frames."""
    legend_above(figure, axes[0])
    hide_frame(axes)


def _decades(axis: Axes) -> None:
    """Numbers on a logarithmic axis that spans less than two decades."""
    low, high = axis.get_ylim()
    ticks = [m * 10.0**e for e in range(-8, 6) for m in (1, 2, 5)]
    shown = [t for t in ticks if low <= t <= high]
    axis.set_yticks(shown, [f"{t:g}" for t in shown])
