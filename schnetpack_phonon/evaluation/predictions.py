"""Predictions of trained models for labelled structures."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from ase import Atoms
from schnetpack import properties as structure_keys
from schnetpack.interfaces import AtomsConverter
from schnetpack.model import AtomisticModel

from schnetpack_phonon.common.files import Trust
from schnetpack_phonon.common.properties import energy, energy_per_atom, property_of
from schnetpack_phonon.data.reading import read_rows
from schnetpack_phonon.evaluation.runs import Question
from schnetpack_phonon.models.predict import trained_elements, with_precise_offsets
from schnetpack_phonon.models.trained.targets import build
from schnetpack_phonon.models.trained.weights import load_trained

_BATCH = 4  # structures; more do not fit into the cache of a core, and are slower
_OF_LABELS = ("RemoveOffsets", "ScaleProperty")  # reversed by the postprocessors of the model


def predict(
    model: AtomisticModel, batches: Iterable[dict[str, torch.Tensor]], targets: Mapping[str, str]
) -> pd.DataFrame:
    """Predictions beside labels, in the units of the data module.

    Args:
        model: SchNetPack model; not changed.
        batches: of SchNetPack's loader, with labels.
        targets: output of the model -> label in the batch.

    Returns:
        One row for each structure and property with a label, of properties with a shape one for
        each component (and atom): ``index`` (in the database), ``property``, ``atom`` (in the
        structure), ``component`` (:func:`component_names`), ``label``, ``prediction``.
    """
    tables = []
    training = [module for module in model.modules() if module.training]
    postprocessing = model.do_postprocessing
    model.eval()
    model.do_postprocessing = False
    try:
        for batch in batches:
            index = batch[structure_keys.idx].cpu().numpy()
            n_atoms = batch[structure_keys.n_atoms].cpu().numpy()
            for name, prediction in _outputs(model, batch, targets).items():
                label = batch[targets[name]].double().cpu().numpy()
                rows = _rows(targets[name], index, n_atoms, label=label, prediction=prediction)
                tables.append(rows.assign(property=name))
    finally:
        for module in training:
            module.training = True
        model.do_postprocessing = postprocessing
    table = pd.concat(tables, ignore_index=True).dropna(subset="label")
    columns = ["index", "property", "atom", "component", "label", "prediction"]
    return table[[name for name in columns if name in table]]


def stored_labels(
    path: str | Path, indices: Sequence[int], targets: Mapping[str, str]
) -> pd.DataFrame:
    """Labels in a database, in the units of :mod:`.common.properties`.

    Args:
        path: of the database.
        indices: of its rows.
        targets: name -> label.

    Returns:
        As of :func:`predict`, without predictions.
    """
    found = [*read_rows(path, indices)]
    n_atoms = np.array([len(row.atoms) for row in found])
    tables = []
    for name, key in targets.items():
        labels = np.concatenate([np.atleast_1d(row.data[key]) for row in found])
        rows = _rows(key, np.array(indices), n_atoms, label=labels)
        tables.append(rows.assign(property=name))
    return pd.concat(tables, ignore_index=True)


def component_names(shape: Sequence[int]) -> list[str]:
    """Names of the components of a value of this shape, in the order of C.

    ``x``, ``y``, ``z`` of a vector, ``xx``, ``xy`` ... of a 3x3 tensor, ``11``, ``12`` ... of a 6x6
    one; else numbers from 1, with commas between axes.
    """
    axes: list[Iterable[str]] = ["xyz" if n == 3 else map(str, range(1, n + 1)) for n in shape]
    joint = "" if {*shape} in ({3}, {6}) else ","
    return [joint.join(names) for names in product(*axes)]


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
    # Forces are derivatives, which tensors of the inference mode of a plain Trainer do not have.
    with torch.inference_mode(False), torch.set_grad_enabled(bool(model.required_derivatives)):
        results = model({key: value.detach().clone().to(device) for key, value in batch.items()})
    return {name: results[name].detach().double().cpu().numpy() for name in names}


def _rows(key: str, index: np.ndarray, n_atoms: np.ndarray, **values: np.ndarray) -> pd.DataFrame:
    """A table of values of structures or atoms, a row a component.

    Args:
        key: label.
        index: of the structures.
        n_atoms: of the structures.
        values: columns, shape=(n_structures, ...), or (n_atoms, ...) for properties of atoms.
    """
    shape = property_of(key).shape
    table = pd.DataFrame({"index": index})
    if "N" in shape:
        table = table.loc[np.repeat(table.index, n_atoms)]
        table["atom"] = pd.array(np.concatenate([np.arange(n) for n in n_atoms]), dtype="Int64")
    if shape:
        first = next(iter(values.values()))
        names = component_names(first.shape[1:])
        table = table.iloc[np.repeat(np.arange(len(table)), len(names))]
        table["component"] = names * len(first)
    return table.assign(**{name: value.reshape(-1) for name, value in values.items()})


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
