"""Random displacements of each atom, independent of all others."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from scipy.special import ndtri

from schnetpack_phonon.common.errors import check_choice
from schnetpack_phonon.ensembles.base import Source, ideal_of
from schnetpack_phonon.ensembles.sampler import Sampler
from schnetpack_phonon.phonons.modes import Operator
from schnetpack_phonon.structures.crystals import shortest_distance

# Variance of each distribution is the square of the amplitude divided by this.
_DIVISORS = {"uniform": 3, "one_sided": 12, "gaussian": 1}


class RandomEnsemble(Sampler):
    """Independent displacements of all atoms in all directions: the usual control.

    Args:
        amplitudes: in Ang.
        distribution: ``uniform`` on [-amplitude, amplitude]; ``one_sided`` on [0, amplitude] as
            published (Benitez et al., arXiv:2511.15222), which after removal of the rigid shift
            has half the amplitude; ``gaussian`` with the amplitude as standard deviation. Compare
            ensembles by their standard deviation: amplitude / sqrt(3), amplitude / sqrt(12) and
            the amplitude itself.
        options: of :class:`.Sampler`.
    """

    kind = "random"
    setting_names = (*Sampler.setting_names, "distribution")
    parameter_name = "amplitude"
    parameter_unit = "Å"

    def __init__(
        self, amplitudes: Sequence[float], distribution: str = "one_sided", **options: Any
    ):
        super().__init__(amplitudes, **options)
        if wrong := [a for a in self.parameters if not 0 < a < np.inf]:
            raise ValueError(f"amplitude is {wrong[0]} Ang; expected > 0")
        check_choice(_DIVISORS, distribution=distribution)
        self.distribution = distribution

    def temperature(self, parameter: float) -> None:
        return None

    def _random(self, stream: np.random.Generator, n_atoms: int, parameter: float) -> np.ndarray:
        if self.distribution == "gaussian":
            return parameter * stream.standard_normal(3 * n_atoms)
        return stream.uniform(self._low(parameter), parameter, 3 * n_atoms)

    def _from_unit_cube(self, points: np.ndarray, parameter: float) -> np.ndarray:
        if self.distribution == "gaussian":
            return parameter * ndtri(points)
        low = self._low(parameter)
        return low + (parameter - low) * points

    def _low(self, parameter: float) -> float:
        return 0.0 if self.distribution == "one_sided" else -parameter

    def _family(self, parameter: float) -> str:
        # Without a prefix: labels of one-sided displacements are part of the package.
        name = super()._family(parameter)
        return name if self.distribution == "one_sided" else f"{self.distribution} {name}"

    def mean_square_displacements(self, source: Source, parameter: float) -> np.ndarray:
        variance, n_atoms = parameter**2 / _DIVISORS[self.distribution], len(ideal_of(source))
        return np.full(n_atoms, variance * (1 - 1 / n_atoms))  # the centre is kept

    def _displacer(self, source: Source, parameter: float) -> Operator:
        limit = shortest_distance(source) / 2
        reach = parameter / 2 if self.distribution == "one_sided" else parameter
        if reach > limit:
            raise ValueError(
                f"data.ensemble.amplitudes has {parameter:g} Ang ({self.distribution}), which moves"
                f" atoms by {reach:g} Ang, more than half the shortest distance ({limit:.2f} Ang)"
            )
        return lambda displacements: displacements
