"""Snapshots that are new to a potential, from its own dynamics."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from dataclasses import replace
from math import ceil
from typing import Any

import numpy as np
from ase import Atoms

from schnetpack_phonon.ensembles.active.distance import descriptor, farthest_first
from schnetpack_phonon.ensembles.base import SimpleEnsemble, Snapshot
from schnetpack_phonon.ensembles.dynamics.ensemble import MolecularDynamics, on_sites
from schnetpack_phonon.ensembles.dynamics.trajectories import Trajectories
from schnetpack_phonon.structures.crystals import Crystal

log = logging.getLogger(__name__)


class Exploration(SimpleEnsemble):
    """Snapshots of one round of active learning, the farthest from all that were chosen before.

    A replica that leaves what its potential knows ends, which is logged: its structures before that
    are candidates like any others. Candidates are ``min_interval`` apart in time; first comes the
    one that is the farthest from the crystal at rest, from the snapshots of former rounds and from
    those chosen in this one (:func:`.descriptor`, distances of pairs).

    Args:
        dynamics: options, with the potential of this round.
        number: of the round, from 1 on.
        n_snapshots: per crystal and temperature.
        length: of each replica, in ps.
        before: the former rounds.
    """

    kind = "active"

    def __init__(
        self,
        dynamics: MolecularDynamics,
        number: int,
        n_snapshots: int,
        length: float,
        before: Sequence[Exploration] = (),
    ):
        self.dynamics, self.number, self.length = dynamics, number, length
        self.before = tuple(before)
        self.parameters, self.seed = dynamics.parameters, dynamics.seed
        self.n_snapshots = self.similar = n_snapshots
        self._found: dict[tuple[str, float], list[_Candidate]] = {}

    @property
    def settings(self) -> dict[str, Any]:
        left_out = ("kind", "n_snapshots", "frames_per_parent")
        own = {k: v for k, v in self.dynamics.settings.items() if k not in left_out}
        return {"n_snapshots": self.n_snapshots, "length": self.length, **own}

    def temperature(self, parameter: float) -> None:
        return None

    def check(self, crystals: Sequence[Crystal]) -> None:
        """As :meth:`.MolecularDynamics.check`."""
        self.dynamics.check(crystals)

    def snapshots(self, crystal: Crystal, source: Atoms, parameter: float) -> Iterator[Snapshot]:
        """All candidates, the farthest first."""
        make = self._maker(crystal, source, parameter)
        code = self.dynamics.calculator.code_version
        for index, (atoms, facts) in enumerate(self._candidates(crystal, parameter)):
            family = f"{self.kind}/{parameter!r}/{self.number}/{facts['replica']}"
            one = make(atoms, source, index, family)
            yield replace(one, phonons={"round": self.number, **facts, "md_code": code})

    def chosen(self, crystal: Crystal, temperature: float) -> list[Atoms]:
        """The first snapshots of this round, as many as are asked for."""
        found = self._candidates(crystal, temperature)[: self.n_snapshots]
        return [atoms for atoms, _ in found]

    def _candidates(self, crystal: Crystal, temperature: float) -> list[_Candidate]:
        key = crystal.name, temperature
        if key not in self._found:
            run = self.dynamics.trajectories(crystal, temperature)
            ended = run.explore(ceil(self.length / run.dynamics.stretch_time))
            for why in ended.values():
                log.warning("round %d: %s. Its structures before that are used", self.number, why)
            found = self._frames(run, {*ended})
            known = [crystal.supercell]
            for one in self.before:
                known += one.chosen(crystal, temperature)
            species = sorted({*run.ideal.numbers.tolist()})
            points = [descriptor(atoms, species) for atoms, _ in found]
            others = [descriptor(atoms, species) for atoms in known]
            order = farthest_first(np.array(points), np.array(others)) if found else []
            self._found[key] = [found[k] for k in order]
        return self._found[key]

    def _frames(self, run: Trajectories, ended: set[int]) -> list[_Candidate]:
        every = max(round(self.dynamics.min_interval / run.dynamics.record_time), 1)
        n_most = ceil(self.length / run.dynamics.stretch_time)
        found = []
        for replica, stretches in enumerate(run.replicas):
            positions = [row for stretch in stretches[:n_most] for row in stretch.positions]
            for record in range(every - 1, len(positions), every):
                atoms, n_off_site = on_sites(run.ideal, positions[record])
                time = round((record + 1) * run.dynamics.record_time, 3)
                facts = {"replica": replica, "md_time": time, "n_off_site": n_off_site}
                found.append((atoms, {**facts, "md_ended": int(replica in ended)}))
        return found


_Candidate = tuple[Atoms, dict[str, Any]]  # and where it is from
