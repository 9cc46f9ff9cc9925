"""TODO: describe."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from scipy.special import ndtri

from schnetpack_phonon.ensembles.base import Source, ideal_of
from schnetpack_phonon.ensembles.sampler import Sampler
from schnetpack_phonon.phonons.harmonic import shortest_distance
from schnetpack_phonon.phonons.modes import Operator


class RandomEnsemble(Sampler):
    """Independent displacements of every atom and direction: the usual control.

    Args:
        amplitudes: in Ang.
        distribution: ``uniform`` on [-amplitude, amplitude]; ``one_sided`` on [0, amplitude] as
            published (Benitez et al., arXiv:2511.15222), which is a rigid shift, that is removed,
            and half the amplitude; ``gaussian`` with the amplitude as standard deviation. Compare
            ensembles by their standard deviation: amplitude / sqrt(3), amplitude / sqrt(12) and
            the amplitude itself.
        options: of :class:`.Sampler`.
    """

    kind = "random"
    parameter_name = "amplitude"
    parameter_unit = "Å"

    def __init__(
        self, amplitudes: Sequence[float], distribution: str = "one_sided", **options: Any
    ):
        super().__init__(amplitudes, **options)
        if wrong := [a for a in self.parameters if not 0 < a < np.inf]:
            raise ValueError(f"amplitude is {wrong[0]} Ang; expected > 0")
        if distribution not in ("uniform", "one_sided", "gaussian"):
            raise ValueError(
                f"unknown distribution {distribution!r}; there are uniform, one_sided, gaussian"
            )
        self.distribution = distribution

    @property
    def settings(self) -> dict[str, Any]:
        return {**super().settings, "distribution": self.distribution}

    def temperature(self, parameter: float) -> None:
        return None

    def _random(self, stream: np.random.Generator, n_atoms: int, parameter: float) -> np.ndarray:
        if self.distribution == "gaussian":
            return parameter * stream.standard_normal(3 * n_atoms)
        low = 0.0 if self.distribution == "one_sided" else -parameter
        return stream.uniform(low, parameter, 3 * n_atoms)

    def _from_unit_cube(self, points: np.ndarray, parameter: float) -> np.ndarray:
        if self.distribution == "gaussian":
            return parameter * ndtri(points)
        low = 0.0 if self.distribution == "one_sided" else -parameter
        return low + (parameter - low) * points

    def _family(self, parameter: float) -> str:
        # The one-sided ones came first, and labels of them ship.
        name = super()._family(parameter)
        return name if self.distribution == "one_sided" else f"{self.distribution} {name}"

    def mean_square_displacements(self, source: Source, parameter: float) -> np.ndarray:
        share = {"uniform": 3, "one_sided": 12, "gaussian": 1}[self.distribution]
        n_atoms = len(ideal_of(source))
        # The centre is held: one part in n_atoms less.
        return np.full(n_atoms, parameter**2 / share * (1 - 1 / n_atoms))

    def _displacer(self, source: Source, parameter: float) -> Operator:
        limit = shortest_distance(source) / 2
        reach = parameter / 2 if self.distribution == "one_sided" else parameter
        if reach > limit:
            raise ValueError(
                f"data.ensemble.amplitudes has {parameter:g} Ang ({self.distribution}), which moves"
                f" atoms by {reach:g} Ang, more than half the shortest distance ({limit:.2f} Ang)"
            )
        return lambda displacements: displacements
