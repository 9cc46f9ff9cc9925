"""Structures that need labels, and which of them a frame is."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from ase import Atoms

from schnetpack_phonon.labels.labelling import Job
from schnetpack_phonon.structures.matching import Match

_LARGEST_STRAIN = 0.25  # of a job relative to its crystal, which may be relaxed in between


class Targets:
    """Jobs of one crystal, as displacements without drift.

    Args:
        ideal: the supercell.
        jobs: of any crystals.
    """

    def __init__(self, ideal: Atoms, jobs: Sequence[Job]):
        self.jobs, steps, cells = [], [], []
        for job in jobs:
            (atoms,) = job.arguments
            if np.array_equal(atoms.numbers, ideal.numbers):
                strain = np.linalg.solve(ideal.cell.array, atoms.cell.array) - np.eye(3)
                if np.abs(strain).max() < _LARGEST_STRAIN:
                    u = atoms.get_scaled_positions(wrap=False)
                    u = u - ideal.get_scaled_positions(wrap=False)
                    u = (u - u.round()) @ atoms.cell.array
                    self.jobs.append(job)
                    steps.append(u - u.mean(axis=0))
                    cells.append(atoms.cell.array)
        self._steps = np.reshape(steps, (-1, len(ideal), 3))
        self._cells = np.reshape(cells, (-1, 3, 3))

    def nearest(self, place: Match) -> tuple[float, Job]:
        """The job with the smallest distance of any atom or cell vector, in Ang."""
        u = place.atoms.positions - place.ideal.positions
        atoms = np.linalg.norm(self._steps - (u - u.mean(axis=0)), axis=2).max(axis=1)
        cells = np.linalg.norm(self._cells - place.atoms.cell.array, axis=2).max(axis=1)
        distances = np.maximum(atoms, cells)
        return float(distances.min()), self.jobs[int(distances.argmin())]


def nearest(
    matches: Mapping[str, Match], targets: Mapping[str, Targets]
) -> tuple[float, Job, Match] | None:
    """Distance, job and match of the job nearest to a frame; None if its crystals have no job.

    Args:
        matches: of the frame, by the name of the crystal.
        targets: by the same names.
    """
    found = [
        (*targets[name].nearest(place), place)
        for name, place in matches.items()
        if targets[name].jobs
    ]
    return min(found, key=lambda one: one[0], default=None)
