"""Train / validation / test partitions that never share a parent."""

from __future__ import annotations

import numpy as np
from schnetpack.data import ASEAtomsData, SplittingStrategy


class ParentSplit(SplittingStrategy):
    """Random split of parents; all snapshots of a parent go to the same side.

    A drop-in for the host's ``splitting``. Partitions are filled in order and may come out
    smaller than asked for, by less than one parent.

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
            dataset: whole host dataset, not a subset.
            split_sizes: numbers of structures (>= 1) or shares (< 1); one may be None and
                takes the rest.

        Raises:
            ValueError: if rows have no parent, or the sizes cannot be met.
        """
        rows = dataset.conn.select(include_data=False)
        parents = [row.key_value_pairs.get(self.key) for row in rows]
        if None in parents:
            raise ValueError(
                f"row {parents.index(None)} of {dataset.datapath} has no key-value pair "
                f"{self.key!r}: rows of one parent cannot be kept together"
            )
        names, group = np.unique(parents, return_inverse=True)
        order = np.random.default_rng(np.random.SeedSequence(self.seed)).permutation(len(names))
        members = [np.flatnonzero(group == parent).tolist() for parent in order]
        partitions: list[list[int]] = []
        for size in _absolute(len(parents), split_sizes):
            part: list[int] = []
            while members and len(part) + len(members[0]) <= size:
                part += members.pop(0)
            if size and not part:
                raise ValueError(
                    f"no parent fits in a partition of {size} structures; there are "
                    f"{len(parents)} structures of {len(names)} parents, asked for {split_sizes}"
                )
            partitions.append(sorted(part))
        return partitions


def _absolute(total: int, sizes: tuple[float | None, ...]) -> list[int]:
    absolute = [s if s is None else int(s * total) if 0 < s < 1 else int(s) for s in sizes]
    rest = total - sum(s for s in absolute if s is not None)
    if rest < 0 or absolute.count(None) > 1:
        raise ValueError(
            f"cannot split {total} structures into {sizes}: expected at most one None, and sizes "
            "that add up to no more than there are"
        )
    return [rest if s is None else s for s in absolute]
