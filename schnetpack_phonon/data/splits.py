"""Train / validation / test partitions that never share a parent; epochs of fixed size."""

from __future__ import annotations

from collections.abc import Sequence, Sized
from typing import Any

import numpy as np
from schnetpack.data import ASEAtomsData, SplittingStrategy
from torch.utils.data import RandomSampler

from schnetpack_phonon.data.reading import read_rows


class ParentSplit(SplittingStrategy):
    """Random split of parents; all snapshots of a parent are in the same partition.

    Replaces SchNetPack's ``splitting``. Partitions are filled in order and may be smaller than
    requested, by less than one parent.

    Args:
        seed: of the permutation.
        key: key-value pair of the database rows that names the parent.
    """

    def __init__(self, seed: int, key: str = "parent"):
        super().__init__()
        self.seed = seed
        self.key = key

    def split(self, dataset: ASEAtomsData, *split_sizes: float | None) -> list[list[int]]:
        """Partitions as lists of indices.

        Args:
            dataset: of a whole database, not a subset.
            split_sizes: as for :func:`numbers_of`.

        Raises:
            ValueError: if rows have no parent, or the sizes cannot be met.
        """
        return self.split_parents(self._parents(dataset), *split_sizes)

    def split_parents(self, parents: Sequence[Any], *split_sizes: float | None) -> list[list[int]]:
        """Partitions of structures with these parents, as :meth:`split` makes them.

        Raises:
            ValueError: if the sizes cannot be met.
        """
        sizes = numbers_of(len(parents), split_sizes)
        return _fill(_shuffled(_members(parents), self.seed), sizes)[0]

    def _parents(self, dataset: ASEAtomsData) -> list[Any]:
        rows = read_rows(dataset.datapath, data=False)
        parents = [row.key_value_pairs.get(self.key) for row in rows]
        if None in parents:
            raise ValueError(
                f"row {parents.index(None)} of {dataset.datapath} has no key-value pair "
                f"{self.key!r}: rows of one parent cannot be kept together"
            )
        return parents


class NestedSplit(ParentSplit):
    """Split for learning curves: one test set for all, small training sets within large ones.

    The last partition, the test set, depends on ``test_seed`` alone; the one before it, for
    validation, and the order in which the first is filled depend on ``seed``.

    Args:
        seed: of validation and training sets.
        test_seed: of the test set.
        key: key-value pair of the database rows that names the parent.
    """

    def __init__(self, seed: int, test_seed: int = 0, key: str = "parent"):
        super().__init__(seed, key)
        self.test_seed = test_seed

    def split_parents(self, parents: Sequence[Any], *split_sizes: float | None) -> list[list[int]]:
        *others, n_test = numbers_of(len(parents), split_sizes)
        (test,), rest = _fill(_shuffled(_members(parents), self.test_seed), [n_test])
        found, _ = _fill(_shuffled(rest, self.seed), others[::-1])
        return [*found[::-1], test]


def numbers_of(total: int, sizes: Sequence[float | None]) -> list[int]:
    """Numbers of structures in partitions.

    Args:
        total: number of all structures.
        sizes: numbers, as integers, or shares of all, as floats up to 1.0; one may be None and
            takes the rest.

    Raises:
        ValueError: for other sizes, or if they do not add up.
    """
    for size in sizes:
        if isinstance(size, float) and not 0 <= size <= 1:
            raise ValueError(
                f"a partition of {size} structures; expected a number of structures as an integer, "
                "or a share of all between 0.0 and 1.0"
            )
    absolute = [int(s * total) if isinstance(s, float) else s for s in sizes]
    rest = total - sum(s for s in absolute if s is not None)
    if rest < 0 or absolute.count(None) > 1:
        raise ValueError(
            f"cannot split {total} structures into {sizes}: expected at most one None, and sizes "
            "that add up to no more than there are"
        )
    return [rest if s is None else s for s in absolute]


def _members(parents: Sequence[Any]) -> list[list[int]]:
    """Indices of the structures of each parent, in the order of the parents' names."""
    _, group = np.unique(np.array(parents), return_inverse=True)
    order = np.argsort(group, kind="stable")
    return [part.tolist() for part in np.split(order, np.bincount(group).cumsum()[:-1])]


def _shuffled(members: list[list[int]], seed: int) -> list[list[int]]:
    order = np.random.default_rng(np.random.SeedSequence(seed)).permutation(len(members))
    return [members[k] for k in order]


def _fill(members: list[list[int]], sizes: list[int]) -> tuple[list[list[int]], list[list[int]]]:
    """Partitions filled with whole parents in order, and the parents that are left."""
    members = list(members)
    n_parents, n_structures = len(members), sum(map(len, members))
    partitions: list[list[int]] = []
    for size in sizes:
        part: list[int] = []
        while members and len(part) + len(members[0]) <= size:
            part += members.pop(0)
        if size and not part:
            raise ValueError(
                f"no parent fits in a partition of {size} structures; there are {n_structures} "
                f"structures of {n_parents} parents for partitions of {sizes}: draw more "
                "snapshots, or change data.num_train, data.num_val and data.num_test (or, of a "
                "trajectory, data.ensemble.frames_per_parent)"
            )
        partitions.append(sorted(part))
    return partitions, members


class EpochSampler(RandomSampler):
    """Epochs of one size whatever the number of training structures.

    Structures come in random order, each as often as the others, give or take one. All models of a
    learning curve thus take equally many optimiser steps, and patience means the same for all.
    A class for SchNetPack's ``train_sampler_cls``.

    Args:
        data_source: training set.
        num_samples: its size, as SchNetPack gives it.
        epoch_size: structures in an epoch.
    """

    def __init__(self, data_source: Sized, num_samples: int, epoch_size: int):
        super().__init__(data_source, num_samples=epoch_size)
