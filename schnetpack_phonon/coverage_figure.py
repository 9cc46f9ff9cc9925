"""One figure of what training sets cover. Nothing here computes."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from schnetpack_phonon.common.properties import label, unit
from schnetpack_phonon.common.style import COLORS

_MARKERS = "osD^vP*"


_FAR = 1.25  # times the 98th percentile of distances: where the axis ends


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
