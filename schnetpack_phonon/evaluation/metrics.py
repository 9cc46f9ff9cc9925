"""Predictions against labels: their errors as tables, in the units of reports."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import pandas as pd

from schnetpack_phonon.common.properties import PROPERTIES


def errors(predictions: pd.DataFrame, training: pd.DataFrame) -> pd.DataFrame:
    """Errors of each property beside those of two predictions that need no model.

    Args:
        predictions: as :func:`.predict` gives them, with a column ``structure``.
        training: labels of the training set: ``structure``, ``property``, ``label``.

    Returns:
        One row a property, in the same units: ``n``, ``mae``, ``rmse``, ``r2``, ``r2_crystal``
        (the same within crystals: labels vary about the mean of their own crystal),
        ``mae_mean`` (always predicting the mean of the training set) and ``mae_crystal_mean``
        (the mean of the same crystal in the training set).
    """
    rows = {}
    for key, group in predictions.groupby("property", sort=False):
        train = training[training["property"] == key]
        error = group["prediction"] - group["label"]
        crystal_mean = group["structure"].map(train.groupby("structure")["label"].mean())
        squared = (error**2).mean()
        own_mean = group.groupby("structure")["label"].transform("mean")
        rows[key] = {
            "n": len(group),
            "mae": error.abs().mean(),
            "rmse": np.sqrt(squared),
            "r2": _explained(squared, group["label"], group["label"].mean()),
            "r2_crystal": _explained(squared, group["label"], own_mean),
            "mae_mean": (group["label"] - train["label"].mean()).abs().mean(),
            "mae_crystal_mean": (group["label"] - crystal_mean).abs().mean(),
        }
    table = pd.DataFrame.from_dict(rows, orient="index")
    table.index.name = "property"
    return table


def _explained(squared_error: float, label: pd.Series, mean: pd.Series | float) -> float:
    """Coefficient of determination; NaN where labels do not vary."""
    variance = ((label - mean) ** 2).mean()
    rounding = (1e-12 * label.abs().max()) ** 2
    return 1 - squared_error / variance if variance > rounding else np.nan


def in_report_units(table: pd.DataFrame, columns: Iterable[str]) -> pd.DataFrame:
    """A copy with ``columns`` in each property's report unit and a column ``unit``.

    Args:
        table: indexed by property, or with a column ``property``.
        columns: that are in the property's database unit.
    """
    table = table.copy()
    keys = table["property"] if "property" in table else table.index.to_series()
    known = [PROPERTIES.get(key) for key in keys]
    factor = np.array([1.0 if p is None else p.report_factor for p in known])
    for column in columns:
        table[column] = table[column] * factor
    table["unit"] = ["" if p is None else p.report_unit for p in known]
    return table
