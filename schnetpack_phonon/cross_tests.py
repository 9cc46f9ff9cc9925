"""Every model on every test set: predictions of structures that it has not seen.

Leaks are closed structure by structure: what a model was trained or stopped on, the same structure
in another file, and snapshots of the same parent are left out wherever they appear.
"""

from __future__ import annotations

import hashlib
import json
import logging
import warnings
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import hydra
import numpy as np
import pandas as pd
import torch
from ase.data import chemical_symbols
from schnetpack.data.loader import _atoms_collate_fn
from schnetpack.interfaces import AtomsConverter
from schnetpack.model import AtomisticModel
from schnetpack.utils import load_model
from tqdm import tqdm

from schnetpack_phonon.evaluation import predict
from schnetpack_phonon.files import replacing
from schnetpack_phonon.held_out import TestSet, read_test_set, seen
from schnetpack_phonon.properties import PROPERTIES
from schnetpack_phonon.run_groups import ComparisonError, group_runs
from schnetpack_phonon.runs import Run, RunError, read_run

log = logging.getLogger(__name__)

CACHE = "cross_tests"
_BATCH = 16


@dataclass(frozen=True)
class CrossTests:
    """Predictions of several runs on several test sets.

    Attributes:
        runs: a row a run, as :func:`.run_groups.group_runs` gives it.
        predictions: a row a run, structure and property: ``run``, ``test_set``, ``group``,
            ``parameter``, ``structure``, ``digest``, ``property``, ``label``, ``prediction``,
            ``mean`` (of the crystal in the run's training set; of all crystals for one that is
            not there); in the database's units.
        test_sets: name -> file.
        skipped: folder -> reason why it is not among the runs.
        notes: what a reader has to know.
    """

    runs: pd.DataFrame
    predictions: pd.DataFrame
    test_sets: Mapping[str, Path]
    skipped: Mapping[str, str]
    notes: Sequence[str]


def cross_test(folders: Iterable[Path], test_paths: Sequence[Path] = ()) -> CrossTests:
    """Tests all finished runs on all test sets.

    Args:
        folders: of runs; those that are not finished are listed and skipped.
        test_paths: databases or structure files; beside them each run's own database is one.

    Raises:
        ComparisonError: if no run is finished, or where units or calculators differ.
        HeldOutError: if a test set cannot be read.
    """
    runs, skipped = finished(folders)
    paths = dict.fromkeys([*(run.datapath for run in runs), *(p.resolve() for p in test_paths)])
    sets = _named_apart({path: read_test_set(path) for path in paths})
    table, notes = group_runs(runs, sets)
    tables = []
    progress = tqdm(total=len(runs) * len(sets), desc="cross tests", disable=None)
    for test_set in sets.values():
        batches: dict[str, list[dict[str, torch.Tensor]]] = {}
        for run in runs:
            own = sets[run.datapath]
            found = _predictions(run, test_set, batches)
            index = np.concatenate([run.train_idx, run.val_idx])
            found = found[~seen(own, index, test_set)[found["index"]]]
            rows = test_set.rows.loc[found["index"]].reset_index(drop=True)
            kept = ["group", "parameter", "structure", "digest"]
            found = pd.concat([found.reset_index(drop=True), rows[kept]], axis=1)
            found["mean"] = _means(run, own, found)
            tables.append(found.assign(run=str(run.folder), test_set=test_set.name))
            notes += _foreign_species(run, own, test_set)
            progress.update()
    progress.close()
    predictions = pd.concat(tables, ignore_index=True)
    names = {test_set.name: path for path, test_set in sets.items()}
    return CrossTests(
        table, predictions.drop(columns="index"), names, skipped, tuple(dict.fromkeys(notes))
    )


def finished(folders: Iterable[Path]) -> tuple[list[Run], dict[str, str]]:
    """The finished runs, and the reasons why the others are none.

    Raises:
        ComparisonError: if there is none.
    """
    runs, skipped = [], {}
    for folder in folders:
        try:
            runs.append(read_run(folder))
        except RunError as error:
            skipped[str(folder)] = str(error)
    if not runs:
        reasons = "\n".join(f"  {name}: {why}" for name, why in skipped.items())
        raise ComparisonError(f"no finished run:\n{reasons}")
    return runs, skipped


