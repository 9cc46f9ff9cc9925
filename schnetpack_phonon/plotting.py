"""Figures from tables. Nothing here computes."""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from schnetpack_phonon.common.style import COLORS, MARKERS, property_of


def parity(predictions: pd.DataFrame, errors: pd.DataFrame) -> Figure:
    """Prediction against label, one panel a property, one colour a crystal.

    Args:
        predictions: ``property``, ``structure``, ``label``, ``prediction`` in report units.
        errors: indexed by property: ``mae`` (in report units), ``r2`` and ``r2_crystal``.
    """
    keys = list(errors.index)
    n_columns = min(len(keys), 2)
    n_rows = -(-len(keys) // n_columns)
    figure = Figure(figsize=(4.2 * n_columns, 3.9 * n_rows), layout="constrained")
    axes = figure.subplots(n_rows, n_columns, squeeze=False).ravel()
    structures = sorted(predictions["structure"].unique())
    for axis, key in zip(axes, keys, strict=False):
        rows = predictions[predictions["property"] == key].copy()
        relative = property_of(key).arbitrary_zero
        if relative:
            mean = rows.groupby("structure")["label"].transform("mean")
            rows[["label", "prediction"]] = rows[["label", "prediction"]].sub(mean, axis=0)
        for k, structure in enumerate(structures):
            own = rows[rows["structure"] == structure]
            axis.plot(
                own["label"],
                own["prediction"],
                MARKERS[k % len(MARKERS)],
                color=COLORS[k % len(COLORS)],
                markersize=4.5,
                alpha=0.75,
                markeredgewidth=0,
                label=structure,
            )
        both = rows[["label", "prediction"]].to_numpy()
        margin = 0.05 * np.ptp(both) or 1.0
        limits = both.min() - margin, both.max() + margin
        axis.plot(limits, limits, color="0.4", linewidth=0.8, zorder=0)
        label, unit = property_of(key).label, property_of(key).report_unit
        r2 = f"R² {errors.loc[key, 'r2']:.3f}"
        if relative:
            label = f"{label} − crystal mean"
            r2 = f"R² within crystals {errors.loc[key, 'r2_crystal']:.3f}"
        axis.set(
            xlim=limits,
            ylim=limits,
            xlabel=f"calculated {label} ({unit})",
            ylabel=f"predicted {label} ({unit})",
        )
        axis.set_title(f"MAE {errors.loc[key, 'mae']:.3g} {unit},  {r2}", fontsize="medium")
        axis.set_aspect("equal")
        axis.locator_params(nbins=5)
    for axis in axes[len(keys) :]:
        axis.set_axis_off()
    axes[0].legend(frameon=False, fontsize="small")
    return figure
