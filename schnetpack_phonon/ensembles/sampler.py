"""Base classes of the ensembles with random displacements.

Snapshot ``k`` of a group (one crystal, one temperature or amplitude) is drawn from its own random
stream, so it does not depend on the number of snapshots, their order, or the process.
"""

from __future__ import annotations

import zlib
from abc import abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import count

import numpy as np
from ase import Atoms
from ase.neighborlist import neighbor_list
from scipy.special import ndtri
from scipy.stats import qmc

from schnetpack_phonon.common.errors import check_at_least, check_choice, check_positive
from schnetpack_phonon.common.random import snapshot_streams
from schnetpack_phonon.ensembles.base import SimpleEnsemble, Snapshot, Source, ideal_of
from schnetpack_phonon.phonons.harmonic import HarmonicModel
from schnetpack_phonon.phonons.modes import Operator
from schnetpack_phonon.structures.crystals import Crystal, displaced_positions, shortest_distance

# Snapshots are drawn in whole batches that start at multiples of this, so that the matrix products
# do not depend on the number of snapshots.
BATCH = 64
DRAWS = ("independent", "antithetic", "sobol")


@dataclass(frozen=True)
class Batch:
    """Consecutive snapshots of one group as arrays.

    Attributes:
        first: index of the first.
        positions: in Ang, shape=(n, n_atoms, 3).
        accepted: False if atoms are too close or too far from their sites, shape=(n,).
    """

    first: int
    positions: np.ndarray
    accepted: np.ndarray


class Sampler(SimpleEnsemble):
    """Base of the ensembles with random displacements.

    Args:
        parameters: temperatures or amplitudes.
        n_snapshots: per crystal and parameter.
        seed: of all snapshots.
        draws: ``independent``; ``antithetic`` (every second snapshot has the opposite
            displacements of the one before); ``sobol`` (scrambled Sobol points).
        min_distance: snapshots with two atoms closer than this fraction of the shortest distance
            in the ideal crystal are rejected and counted.
        max_displacement: snapshots with an atom displaced by more, in Ang, are rejected too.
    """

    setting_names: tuple[str, ...] = (
        "n_snapshots",
        "seed",
        "draws",
        "min_distance",
        "max_displacement",
    )

    def __init__(
        self,
        parameters: Sequence[float],
        n_snapshots: int,
        seed: int,
        draws: str = "independent",
        min_distance: float = 0.6,
        max_displacement: float | None = None,
    ):
        if not parameters:
            raise ValueError(f"data.ensemble.{self.parameter_name}s is empty")
        if len(set(parameters)) != len(parameters):
            raise ValueError(f"{self.parameter_name}s repeat a value: {list(parameters)}")
        check_at_least(1, n_snapshots=n_snapshots)
        check_choice(DRAWS, draws=draws)
        if not isinstance(seed, int) or seed < 0:
            raise ValueError(f"data.ensemble.seed is {seed!r}; expected an integer >= 0")
        if not 0 <= min_distance < 1:
            raise ValueError(f"data.ensemble.min_distance is {min_distance}; expected 0 <= x < 1")
        if max_displacement is not None:
            check_positive(max_displacement=max_displacement)
        self.parameters = [float(p) for p in parameters]
        self.n_snapshots = n_snapshots
        self.seed = seed
        self.draws = draws
        self.similar = 2 if draws == "antithetic" else 1
        self.min_distance = float(min_distance)
        self.max_displacement = max_displacement

    @abstractmethod
    def _random(self, stream: np.random.Generator, n_atoms: int, parameter: float) -> np.ndarray:
        """Random numbers of one snapshot, shape=(3 n_atoms,)."""

    @abstractmethod
    def _from_unit_cube(self, points: np.ndarray, parameter: float) -> np.ndarray:
        """The same from points in the open unit cube, shape=(n, 3 n_atoms)."""

    @abstractmethod
    def _displacer(self, source: Source, parameter: float) -> Operator:
        """Function from random numbers to displacements in Ang, both shape=(n, 3 n_atoms)."""

    @abstractmethod
    def mean_square_displacements(self, source: Source, parameter: float) -> np.ndarray:
        """Expected per Cartesian component of each atom in Ang^2, shape=(n_atoms,)."""

    def batches(self, name: str, source: Source, parameter: float) -> Iterator[Batch]:
        """Endless stream of :data:`BATCH` snapshots at a time."""
        ideal = ideal_of(source)
        displaced = self._displacer(source, parameter)
        accept = Acceptance(ideal, self.min_distance, self.max_displacement)
        group = f"{name}/{self._family(parameter)}"
        for first in count(0, BATCH):
            numbers = self._numbers(group, first, len(ideal), parameter)
            u = displaced(numbers).reshape(BATCH, -1, 3)
            if self.draws == "antithetic":
                u = u - u.mean(axis=1, keepdims=True)
                u[1::2] *= -1
            positions = displaced_positions(ideal, u)
            yield Batch(first, positions, accept(positions))

    def _numbers(self, group: str, first: int, n_atoms: int, parameter: float) -> np.ndarray:
        if self.draws == "sobol":
            sequence = np.random.SeedSequence(self.seed, spawn_key=(zlib.crc32(group.encode()),))
            rng = np.random.default_rng(sequence.generate_state(1)[0])
            engine = qmc.Sobol(3 * n_atoms, rng=rng)
            if first:
                engine.fast_forward(first)
            return self._from_unit_cube(_inside(engine.random(BATCH)), parameter)
        pair = 2 if self.draws == "antithetic" else 1
        streams = snapshot_streams(self.seed, group, range(first, first + BATCH, pair))
        numbers = np.array([self._random(stream, n_atoms, parameter) for stream in streams])
        return numbers.repeat(pair, axis=0)

    def snapshots(
        self, crystal: Crystal, source: Source, parameter: float
    ) -> Iterator[Snapshot | None]:
        ideal = ideal_of(source)
        snapshot = self._maker(crystal, source, parameter)
        for batch in self.batches(crystal.name, source, parameter):
            for k, accepted in enumerate(batch.accepted.tolist()):
                index = batch.first + k
                if not accepted:
                    yield None
                    continue
                atoms = ideal.copy()
                atoms.positions = batch.positions[k]
                first = index - index % self.similar
                yield snapshot(atoms, ideal, index, f"{self._family(parameter)}/{first}")

    def _family(self, parameter: float) -> str:
        """Name of the random streams of a group of one crystal."""
        return f"{self.kind}/{float(parameter)!r}"


