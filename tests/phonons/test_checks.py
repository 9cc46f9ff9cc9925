"""Force constants that cannot be right are refused, and the message names the atom."""

import numpy as np
import pytest

from schnetpack_phonon.phonons.checks import check_force_constants


def test_force_constant_errors(rock_salt, stable):
    ideal = rock_salt.supercell
    asymmetric, missing, infinite, held = (stable.copy() for _ in range(4))
    asymmetric[0, 1, 0, 2] += 0.2
    missing[3, 7, 0, 0] = np.nan
    infinite[5, 5, 2, 1] = np.inf
    held[9, 9, 1, 1] += 0.2
    for wrong, named in [
        (stable[:2], r"shape \(2, 16, 3, 3\); expected \(16, 16, 3, 3\) for the supercell"),
        (asymmetric, r"symmetry of second derivatives by 0\.2 eV/Ang\^2; expected at most 0\.12:"),
        (missing, "between atoms 3 and 7 are not finite"),
        (infinite, "between atoms 5 and 5 are not finite"),
        (held, r"acoustic sum rule: .* atom 9 \(Cl\) sum to 0\.2 eV/Ang\^2; .*at most 0\.12:"),
    ]:
        with pytest.raises(ValueError, match=named):
            check_force_constants(ideal, wrong)
