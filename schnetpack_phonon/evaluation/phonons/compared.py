"""Force constants of a potential beside given ones of the same crystal."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd

from schnetpack_phonon.calculators.base import LabellingCalculator
from schnetpack_phonon.phonons.dispersion import commensurate_points
from schnetpack_phonon.phonons.force_constants import FiniteDisplacements, phonon_model
from schnetpack_phonon.phonons.instabilities import ZERO, Instabilities
from schnetpack_phonon.structures.crystals import Crystal

_TRANSLATIONS = 3  # at Gamma, left out


@dataclass(frozen=True)
class ComparedPhonons:
    """Frequencies at the wave vectors of the supercell.

    Attributes:
        crystal: unit cell and supercell.
        reference: given force constants, shape=(n_atoms, n_atoms, 3, 3), eV/Ang^2.
        model: those of the potential.
        modes: one row for each mode but the rigid translations: ``qx``, ``qy``, ``qz`` (in units of
            the reciprocal lattice), ``branch`` (in order of frequency), ``reference`` and
            ``model`` in THz, negative where imaginary.
    """

    crystal: Crystal
    reference: np.ndarray
    model: np.ndarray
    modes: pd.DataFrame

    @property
    def summary(self) -> dict[str, float]:
        """Numbers of a crystal, frequencies in THz."""
        own, given = self.modes["model"], self.modes["reference"]
        return {
            "modes": len(own),
            "rms difference": float(np.sqrt(((own - given) ** 2).mean())),
            "mean difference": float((own - given).mean()),
            "imaginary, reference": int((given < ZERO).sum()),
            "imaginary, model": int((own < ZERO).sum()),
            "lowest, reference": float(given.min()),
            "lowest, model": float(own.min()),
            "highest, reference": float(given.max()),
            "highest, model": float(own.max()),
        }


def compared(
    crystal: Crystal, reference: np.ndarray, potential: LabellingCalculator, distance: float
) -> ComparedPhonons:
    """The force constants of a potential in the lattice of a crystal, beside given ones.

    Args:
        crystal: not a mixed one, as it is.
        reference: its force constants, shape=(n_atoms, n_atoms, 3, 3), eV/Ang^2.
        potential: of energy and forces.
        distance: of the displacements in Ang; that of the reference, as anharmonic forces change
            with it.
    """
    source = FiniteDisplacements(Instabilities(), distance)
    own = phonon_model(crystal, source, potential).force_constants
    points = commensurate_points(crystal)
    known, found = (_frequencies(crystal, each, points) for each in (reference, own))
    tables = [
        pd.DataFrame(
            {
                **dict(zip(("qx", "qy", "qz"), q, strict=True)),
                "branch": np.arange(len(a)),
                "reference": a,
                "model": b,
            }
        )
        for q, a, b in zip(points, known, found, strict=True)
    ]
    return ComparedPhonons(crystal, reference, own, pd.concat(tables, ignore_index=True))


def _frequencies(
    crystal: Crystal, force_constants: np.ndarray, points: np.ndarray
) -> list[np.ndarray]:
    phonon = crystal.phonopy()
    phonon.force_constants = force_constants
    phonon.run_qpoints(points)
    found = []
    for q, own in zip(points, phonon.qpoints.frequencies, strict=True):
        if not np.any(np.round(q, 9)):
            own = np.sort(own[np.argsort(np.abs(own))[_TRANSLATIONS:]])
        found.append(own)
    return found
