"""Distance of a structure from the training set of a model.

The descriptor of a structure is the density of pair distances around an atom for each pair of
species, smeared by a Gaussian (the radial part of the symmetry functions of Behler and Parrinello,
PRL 98, 146401 (2007)). The distance from a training set is that from the nearest training
structure, in units of the mean distance between nearest training structures.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations_with_replacement

import numpy as np
from ase import Atoms
from matscipy.neighbours import neighbour_list
from scipy.ndimage import gaussian_filter1d
from scipy.spatial.distance import cdist

from schnetpack_phonon.common.properties import element_names

CUTOFF = 5.0  # Ang
_BIN = 0.05  # Ang
_WIDTH = 0.1  # Ang
_MOST = 400  # training structures: more of them hardly change the distance


@dataclass(frozen=True)
class TrainingSet:
    """Descriptors of training structures.

    Attributes:
        species: atomic numbers, in order.
        points: descriptors, shape=(n_structures, n_features).
        scale: mean distance of a training structure from the nearest other one.
    """

    species: tuple[int, ...]
    points: np.ndarray
    scale: float

    def distances(self, structures: Sequence[Atoms]) -> np.ndarray:
        """Distance of each structure, in units of :attr:`scale`, shape=(n_structures,).

        Infinite for structures with a species that the training set does not have.
        """
        found = np.full(len(structures), np.inf)
        for k, atoms in enumerate(structures):
            if {*atoms.numbers.tolist()} <= {*self.species}:
                point = descriptor(atoms, self.species)
                found[k] = cdist([point], self.points).min() / self.scale
        return found


def training_set(structures: Sequence[Atoms]) -> TrainingSet:
    """Descriptors of training structures and their scale.

    Raises:
        ValueError: if there are fewer than two.
    """
    if len(structures) < 2:
        raise ValueError(f"{len(structures)} training structures; a distance needs at least 2")
    step = -(-len(structures) // _MOST)
    chosen = list(structures)[::step]
    species = tuple(sorted({int(z) for atoms in chosen for z in atoms.numbers}))
    points = np.array([descriptor(atoms, species) for atoms in chosen])
    own = cdist(points, points)
    np.fill_diagonal(own, np.inf)
    return TrainingSet(species, points, float(max(own.min(axis=1).mean(), 1e-12)))


def farthest_first(points: np.ndarray, known: np.ndarray) -> list[int]:
    """Order in which each point is the farthest from those before it and from the known ones.

    Args:
        points: shape=(n_points, n_features).
        known: shape=(n_known, n_features), at least one.
    """
    nearest = cdist(points, known).min(axis=1)
    order: list[int] = []
    for _ in range(len(points)):
        order.append(int(nearest.argmax()))
        nearest = np.minimum(nearest, cdist(points, points[order[-1:]])[:, 0])
        nearest[order] = -np.inf
    return order


def descriptor(atoms: Atoms, species: Sequence[int]) -> np.ndarray:
    """Densities of pair distances, concatenated over pairs of species, shape=(n_features,).

    Args:
        atoms: crystal.
        species: atomic numbers; others are left out.
    """
    i, j, distances = neighbour_list("ijd", atoms, CUTOFF)
    edges = np.arange(0, CUTOFF + _BIN, _BIN)
    centres = (edges[:-1] + edges[1:]) / 2
    fade = 0.5 * (np.cos(np.pi * np.minimum(centres / CUTOFF, 1)) + 1)
    low = np.minimum(atoms.numbers[i], atoms.numbers[j])
    high = np.maximum(atoms.numbers[i], atoms.numbers[j])
    parts = []
    for one, other in combinations_with_replacement(sorted(species), 2):
        found = distances[(low == one) & (high == other)]
        density = np.histogram(found, edges)[0] / len(atoms)
        parts.append(fade * gaussian_filter1d(density, _WIDTH / _BIN, mode="constant"))
    return np.concatenate(parts)


def far(name: str, distances: np.ndarray, species: Sequence[int], threshold: float = 2.0) -> str:
    """A warning for structures with a mean distance above ``threshold``, else an empty string.

    Args:
        name: of the structures.
        distances: of :meth:`TrainingSet.distances`.
        species: of the training set.
        threshold: of the mean distance.
    """
    mean = float(np.mean(distances))
    if np.isinf(mean):
        known = element_names(species)
        return f"{name}: contains species that the model was not trained on; it knows {known}"
    text = "times as far from the training structures as these are from each other"
    return f"{name}: {mean:.1f} {text}" if mean > threshold else ""
