"""What trained models predict for a test set, computed on all cores and kept beside the models.

Work is divided by structures rather than by models: each process builds the graphs of its own
structures once, and asks every model about them.
"""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, as_completed
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import hydra
import loky
import pandas as pd
import torch
from ase import Atoms
from schnetpack.data.loader import _atoms_collate_fn
from schnetpack.interfaces import AtomsConverter
from tqdm import tqdm

from schnetpack_phonon.evaluation import predict
from schnetpack_phonon.executors import process_pool
from schnetpack_phonon.files import replacing
from schnetpack_phonon.held_out import TestSet
from schnetpack_phonon.predict import load_trained
from schnetpack_phonon.properties import PROPERTIES
from schnetpack_phonon.runs import Run

log = logging.getLogger(__name__)

CACHE = "cross_tests"
_BATCH = 8  # larger ones leave the cache of a core, and the kernel clears memory for each
_MOST = 256  # structures of one job, whose graphs are in memory
_FEW = 3000  # predictions that one process makes before others would have started


@dataclass(frozen=True)
class _Model:
    """What a process needs to know of a run.

    Attributes:
        path: a pickle of the host, so of runs that one trusts.
        transforms: of its data module, to be made anew.
        targets: output -> label.
    """

    path: Path
    transforms: tuple[dict[str, Any], ...]
    targets: Mapping[str, str]


def predictions_of(runs: Sequence[Run], test_set: TestSet) -> list[pd.DataFrame]:
    """Scalar predictions of each run's model for all structures of a test set.

    They are kept in the folders of the runs, and read from there as long as neither model nor test
    set changes.

    Returns:
        A table a run: ``index``, ``property``, ``label``, ``prediction``; in the database's units.
    """
    content = "".join(test_set.rows["digest"]) + test_set.labels.to_csv()
    models = [_model(run, test_set) for run in runs]
    caches = [_cache(run, one, content) for run, one in zip(runs, models, strict=True)]
    found = {k: pd.read_csv(cache) for k, cache in enumerate(caches) if cache.is_file()}
    missing = [k for k in range(len(runs)) if k not in found]
    new = _predicted([models[k] for k in missing], test_set)
    for k, table in zip(missing, new, strict=True):
        found[k] = table
        _keep(caches[k], table)
    return [found[k] for k in range(len(runs))]


def _model(run: Run, test_set: TestSet) -> _Model:
    scalar = {
        output: label
        for output, label in run.targets.items()
        if label in test_set.labels and not (label in PROPERTIES and PROPERTIES[label].shape)
    }
    chosen = run.resolved("data.test_transforms") or run.resolved("data.transforms", [])
    return _Model(run.model, tuple(chosen), scalar)


def _cache(run: Run, model: _Model, content: str) -> Path:
    stat = model.path.stat()
    facts = json.dumps([model.targets, stat.st_size, stat.st_mtime_ns])
    digest = hashlib.sha256((facts + content).encode())
    return run.folder / CACHE / f"{digest.hexdigest()[:16]}.csv"


def _keep(cache: Path, table: pd.DataFrame) -> None:
    try:
        cache.parent.mkdir(exist_ok=True)
        with replacing(cache) as part:
            table.to_csv(part, index=False)
    except OSError as error:  # somebody else's runs: nothing is lost but time
        log.info("cannot keep predictions in %s: %s", cache.parent, error.strerror)


def _predicted(models: Sequence[_Model], test_set: TestSet) -> list[pd.DataFrame]:
    """A table a model, from as many processes as are worth their start."""
    if not models:
        return []
    n_structures = len(test_set.atoms)
    n_workers = loky.cpu_count() if len(models) * n_structures > _FEW else 1
    size = min(-(-n_structures // n_workers), _MOST)
    parts = [
        (models, test_set.atoms[k : k + size], test_set.labels[k : k + size], k)
        for k in range(0, n_structures, size)
    ]
    tables: list[list[pd.DataFrame]] = [[] for _ in parts]
    with tqdm(total=len(parts), desc=f"tests on {test_set.name}", disable=None) as progress:
        for k, found in _results(parts, min(n_workers, len(parts))):
            tables[k] = found
            progress.update()
    return [pd.concat(own, ignore_index=True) for own in zip(*tables, strict=True)]


def _results(parts: Sequence[tuple], n_workers: int) -> Iterator[tuple[int, list[pd.DataFrame]]]:
    """Number and result of each part, as they come."""
    if n_workers == 1:
        yield from ((k, _ask(*part)) for k, part in enumerate(parts))
        return
    with process_pool(n_workers) as pool:
        running: dict[Future, int] = {pool.submit(_ask, *p): k for k, p in enumerate(parts)}
        yield from ((running[future], future.result()) for future in as_completed(running))


def _ask(
    models: Iterable[_Model], atoms: Sequence[Atoms], labels: pd.DataFrame, first: int
) -> list[pd.DataFrame]:
    """Predictions of each model for a part of a test set that begins at row ``first``."""
    batches: dict[str, list[dict[str, torch.Tensor]]] = {}
    tables = []
    for one in models:
        if not one.targets:
            tables.append(pd.DataFrame(columns=["index", "property", "label", "prediction"]))
            continue
        key = str(one.transforms)
        if key not in batches:
            batches[key] = _batches(atoms, one.transforms, labels, first)
        found = predict(load_trained(one.path), batches[key], one.targets)
        found["property"] = found["property"].map(one.targets)
        tables.append(found)
    return tables


def _batches(
    atoms: Sequence[Atoms],
    transforms: Iterable[dict[str, Any]],
    labels: pd.DataFrame,
    first: int,
) -> list[dict[str, torch.Tensor]]:
    """Collated structures as a model takes them, with labels beside them."""
    made = [hydra.utils.instantiate(one) for one in transforms]
    convert = AtomsConverter(neighbor_list=None, transforms=made, dtype=torch.float32)
    items = []
    for k, (structure, own) in enumerate(zip(atoms, labels.to_dict("records"), strict=True)):
        item = {key: value for key, value in convert(structure).items() if key != "_idx_m"}
        item["_idx"] = torch.tensor([first + k])
        item |= {str(key): torch.tensor([v], dtype=torch.float64) for key, v in own.items()}
        items.append(item)
    return [_atoms_collate_fn(items[k : k + _BATCH]) for k in range(0, len(items), _BATCH)]
