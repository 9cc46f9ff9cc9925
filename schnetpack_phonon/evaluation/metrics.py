"""Errors of predictions as tables, and tables in the units of reports."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import pandas as pd

from schnetpack_phonon.common.properties import PROPERTIES, Property


def errors(predictions: pd.DataFrame, training: pd.DataFrame) -> pd.DataFrame:
    """Errors of each property, and of two predictions that need no model.

    Errors of properties with a shape are those of their components, and each component has a mean
    of its own.

    Args:
        predictions: of :func:`.predict`, with a column ``structure``.
        training: labels of the training set: ``structure``, ``property``, ``component`` if there
            are any, ``label``.

    Returns:
        One row for each property, in the same units: ``n`` (structures), ``n_values`` (their
        components), ``n_invalid`` (structures with predictions that are NaN or infinite; there is
        no error of the model with any of them), ``mae``, ``rmse``, ``r2``, ``r2_crystal`` (within
        crystals: variance of labels about the mean of their own crystal), ``mae_mean`` (for the
        mean of the training set as prediction) and ``mae_crystal_mean`` (for the mean of the same
        crystal in the training set).
    """
    rows = {}
    predictions, training = named_components(predictions), named_components(training)
    place = ["structure", "component"]
    for key, group in predictions.groupby("property", sort=False):
        train = training[training["property"] == key]
        valid = np.isfinite(group["prediction"])
        error = (
            group["prediction"] - group["label"] if valid.all() else pd.Series(np.nan, group.index)
        )
        squared, label = (error**2).mean(), group["label"]
        means = train.groupby("component")["label"].mean()
        of_crystals = train.groupby(place)["label"].mean().rename("mean")
        crystal_mean = group.join(of_crystals, on=place)["mean"]
        rows[key] = {
            "n": group["index"].nunique(),
            "n_values": len(group),
            "n_invalid": group.loc[~valid, "index"].nunique(),
            "mae": error.abs().mean(),
            "rmse": np.sqrt(squared),
            "r2": _explained(squared, label, mean_label(group, ["component"])),
            "r2_crystal": _explained(squared, label, mean_label(group, place)),
            "mae_mean": (label - group["component"].map(means)).abs().mean(),
            "mae_crystal_mean": (label - crystal_mean).abs().mean(),
        }
    return pd.DataFrame.from_dict(rows, orient="index").rename_axis("property")


def named_components(table: pd.DataFrame) -> pd.DataFrame:
    """With a column ``component`` for all properties, empty for those without a shape."""
    if "component" not in table:
        return table.assign(component="")
    return table.fillna({"component": ""})


def mean_label(table: pd.DataFrame, columns: list[str]) -> pd.Series:
    """For each row the mean label of the rows with the same values in ``columns``."""
    return table.groupby(columns)["label"].transform("mean")


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


def _explained(squared_error: float, label: pd.Series, mean: pd.Series) -> float:
    """Coefficient of determination; NaN where labels do not vary."""
    variance = ((label - mean) ** 2).mean()
    rounding = (1e-12 * label.abs().max()) ** 2
    return 1 - squared_error / variance if variance > rounding else np.nan
