"""What the tests of this folder share."""

import numpy as np

from schnetpack_phonon.structures.alloys import MixedAntiperovskites
from schnetpack_phonon.structures.crystals import (
    Crystal,
)

CONSTANTS = {"Ag3SBr": 4.8, "Ag3SI": 5.0, "Ag3SeBr": 5.1}


def mixed(names=("Ag3S(Br,I)",), n_arrangements=6, seed=1, **options) -> list[Crystal]:
    options = {"lattice_constants": CONSTANTS} | options
    return MixedAntiperovskites(names, n_arrangements, seed, **options).crystals


def pattern(crystal: Crystal, elements=("Br", "I")) -> np.ndarray:
    """True where the second element is, over the shared sites in order of place in the lattice."""
    scaled = crystal.unitcell.get_scaled_positions()
    symbols = np.array(crystal.unitcell.get_chemical_symbols())
    sites = np.flatnonzero(np.isin(symbols, elements))
    order = np.lexsort(scaled[sites].round(6).T)
    return symbols[sites[order]] == elements[1]
