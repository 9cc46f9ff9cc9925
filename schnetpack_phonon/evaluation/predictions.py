"""A trained model beside labels: its predictions as a table."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import hydra
import numpy as np
import pandas as pd
import torch
from ase import Atoms
from schnetpack import properties as structure_keys
from schnetpack.data.loader import _atoms_collate_fn
from schnetpack.interfaces import AtomsConverter
from schnetpack.model import AtomisticModel

from schnetpack_phonon.common.properties import energy, energy_per_atom
from schnetpack_phonon.evaluation.runs import Question
from schnetpack_phonon.models.predict import load_trained

_BATCH = 4  # larger ones leave the cache of a core, and the kernel clears memory for each


_OF_LABELS = ("RemoveOffsets", "ScaleProperty")  # undone by what models do behind their outputs


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


def answers(questions: Iterable[Question], atoms: Sequence[Atoms]) -> list[dict[str, np.ndarray]]:
    """What each model says of structures, whose graphs are built once.

    Returns:
        For each model label -> predictions in the database's unit, shape=(n_rows, n_components),
        one row a structure or, for outputs of atoms, one an atom.
    """
    batches: dict[str, list[dict[str, torch.Tensor]]] = {}
    found: list[dict[str, np.ndarray]] = []
    for one in questions:
        model = load_trained(one.path).eval()
        model.do_postprocessing = True
        trained = {*one.targets.values()}
        told = trained | ({energy} if energy_per_atom in trained else set())
        extra = {*model.model_outputs} & {*one.labels} - told
        targets = {**one.targets, **{key: key for key in sorted(extra)}}
        if not targets:
            found.append({})
            continue
        key = str(one.transforms)
        if key not in batches:
            batches[key] = _batches(atoms, one.transforms)
        with torch.set_grad_enabled(bool(model.required_derivatives)):
            results = [_outputs(model, batch, targets) for batch in batches[key]]
        found.append({key: np.concatenate([r[key] for r in results]) for key in results[0]})
    return found


def _outputs(
    model: torch.nn.Module, batch: dict[str, torch.Tensor], targets: Mapping[str, str]
) -> dict[str, np.ndarray]:
    results = model({key: value.detach() for key, value in batch.items()})  # models mark inputs
    arrays = {label: results[output].detach().double().numpy() for output, label in targets.items()}
    return {label: array.reshape(len(array), -1) for label, array in arrays.items()}


def _batches(
    atoms: Sequence[Atoms], transforms: Iterable[dict[str, Any]]
) -> list[dict[str, torch.Tensor]]:
    """Collated structures as a model takes them."""
    kept = [one for one in transforms if not one["_target_"].endswith(_OF_LABELS)]
    made = [hydra.utils.instantiate(one) for one in kept]
    convert = AtomsConverter(neighbor_list=None, transforms=made, dtype=torch.float32)
    items = []
    for k, structure in enumerate(atoms):
        item = {key: value for key, value in convert(structure).items() if key != "_idx_m"}
        items.append(item | {"_idx": torch.tensor([k])})
    return [_atoms_collate_fn(items[k : k + _BATCH]) for k in range(0, len(items), _BATCH)]
