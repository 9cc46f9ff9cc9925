"""Properties of many structures as one table of components: numbers, tensors and forces alike.

A number has one component, a stress nine, and forces three in each of as many rows as there are
atoms.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd

from schnetpack_phonon.common.properties import PROPERTIES


@dataclass(frozen=True)
class Components:
    """Values of one property, those of a structure one below the other.

    Attributes:
        rows: shape=(n_rows, n_components).
        counts: rows of each structure, 0 for those without a value; shape=(n_structures,).
    """

    rows: np.ndarray
    counts: np.ndarray

    @property
    def structure(self) -> np.ndarray:
        """Number of the structure of each row, shape=(n_rows,)."""
        return np.repeat(np.arange(len(self.counts)), self.counts)

    def of(self, structures: np.ndarray) -> Components:
        """Of some structures by number, in the order of ``structures``."""
        starts = np.cumsum(self.counts) - self.counts
        counts = self.counts[structures]
        within = np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts, counts)
        return Components(self.rows[np.repeat(starts[structures], counts) + within], counts)

    def mean(self, rows: np.ndarray) -> np.ndarray:
        """Over each row's values and the structures; NaN where there are none.

        Args:
            rows: any numbers, shape=(n_rows, n_components).
        """
        sums = np.bincount(self.structure, rows.mean(axis=1), minlength=len(self.counts))
        return sums / np.where(self.counts > 0, self.counts, np.nan)

    def largest(self, rows: np.ndarray) -> np.ndarray:
        """As :meth:`mean`, the largest instead."""
        found = np.full(len(self.counts), -np.inf)
        np.maximum.at(found, self.structure, rows.max(axis=1))
        return np.where(self.counts > 0, found, np.nan)


def cell(key: str, value: np.ndarray, n_atoms: int) -> float | np.ndarray:
    """A label of one structure as tables hold it.

    Args:
        key: of the label; one that is not ours is one of atoms if it has a row for each.
        value: as databases hold it.
        n_atoms: of the structure.

    Returns:
        A number, or shape=(n_rows, n_components).
    """
    value = np.asarray(value, float)
    if value.size == 1:
        return value.item()
    of_atoms = "N" in PROPERTIES[key].shape if key in PROPERTIES else len(value) == n_atoms > 1
    return value.reshape(n_atoms if of_atoms else 1, -1)


def stacked(cells: pd.Series) -> Components:
    """A column of :func:`cell`, NaN where a structure has no value."""
    present = cells.notna()
    arrays = [np.atleast_2d(value) for value in cells[present]]
    counts = np.zeros(len(cells), dtype=int)
    counts[present.to_numpy()] = [len(array) for array in arrays]
    return Components(np.concatenate(arrays) if arrays else np.empty((0, 1)), counts)
