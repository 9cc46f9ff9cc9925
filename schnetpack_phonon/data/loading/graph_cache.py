"""Folders of graphs, made once from a database and found again by what they were made from.

The name of a folder is a digest of the bytes of the database, of what is read from it and in which
units, of settings and source code of the transforms, and of the versions of their libraries. A
folder is made under another name and renamed when it is complete. Each time one is opened, some of
its structures are compared with what the transforms make of the database now.
"""

from __future__ import annotations

import copy
import json
import logging
import shutil
import time
from collections.abc import Iterator, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from schnetpack.data import ASEAtomsData
from torch import nn
from torch.utils.data import DataLoader, Dataset

from schnetpack_phonon.common.digests import file_digest, hash_of
from schnetpack_phonon.common.files import locked, sync_folder
from schnetpack_phonon.data.loading.determinism import (
    Item,
    random_states,
    repeatable_prefix,
    same_items,
    settings_of,
)
from schnetpack_phonon.data.loading.graphs import DamagedGraphsError, Graphs, pack, write

log = logging.getLogger(__name__)

FORMAT_VERSION = 1
_LIBRARIES = ("schnetpack", "torch", "numpy", "ase", "matscipy")
_N_PROBES = 8
_PART = 128  # structures that a worker reads at a time
_WORKERS_PAY = 2000  # structures; fewer are made before workers have started


def open_graphs(
    dataset: ASEAtomsData,
    transforms: Sequence[nn.Module],
    folder: Path,
    memory_budget: float,
    n_workers: int,
) -> tuple[Graphs, list[nn.Module]]:
    """All structures of a database after their transforms, and the transforms that remain.

    Results of repeatable transforms are kept. The first that is not repeatable and all after it
    remain to be applied to each structure each time. Random states stay as they are.

    Args:
        dataset: of SchNetPack; of a subset all of the database is taken.
        transforms: initialised, in order.
        folder: holds the folders of graphs.
        memory_budget: bytes; what is larger is read for each batch.
        n_workers: processes that make graphs that do not exist yet.

    Raises:
        DifferentGraphsError: if structures cannot form batches.
        OSError: if the folder cannot be written.
    """
    rows = _Rows(dataset, [])
    chosen = sorted({int(k) for k in np.linspace(0, len(rows) - 1, _N_PROBES)})
    n_kept, probes, why = repeatable_prefix(transforms, rows.items(chosen))
    kept, rest = list(transforms[:n_kept]), list(transforms[n_kept:])
    if rest:
        names = ", ".join(type(transform).__name__ for transform in rest)
        log.info("%s: applied to each structure each time: %s", why, names)
    target = folder / _digest(dataset, kept)
    folder.mkdir(parents=True, exist_ok=True)
    with locked(target, f"waiting for another process, which makes {target}"):
        graphs = _load(target, memory_budget, chosen, probes)
        if graphs is None:
            _make(target, _Rows(dataset, kept), n_workers)
            graphs = Graphs.load(target, memory_budget)
    place = "in memory" if graphs.in_memory else "above the memory budget, read for each batch"
    log.info("%d structures, %.2f GB: %s", len(graphs), graphs.n_bytes / 1e9, place)
    return graphs, rest


class _Rows(Dataset):
    """A whole database, read in packed parts of many structures."""

    def __init__(self, dataset: ASEAtomsData, transforms: Sequence[nn.Module]):
        self.dataset = copy.copy(dataset)
        self.dataset.subset_idx = None
        self.dataset.transforms = transforms

    def __len__(self) -> int:
        return len(self.dataset)

    def items(self, numbers: Sequence[int]) -> list[Item]:
        with self.dataset.conn:  # opened once for all of them
            return [self.dataset[number] for number in numbers]

    def __getitems__(self, numbers: Sequence[int]) -> tuple[Item, dict[str, np.ndarray]]:
        return pack(self.items(numbers))


def _digest(dataset: ASEAtomsData, transforms: Sequence[nn.Module]) -> str:
    units = [dataset.conversions[key] for key in dataset.load_properties]
    settings = [
        FORMAT_VERSION,
        file_digest(dataset.datapath),
        [version(library) for library in _LIBRARIES],
        list(dataset.load_properties),
        [*units, dataset.distance_conversion],
        [settings_of(transform) for transform in transforms],
    ]
    return hash_of(json.dumps(settings))[:32]


def _load(
    target: Path, memory_budget: float, numbers: Sequence[int], items: Sequence[Item]
) -> Graphs | None:
    if not target.is_dir():
        return None
    try:
        graphs = Graphs.load(target, memory_budget)
        same = all(same_items(graphs.item(k), item) for k, item in zip(numbers, items, strict=True))
    except (DamagedGraphsError, IndexError) as error:
        log.warning("%s; made again", error)
        return None
    if same:
        return graphs
    log.warning("%s does not hold what the transforms give now; made again", target)
    return None


def _make(target: Path, rows: _Rows, n_workers: int) -> None:
    start = time.perf_counter()
    part = target.with_name(f".{target.name}.part")
    shutil.rmtree(part, ignore_errors=True)
    part.mkdir()
    try:
        with random_states():
            write(part, _parts(rows, n_workers if len(rows) >= _WORKERS_PAY else 0))
        shutil.rmtree(target, ignore_errors=True)
        part.replace(target)
        sync_folder(target.parent)
    finally:
        shutil.rmtree(part, ignore_errors=True)
    log.info("%d neighbour lists in %.1f s: %s", len(rows), time.perf_counter() - start, target)


def _parts(rows: _Rows, n_workers: int) -> Iterator[tuple[Item, dict[str, np.ndarray]]]:
    return iter(
        DataLoader(
            rows,
            batch_size=_PART,
            num_workers=n_workers,
            collate_fn=unchanged,
            generator=torch.Generator(),  # the global one must not change: it shuffles later
        )
    )


def unchanged(part: Any) -> Any:
    """A collate function for parts and batches that are whole already."""
    return part
