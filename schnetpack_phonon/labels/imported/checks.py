"""Units and signs of labels in files, as far as the labels themselves tell them.

Along a trajectory the energy changes by the work of forces and stress,

    E_b - E_a = -1/2 sum (F_a + F_b) (r_b - r_a) + O(u^3),

exactly in a harmonic crystal, however far apart the frames are. The slope of the left side against
the right one is 1 in consistent units, -1 for gradients in place of forces, 27.2 or 0.53 where an
atomic unit was forgotten.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

import numpy as np
from ase.geometry import find_mic

from schnetpack_phonon.common.errors import UnitError
from schnetpack_phonon.common.properties import band_gap, cbm, energy, forces, stress, vbm
from schnetpack_phonon.labels.imported.frames import Frame

log = logging.getLogger(__name__)
_LARGEST_STRESS = 1.0  # eV/Ang^3, 160 GPa
_LARGEST_GAP = 30.0  # eV; no crystal has a larger one
_FEWEST = 8  # pairs of frames that a slope needs
_CORRELATED = 0.9  # of both sides, below which their slope says nothing
_SLOPES = (0.6, 1.6)  # anharmonic energies of uncorrelated frames, but no 0.53 or 1.89
_SAME_GAP = 2e-3  # eV


def check_labels(frames: Sequence[Frame], path: Path) -> None:
    """Raises UnitError for labels whose units or signs are not those of ASE.

    Args:
        frames: of one file, in its order.
        path: of the file, for the message.
    """
    for index, frame in enumerate(frames):
        where = f"frame {index} of {path}"
        own = frame.labels
        if stress in own and np.abs(own[stress]).max() > _LARGEST_STRESS:
            raise UnitError(
                f"{where} has a stress of {np.abs(own[stress]).max():.3g}; expected eV/Ang^3 "
                f"(1 GPa is 0.00624), at most {_LARGEST_STRESS:g}: convert it, as from kbar or GPa"
            )
        if band_gap in own and not 0 <= own[band_gap].item() <= _LARGEST_GAP:
            raise UnitError(
                f"{where} has a band gap of {own[band_gap].item():g}; expected 0 to "
                f"{_LARGEST_GAP:g} eV: convert it, and set that of metals to 0"
            )
        if {band_gap, vbm, cbm} <= own.keys():
            edges = own[cbm].item() - own[vbm].item()
            if abs(edges - own[band_gap].item()) > _SAME_GAP:
                raise UnitError(
                    f"{where} has a band gap of {own[band_gap].item():g} eV, but edges "
                    f"{edges:g} eV apart: expected cbm - vbm"
                )
    _check_forces(frames, path)


def _check_forces(frames: Sequence[Frame], path: Path) -> None:
    """Compares changes of the energy with the work of the forces."""
    changes, works = [], []
    for one, two in pairwise(frames):
        if all({energy, forces} <= frame.labels.keys() for frame in (one, two)) and _same(one, two):
            steps, _ = find_mic(two.atoms.positions - one.atoms.positions, one.atoms.cell)
            mean = (one.labels[forces] + two.labels[forces]) / 2
            changes.append(two.labels[energy].item() - one.labels[energy].item())
            works.append(-(mean * steps).sum())
    if len(changes) < _FEWEST or not np.std(works) * np.std(changes) > 0:
        log.info("%s: too few frames to compare energy and forces", path)
        return
    correlation = np.corrcoef(changes, works)[0, 1]
    slope = np.dot(changes, works) / np.dot(works, works)
    if abs(correlation) < _CORRELATED:
        log.info(
            "%s: energy and forces are not compared: frames are too far apart (correlation of "
            "energy and work %.2f)",
            *(path, correlation),
        )
    elif not _SLOPES[0] < slope < _SLOPES[1]:
        raise UnitError(
            f"{path}: energies change by {slope:.3g} times the work of the forces; expected 1. "
            "Energies are expected in eV, forces (not gradients) in eV/Ang, positions in Ang"
        )
    else:
        log.info("%s: energies change by %.3f times the work of the forces", path, slope)


def _same(one: Frame, two: Frame) -> bool:
    """Whether two frames have the same atoms in the same cell."""
    return np.array_equal(one.atoms.numbers, two.atoms.numbers) and np.allclose(
        one.atoms.cell.array, two.atoms.cell.array, atol=1e-6
    )
