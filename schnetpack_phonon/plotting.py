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
