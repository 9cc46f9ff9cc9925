"""Loaders that cut batches from graphs in memory, in the order of SchNetPack's loaders."""

from __future__ import annotations

import atexit
import logging
import os
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import loky
import torch
from pytorch_lightning import Trainer
from schnetpack.data import ASEAtomsData, AtomsLoader
from schnetpack.data.loader import _atoms_collate_fn
from torch import nn
from torch.utils.data import Dataset, DistributedSampler

from schnetpack_phonon.common.errors import check_at_least
from schnetpack_phonon.common.files import advice
from schnetpack_phonon.data.loading.graph_cache import open_graphs, unchanged
from schnetpack_phonon.data.loading.graphs import Graphs, Item

log = logging.getLogger(__name__)


class GraphLoading:
    """Keeps the graphs of a database, so that neighbour lists are made once.

    Args:
        cache: folder for graphs on the disk, shared by runs; if deleted, it is made again.
        memory_budget: GiB; graphs that take more are read from the cache batch by batch.
        on_device: keep graphs on the device of the model. Batches are then made there, also for
            callbacks.
        n_workers: processes that make graphs; all usable cores by default.
    """

    def __init__(
        self,
        cache: str,
        memory_budget: float = 8.0,
        on_device: bool = False,
        n_workers: int | None = None,
    ):
        check_at_least(0, "GiB", **{"data.loading.memory_budget": memory_budget})
        self.cache = Path(cache)
        self.memory_budget = memory_budget
        self.on_device = on_device
        self.n_workers = loky.cpu_count() if n_workers is None else n_workers

    def open(self, dataset: ASEAtomsData, transforms: Sequence[nn.Module]) -> GraphDataset:
        """All structures of the dataset's database, transformed.

        Raises:
            DifferentGraphsError: if structures cannot form batches.
        """
        budget = self.memory_budget * 2**30
        try:
            opened = open_graphs(dataset, transforms, self.cache, budget, self.n_workers)
        except OSError as error:
            log.warning(
                "cannot keep graphs in %s (%s); made for this run only. To make them once: %s",
                self.cache,
                error,
                advice(error, "data.loading.cache"),
            )
            place = Path(tempfile.mkdtemp())
            atexit.register(shutil.rmtree, place, ignore_errors=True)
            opened = open_graphs(dataset, transforms, place, budget, self.n_workers)
        return GraphDataset(*opened, range(len(opened[0])))

    def loader(
        self,
        graphs: GraphDataset,
        trainer: Trainer | None,
        pin_memory: bool,
        num_workers: int,
        batch_size: int,
        **kwargs: Any,
    ) -> AtomsLoader:
        """SchNetPack's loader, with batches cut from graphs.

        Args:
            graphs: to be loaded.
            trainer: that uses the loader, if any.
            pin_memory: whether batches that are not on the device are in pinned memory.
            num_workers: processes that apply the remaining transforms or read files; without such
                work none are started.
            batch_size: structures.
            kwargs: of SchNetPack's loader.
        """
        root = torch.device("cpu") if trainer is None else trainer.strategy.root_device
        if self.on_device and not graphs.transforms:
            graphs = graphs.to(root)
        if trainer is not None and trainer.world_size > 1 and "batch_sampler" not in kwargs:
            shuffle = kwargs.pop("shuffle", False)
            kwargs["sampler"] = Shares(graphs, trainer, batch_size, shuffle)
        on_host = not (self.on_device and graphs.graphs.in_memory and not graphs.transforms)
        busy = bool(graphs.transforms) or not graphs.graphs.in_memory
        return AtomsLoader(
            graphs,
            batch_size=batch_size,
            collate_fn=unchanged,
            num_workers=num_workers if busy else 0,
            pin_memory=(pin_memory or root.type == "cuda") and on_host,
            **kwargs,
        )


class GraphDataset(Dataset):
    """Some structures of graphs, with the transforms that are applied to each every time.

    Several structures at once are a batch as SchNetPack's collate function makes it.
    """

    def __init__(self, graphs: Graphs, transforms: Sequence[nn.Module], numbers: Sequence[int]):
        self.graphs = graphs
        self.transforms = transforms
        self.numbers = numbers

    def __len__(self) -> int:
        return len(self.numbers)

    def __getitem__(self, position: int) -> Item:
        item = self.graphs.item(self.numbers[position])
        for transform in self.transforms:
            item = transform(item)
        return item

    def __getitems__(self, positions: Sequence[int]) -> Item:
        if self.transforms:
            return _atoms_collate_fn([self[position] for position in positions])
        return self.graphs.batch([self.numbers[position] for position in positions])

    def subset(self, positions: Sequence[int]) -> GraphDataset:
        numbers = [self.numbers[position] for position in positions]
        return GraphDataset(self.graphs, self.transforms, numbers)

    def to(self, device: torch.device) -> GraphDataset:
        return GraphDataset(self.graphs.to(device), self.transforms, self.numbers)


class Shares(DistributedSampler):
    """The structures of one of several processes, in Lightning's order.

    Each structure belongs to one process, where Lightning repeats some so that all processes have
    equally many. Only if the last step would leave a process without a structure are some repeated
    here, too, since all processes must take equally many steps.

    Args:
        dataset: all structures.
        trainer: knows the processes.
        batch_size: of each process.
        shuffle: whether the order differs by epoch.
    """

    def __init__(self, dataset: Dataset, trainer: Trainer, batch_size: int, shuffle: bool):
        seed = int(os.environ.get("PL_GLOBAL_SEED", 0))  # as Lightning takes it
        super().__init__(dataset, trainer.world_size, trainer.global_rank, shuffle, seed)
        n: int = len(dataset)  # type: ignore[arg-type]
        left = n % (trainer.world_size * batch_size)
        filled_up = 0 < left < trainer.world_size
        unequal = len(range(trainer.global_rank, n, trainer.world_size))
        self.size = self.num_samples if filled_up else unequal

    def __iter__(self) -> Iterator[int]:
        return islice(super().__iter__(), self.size)

    def __len__(self) -> int:
        return self.size