def batches_of(
    structures: Sequence, transforms: Sequence[torch.nn.Module], labels: pd.DataFrame | None = None
) -> list[dict[str, torch.Tensor]]:
    """Collated structures as a model takes them, with labels beside them.

    Args:
        structures: crystals.
        transforms: of the run's data module.
        labels: a row a structure.
    """
    convert = AtomsConverter(neighbor_list=None, transforms=list(transforms), dtype=torch.float32)
    batches = []
    for first in range(0, len(structures), _BATCH):
        items = []
        for k in range(first, min(first + _BATCH, len(structures))):
            item = convert(structures[k])
            item = {key: value for key, value in item.items() if key != "_idx_m"}
            item["_idx"] = torch.tensor([k])
            if labels is not None:
                own = labels.iloc[k].to_dict()
                item |= {str(key): torch.tensor([v], dtype=torch.float64) for key, v in own.items()}
            items.append(item)
        batches.append(_atoms_collate_fn(items))
    return batches


def transforms_of(run: Run) -> list[torch.nn.Module]:
    """The transforms of a run's data module, made anew."""
    chosen = run.resolved("data.test_transforms") or run.resolved("data.transforms", [])
    return [hydra.utils.instantiate(one) for one in chosen]


def load_run_model(run: Run) -> AtomisticModel:
    """The trained model: a pickle, so of runs that one trusts."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*weights_only=False", category=FutureWarning)
        return load_model(str(run.model), device="cpu").eval()


def _predictions(
    run: Run, test_set: TestSet, batches: dict[str, list[dict[str, torch.Tensor]]]
) -> pd.DataFrame:
    """``index``, ``property``, ``label``, ``prediction``; kept in the run's folder."""
    targets = {k: v for k, v in run.targets.items() if v in test_set.labels and _is_scalar(v)}
    stat = run.model.stat()
    digest = hashlib.sha256(
        json.dumps([targets, stat.st_size, stat.st_mtime_ns]).encode()
        + "".join(test_set.rows["digest"]).encode()
        + test_set.labels.to_csv().encode()
    )
    cache = run.folder / CACHE / f"{digest.hexdigest()[:16]}.csv"
    if cache.is_file():
        return pd.read_csv(cache)
    if targets:
        key = str(run.resolved("data.transforms"))
        if key not in batches:
            batches[key] = batches_of(test_set.atoms, transforms_of(run), test_set.labels)
        model = load_run_model(run)
        found = predict(model, batches[key], targets)
    else:
        found = pd.DataFrame(columns=["index", "property", "label", "prediction"])
    found["property"] = found["property"].map(targets)
    try:
        cache.parent.mkdir(exist_ok=True)
        with replacing(cache) as part:
            found.to_csv(part, index=False)
    except OSError as error:  # somebody else's runs: nothing is lost but time
        log.info("cannot keep predictions in %s: %s", cache.parent, error.strerror)
    return found


def _named_apart(sets: dict[Path, TestSet]) -> dict[Path, TestSet]:
    """Test sets of one ensemble are told by their files, too."""
    names = [one.name for one in sets.values()]
    return {
        path: replace(one, name=f"{one.name}, {path.stem}") if names.count(one.name) > 1 else one
        for path, one in sets.items()
    }


def _is_scalar(key: str) -> bool:
    return key not in PROPERTIES or not PROPERTIES[key].shape


def _means(run: Run, own: TestSet, found: pd.DataFrame) -> pd.Series:
    """What predicting the mean of the training set would give."""
    train = own.labels.iloc[run.train_idx]
    crystal = own.rows["structure"].iloc[run.train_idx]
    by_crystal = train.groupby(crystal.to_numpy()).mean()
    overall = train.mean()
    known = by_crystal.stack()
    pairs = pd.MultiIndex.from_frame(found[["structure", "property"]])
    values = known.reindex(pairs).to_numpy()
    rest = found["property"].map(overall).to_numpy()
    return pd.Series(np.where(np.isnan(values), rest, values), index=found.index)


def _foreign_species(run: Run, own: TestSet, test_set: TestSet) -> list[str]:
    known = {int(z) for k in run.train_idx for z in np.unique(own.atoms[k].numbers)}
    foreign = {int(z) for atoms in test_set.atoms for z in np.unique(atoms.numbers)} - known
    if not foreign:
        return []
    names = ", ".join(chemical_symbols[z] for z in sorted(foreign))
    return [f"{run.name} was never trained on {names}, which {test_set.name} holds: do not believe"]
