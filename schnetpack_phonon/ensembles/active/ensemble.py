"""What a potential is taught with, round after round."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from typing import Any

from schnetpack_phonon.calculators.base import LabellingCalculator
from schnetpack_phonon.common.errors import check_at_least, check_positive
from schnetpack_phonon.ensembles.active.exploration import Exploration
from schnetpack_phonon.ensembles.base import Ensemble, SimpleEnsemble
from schnetpack_phonon.ensembles.dynamics.ensemble import MolecularDynamics
from schnetpack_phonon.structures.crystals import Crystal


class ActiveEnsemble(Ensemble):
    """The training data of one round of active learning: those of the start and of all rounds.

    Round 0 has the start alone. Round k adds snapshots of the dynamics of the potential that was
    trained in round k - 1, so that each round is drawn again from the rounds before it.

    Args:
        start: the ensemble of round 0.
        dynamics: options of molecular dynamics; its own calculator is not used.
        potential: makes the calculator of the potential that a round has trained, from the number
            of the round.
        number: of the round, from 0 on.
        n_snapshots: that each round adds, per crystal and temperature.
        length: of each replica, in ps.
        budget: largest number of structures that all rounds may add.
    """

    def __init__(
        self,
        start: Ensemble,
        dynamics: MolecularDynamics,
        potential: Callable[[int], LabellingCalculator],
        number: int,
        n_snapshots: int,
        length: float,
        budget: int,
    ):
        check_at_least(0, number=number, budget=budget)
        check_at_least(1, n_snapshots=n_snapshots)
        check_positive("ps", length=length)
        self.start, self.number, self.budget = start, number, budget
        self._each = n_snapshots * len(dynamics.parameters)
        self.rounds: list[Exploration] = []
        for k in range(number):
            own = copy.copy(dynamics)
            own.calculator = potential(k)
            self.rounds.append(Exploration(own, k + 1, n_snapshots, length, self.rounds))

    @property
    def members(self) -> list[SimpleEnsemble]:
        return [*self.start.members, *self.rounds]

    @property
    def settings(self) -> dict[str, Any]:
        rounds = [one.settings for one in self.rounds]
        return {"kind": "active", "start": self.start.settings, "rounds": rounds}

    def check(self, crystals: Sequence[Crystal]) -> None:
        """Raises ValueError if the rounds so far, or the first, add more than the budget."""
        each, least = self.of_each_round(crystals), max(self.number, 1)
        if self.budget < least * each:
            raise ValueError(
                f"data.ensemble.budget is {self.budget}; round {least} ends with {least * each} "
                f"new labels ({each} in each round: data.ensemble.n_snapshots of {len(crystals)} "
                "crystals at each temperature): raise the budget, or lower n_snapshots"
            )
        super().check(crystals)

    def of_each_round(self, crystals: Sequence[Crystal]) -> int:
        """Number of structures that a round adds."""
        return self._each * len(crystals)
