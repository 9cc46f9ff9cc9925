"""Folders of graphs, made once from a database and found again by what they were made of.

A folder is named by a digest of the database's bytes, of what is read from it and in which units,
of the settings and sources of the transforms, and of the versions of the libraries that they use.
It is written aside and moved into place when it is complete. Each time one is opened, some of its
structures are compared with what the transforms make of the database now.
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


_WORKERS_PAY = 2000  # structures; fewer are made sooner than workers have started


def open_graphs(
    dataset: ASEAtomsData,
    transforms: Sequence[nn.Module],
    folder: Path,
    memory_budget: float,
    n_workers: int,
) -> tuple[Graphs, list[nn.Module]]:
    """All structures of a database after their transforms, and the transforms that remain.

    What is repeatable among the first transforms is kept; from the first that is not on, they
    remain to be applied to each structure each time. Random states stay as they are.

    Args:
        dataset: of the host, or a subset of one: all of its database is meant.
        transforms: initialised, in order.
        folder: of folders of graphs.
        memory_budget: bytes; what is larger is read for each batch.
        n_workers: processes that make graphs that are not there yet.

    Raises:
        DifferentGraphsError: if structures cannot be put together.
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
    with locked(target, f"waiting for another process that makes {target}"):
        graphs = _load(target, memory_budget, chosen, probes)
        if graphs is None:
            _make(target, _Rows(dataset, kept), n_workers)
            graphs = Graphs.load(target, memory_budget)
    log.info(
        "%d structures, %.2f GB: %s",
        len(graphs),
        graphs.n_bytes / 1e9,
        "in memory"
        if graphs.in_memory
        else "larger than the memory budget, in part read for each batch",
    )
    return graphs, rest


class _Rows(Dataset):
    """A whole database in parts of many structures at a time, packed."""

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
    if not same:
        log.warning("%s does not hold what the transforms give now; made again", target)
        return None
    return graphs


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
            collate_fn=_as_it_is,
            generator=torch.Generator(),  # of its own: the global one decides on the order later
        )
    )


def _as_it_is(part: object) -> object:
    return part
