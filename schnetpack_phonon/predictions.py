"""A trained model beside labels: its predictions as a table."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import pandas as pd
import torch
from schnetpack import properties as structure_keys
from schnetpack.model import AtomisticModel


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
