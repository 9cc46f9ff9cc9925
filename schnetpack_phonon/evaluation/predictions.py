"""Predictions of trained models for labelled structures."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
import torch
from ase import Atoms
from schnetpack import properties as structure_keys
from schnetpack.interfaces import AtomsConverter
from schnetpack.model import AtomisticModel

from schnetpack_phonon.common.files import Trust
from schnetpack_phonon.common.properties import energy, energy_per_atom
from schnetpack_phonon.evaluation.runs import Question
from schnetpack_phonon.models.predict import trained_elements, with_precise_offsets
from schnetpack_phonon.models.trained.targets import build
from schnetpack_phonon.models.trained.weights import load_trained

_BATCH = 4  # structures; more do not fit into the cache of a core, and are slower
_OF_LABELS = ("RemoveOffsets", "ScaleProperty")  # reversed by the postprocessors of the model


def predict(
    model: AtomisticModel, batches: Iterable[dict[str, torch.Tensor]], targets: Mapping[str, str]
) -> pd.DataFrame:
    """Scalar predictions beside labels, in the units of the data module.

    Args:
        model: SchNetPack model; not changed.
        batches: of SchNetPack's loader, with labels.
        targets: output of the model -> label in the batch.

    Returns:
        One row for each structure and property with a label: ``index`` (in the database),
        ``property``, ``label``, ``prediction``.
    """
    tables = []
    training = [module for module in model.modules() if module.training]
    postprocessing = model.do_postprocessing
    model.eval()
    model.do_postprocessing = False
    try:
        for batch in batches:
            index = batch[structure_keys.idx].cpu().numpy()
            for name, prediction in _outputs(model, batch, targets).items():
                label = batch[targets[name]].double().cpu().numpy()
                columns = {"index": index, "property": name, "label": label}
                tables.append(pd.DataFrame(columns | {"prediction": prediction}))
    finally:
        for module in training:
            module.training = True
        model.do_postprocessing = postprocessing
    return pd.concat(tables, ignore_index=True).dropna(subset="label")


def answers(questions: Iterable[Question], atoms: Sequence[Atoms]) -> list[dict[str, np.ndarray]]:
    """Predictions of several models for the same structures, whose graphs are built once.

    Returns:
        For each model label -> predictions in the unit that it was trained in, shape=(n_rows,
        n_components), one row for each structure or, for outputs of atoms, for each atom; NaN for
        structures with elements that the model was not trained on.
    """
    n_atoms = np.array([len(one) for one in atoms])
    batches: dict[str, list[dict[str, torch.Tensor]]] = {}
    found: list[dict[str, np.ndarray]] = []
    for one in questions:
        model = with_precise_offsets(load_trained(one.path, one.trust).eval())
        model.do_postprocessing = True
        trained = {*one.targets.values()}
        known = trained | ({energy} if energy_per_atom in trained else set())
        extra = {*model.model_outputs} & {*one.labels} - known
        targets = {**one.targets, **{key: key for key in sorted(extra)}}
        key = str((one.transforms, one.length))
        if targets and key not in batches:
            batches[key] = _batches(atoms, one.transforms, one.length, one.trust)
        parts = [_outputs(model, batch, targets) for batch in batches[key]] if targets else []
        elements = trained_elements(model) or {*one.elements}
        foreign = np.array([not elements.issuperset(a.numbers.tolist()) for a in atoms])
        own = {}
        for output, label in targets.items():
            rows = np.concatenate([p[output].reshape(len(p[output]), -1) for p in parts])
            rows[np.repeat(foreign, n_atoms if len(rows) == n_atoms.sum() else 1)] = np.nan
            own[label] = rows
        found.append(own)
    return found


def _outputs(
    model: AtomisticModel, batch: Mapping[str, torch.Tensor], names: Iterable[str]
) -> dict[str, np.ndarray]:
    """Outputs of a model in evaluation mode, in double precision; the batch is not changed."""
    device = next(model.parameters()).device
    inputs = {key: value.detach().to(device) for key, value in batch.items()}
    with torch.set_grad_enabled(bool(model.required_derivatives)):
        results = model(inputs)
    return {name: results[name].detach().double().cpu().numpy() for name in names}


def _batches(
    atoms: Sequence[Atoms], transforms: Iterable[dict[str, Any]], length: float, trust: Trust
) -> list[dict[str, torch.Tensor]]:
    """Batches with the transforms of a data module, without those of labels."""
    kept = [one for one in transforms if not one["_target_"].endswith(_OF_LABELS)]
    made = [build(one, trust) for one in kept]
    convert = AtomsConverter(neighbor_list=None, transforms=made, dtype=torch.float32)
    scaled = [
        Atoms(a.numbers, length * a.positions, cell=length * a.cell.array, pbc=a.pbc) for a in atoms
    ]
    return [convert(scaled[k : k + _BATCH]) for k in range(0, len(atoms), _BATCH)]
