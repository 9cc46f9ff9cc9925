"""What the tests of this folder share."""

import pytest
from ase.build import bulk

from schnetpack_phonon.phonons.harmonic import harmonic_model
from schnetpack_phonon.structures.crystals import Crystal, supercell_matrix
from tests.ensembles.ensemble_fixtures import (
    STABLE,
)


@pytest.fixture(scope="module")
def aluminium(central_springs):
    """(crystal, model): 27 atoms of one mass, so that both centres are one."""
    crystal = Crystal("Al", bulk("Al", "fcc", a=4.05), supercell_matrix([3, 3, 3]))
    springs = central_springs(crystal.supercell, {4.05 / 2**0.5: 1.5})
    return crystal, harmonic_model(crystal.supercell, springs, STABLE)
