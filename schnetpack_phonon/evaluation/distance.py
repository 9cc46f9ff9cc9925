"""How far a structure lies from those that a model was trained on.

A structure is described by its pair distances: for each pair of species the density of distances
around an atom, smeared by a Gaussian (the radial part of the symmetry functions of Behler and
Parrinello, PRL 98, 146401 (2007)). Its distance from a training set is that from the nearest
training structure, in units of how far training structures lie from each other.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations_with_replacement

import numpy as np
from ase import Atoms
from ase.data import chemical_symbols
from matscipy.neighbours import neighbour_list
from scipy.ndimage import gaussian_filter1d
from scipy.spatial.distance import cdist

CUTOFF = 5.0  # Ang


_BIN = 0.05  # Ang


_WIDTH = 0.1  # Ang


_MOST = 400  # training structures: more of them change the distance by little


@dataclass(frozen=True)
class TrainingSet:
    """Where training structures lie.

    Attributes:
        species: atomic numbers, in order.
        points: descriptors, shape=(n_structures, n_features).
        scale: mean distance of a training structure from the nearest other one.
    """

    species: tuple[int, ...]
    points: np.ndarray
    scale: float

    def distances(self, structures: Sequence[Atoms]) -> np.ndarray:
        """Distance of each structure; 1 is that between training structures.

        Infinite for structures with a species that the training set does not have.
        """
        found = np.full(len(structures), np.inf)
        known = [
            k for k, atoms in enumerate(structures) if {*atoms.numbers.tolist()} <= {*self.species}
        ]
        if known:
            points = np.array([descriptor(structures[k], self.species) for k in known])
            found[known] = cdist(points, self.points).min(axis=1) / self.scale
        return found


def training_set(structures: Sequence[Atoms]) -> TrainingSet:
    """Describes training structures.

    Raises:
        ValueError: if there are fewer than two.
    """
    if len(structures) < 2:
        raise ValueError(
            f"{len(structures)} training structures; distances need at least 2 as a scale"
        )
    step = -(-len(structures) // _MOST)
    chosen = list(structures)[::step]
    species = tuple(sorted({int(z) for atoms in chosen for z in atoms.numbers}))
    points = np.array([descriptor(atoms, species) for atoms in chosen])
    own = cdist(points, points)
    np.fill_diagonal(own, np.inf)
    return TrainingSet(species, points, float(max(own.min(axis=1).mean(), 1e-12)))


def descriptor(atoms: Atoms, species: Sequence[int]) -> np.ndarray:
    """Densities of pair distances, all pairs of species one after the other.

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
    """A warning for structures beyond ``threshold``, or nothing.

    Args:
        name: of the structures.
        distances: as :meth:`TrainingSet.distances` gives them.
        species: of the training set.
        threshold: of the mean distance.
    """
    mean = float(np.mean(distances))
    if np.isinf(mean):
        known = ", ".join(chemical_symbols[z] for z in species)
        return f"{name}: holds species that the model was never trained on; it knows {known}"
    if mean <= threshold:
        return ""
    return (
        f"{name}: {mean:.1f} times as far from the training structures as these are from each other"
    )
