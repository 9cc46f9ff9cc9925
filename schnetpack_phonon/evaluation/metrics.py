"""Errors of predictions as tables, and tables in the units of reports."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import pandas as pd

from schnetpack_phonon.common.properties import PROPERTIES, Property


def errors(predictions: pd.DataFrame, training: pd.DataFrame) -> pd.DataFrame:
    """Errors of each property, and of two predictions that need no model.

    Args:
        predictions: of :func:`.predict`, with a column ``structure``.
        training: labels of the training set: ``structure``, ``property``, ``label``.

    Returns:
        One row for each property, in the same units: ``n``, ``n_invalid`` (predictions that are
        NaN or infinite; there is no error of the model with any of them), ``mae``, ``rmse``,
        ``r2``, ``r2_crystal`` (within crystals: variance of labels about the mean of their own
        crystal), ``mae_mean`` (for the mean of the training set as prediction) and
        ``mae_crystal_mean`` (for the mean of the same crystal in the training set).
    """
    rows = {}
    for key, group in predictions.groupby("property", sort=False):
        train = training[training["property"] == key]
        valid = np.isfinite(group["prediction"])
        error = (
            group["prediction"] - group["label"] if valid.all() else pd.Series(np.nan, group.index)
        )
        crystal_mean = group["structure"].map(train.groupby("structure")["label"].mean())
        squared, label = (error**2).mean(), group["label"]
        own_mean = group.groupby("structure")["label"].transform("mean")
        rows[key] = {
            "n": len(group),
            "n_invalid": (~valid).sum(),
            "mae": error.abs().mean(),
            "rmse": np.sqrt(squared),
            "r2": _explained(squared, label, label.mean()),
            "r2_crystal": _explained(squared, label, own_mean),
            "mae_mean": (label - train["label"].mean()).abs().mean(),
            "mae_crystal_mean": (label - crystal_mean).abs().mean(),
        }
    return pd.DataFrame.from_dict(rows, orient="index").rename_axis("property")


def in_report_units(table: pd.DataFrame, columns: Iterable[str]) -> pd.DataFrame:
    """A copy with ``columns`` in the report unit of each property, and a column ``unit``.

    Args:
        table: indexed by property, or with a column ``property``; a column ``unit`` is kept for
            properties that are not ours.
        columns: in the database unit of the property.
    """
    table = table.copy()
    keys = table["property"] if "property" in table else table.index.to_series()
    units = table["unit"] if "unit" in table else [""] * len(table)
    known = [PROPERTIES.get(k, Property((), u, k, u)) for k, u in zip(keys, units, strict=True)]
    for column in columns:
        table[column] = table[column] * np.array([p.report_factor for p in known])
    table["unit"] = [p.report_unit for p in known]
    return table


def _explained(squared_error: float, label: pd.Series, mean: pd.Series | float) -> float:
    """Coefficient of determination; NaN where labels do not vary."""
    variance = ((label - mean) ** 2).mean()
    rounding = (1e-12 * label.abs().max()) ** 2
    return 1 - squared_error / variance if variance > rounding else np.nan
