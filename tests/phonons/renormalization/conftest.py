"""Quartic crystals, and their self-consistent force constants."""

import numpy as np
import pytest

# Rock salt of 16 atoms: repulsive springs between second neighbours make half of the modes
# imaginary; r^4 between first neighbours holds the crystal together.


@pytest.fixture(scope="module")
def soft(rock_salt, central_springs) -> np.ndarray:
    return central_springs(rock_salt.supercell, {2.8: 2.0, 2.8 * 2**0.5: -0.3})