class NormalSampler(Sampler):
    """Base of the ensembles that are linear in standard normal numbers."""

    def _random(self, stream: np.random.Generator, n_atoms: int, parameter: float) -> np.ndarray:
        return stream.standard_normal(3 * n_atoms)

    def _from_unit_cube(self, points: np.ndarray, parameter: float) -> np.ndarray:
        return ndtri(points)

    @abstractmethod
    def _matrix(self, source: HarmonicModel, parameter: float) -> np.ndarray:
        """A of u = A z in Ang."""

    def _displacer(self, source: HarmonicModel, parameter: float) -> Operator:
        matrix = self._matrix(source, parameter)
        return lambda numbers: numbers @ matrix.T

    def mean_square_displacements(self, source: HarmonicModel, parameter: float) -> np.ndarray:
        return mean_squares(self._matrix(source, parameter))


def mean_squares(matrix: np.ndarray) -> np.ndarray:
    """Mean square per component of u = A z about the geometric centre, shape=(n_atoms,), Ang^2."""
    rows = matrix.reshape(-1, 3, len(matrix))
    return ((rows - rows.mean(axis=0)) ** 2).sum(axis=2).mean(axis=1)


class Acceptance:
    """Which positions keep the atoms apart and close to their sites.

    Args:
        ideal: the undisplaced supercell.
        min_distance: as a fraction of the shortest distance in it.
        max_displacement: of an atom, in Ang.
    """

    def __init__(self, ideal: Atoms, min_distance: float, max_displacement: float | None):
        self.ideal = ideal
        self.limit = min_distance * shortest_distance(ideal)
        self.max_displacement = np.inf if max_displacement is None else max_displacement
        self._cutoff = 0.0
        self._pairs: tuple[np.ndarray, np.ndarray, np.ndarray] | None = None

    def __call__(self, positions: np.ndarray) -> np.ndarray:
        """Args: positions, shape=(n, n_atoms, 3). Returns: shape=(n,)."""
        displacements = np.linalg.norm(positions - self.ideal.positions, axis=2)
        accepted = displacements.max(axis=1) <= self.max_displacement
        if self.limit and np.isfinite(self.limit):
            # Pairs at larger distances in the ideal crystal cannot come below the limit.
            self._find_pairs(self.limit + 2 * displacements.max())
            i, j, vectors = self._pairs  # type: ignore[misc]
            apart = positions[:, j] - positions[:, i] + vectors
            squares = np.einsum("npx,npx->np", apart, apart)
            accepted &= squares.min(axis=1, initial=np.inf) >= self.limit**2
        return accepted

    def _find_pairs(self, cutoff: float) -> None:
        if self._pairs is not None and cutoff <= self._cutoff:
            return
        self._cutoff = 1.2 * cutoff
        i, j, shift = neighbor_list("ijS", self.ideal, self._cutoff)
        once = i < j  # the distance of an atom from its own image is constant
        self._pairs = i[once], j[once], shift[once] @ self.ideal.cell.array


def _inside(points: np.ndarray) -> np.ndarray:
    """Points of [0, 1) clipped, since the normal quantile diverges at 0 and 1."""
    return np.clip(points, 2.0**-32, 1 - 2.0**-32)
