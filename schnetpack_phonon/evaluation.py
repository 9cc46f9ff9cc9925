"""A trained model against labels: predictions and their errors as tables."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import numpy as np
import pandas as pd
import torch
from schnetpack import properties as structure_keys
from schnetpack.model import AtomisticModel

from schnetpack_phonon.properties import PROPERTIES


def predict(
    model: AtomisticModel, batches: Iterable[dict[str, torch.Tensor]], targets: Mapping[str, str]
) -> pd.DataFrame:
    """Scalar predictions beside labels, in the data module's units.

    Args:
        model: of the host; left as it was found.
        batches: collated, with labels.
        targets: output of the model -> label in the batch.

    Returns:
        One row a structure and property: ``index`` (the host's), ``property``, ``label``,
        ``prediction``. Structures without a label are left out.
    """
    tables = []
    training = [module for module in model.modules() if module.training]
    postprocessing = model.do_postprocessing
    device = next(model.parameters()).device
    model.eval()
    model.do_postprocessing = False
    try:
        for batch in batches:
            labels = {name: batch[target].double().cpu() for name, target in targets.items()}
            index = batch[structure_keys.idx].cpu().numpy()
            with torch.set_grad_enabled(bool(model.required_derivatives)):
                results = model({key: value.to(device) for key, value in batch.items()})
            for name, label in labels.items():
                columns = {"index": index, "property": name, "label": label.numpy()}
                prediction = results[name].detach().double().cpu().numpy()
                tables.append(pd.DataFrame(columns | {"prediction": prediction}))
    finally:
        for module in training:
            module.training = True
        model.do_postprocessing = postprocessing
    return pd.concat(tables, ignore_index=True).dropna(subset="label")


def errors(predictions: pd.DataFrame, training: pd.DataFrame) -> pd.DataFrame:
    """Errors of each property beside those of two predictions that need no model.

    Args:
        predictions: as :func:`predict` gives them, with a column ``structure``.
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
