"""Force constants that cannot be right are refused, and the message names the atom."""

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk
from scipy.spatial.transform import Rotation

from schnetpack_phonon.phonons.checks import check_fit, check_force_constants, check_symmetry
from schnetpack_phonon.structures.crystals import Crystal, supercell_matrix
from tests.phonons.force_constants_fixtures import SPRINGS


def test_force_constant_errors(rock_salt, stable):
    ideal = rock_salt.supercell
    asymmetric, missing, infinite, held = (stable.copy() for _ in range(4))
    asymmetric[0, 9, 0, 2] += 0.7
    missing[3, 7, 0, 0] = np.nan
    infinite[5, 5, 2, 1] = np.inf
    held[9, 9, 1, 1] += 0.7
    for wrong, named in [
        (stable[:2], r"shape \(2, 16, 3, 3\); expected \(16, 16, 3, 3\) for the supercell"),
        (
            asymmetric,
            r"by 0\.7 eV/Ang\^2, between atoms 0 \(Na\) and 9 \(Cl\); .* at most 0\.6, 5 %",
        ),
        (missing, "between atoms 3 and 7 are not finite"),
        (infinite, "between atoms 5 and 5 are not finite"),
        (held, r"acoustic sum rule: .* atom 9 \(Cl\) sum to 0\.7 eV/Ang\^2; .*at most 0\.64, 5 %"),
    ]:
        with pytest.raises(ValueError, match=named):
            check_force_constants(ideal, wrong)


CELLS = {"diagonal": [2, 2, 2], "cubic": [[-1, 1, 1], [1, -1, 1], [1, 1, -1]], "long": [1, 2, 3]}


@pytest.fixture(params=CELLS)
def crystal(request) -> Crystal:
    cell = bulk("NaCl", "rocksalt", a=5.6)
    return Crystal("NaCl", cell, supercell_matrix(CELLS[request.param]))


def noise(crystal) -> np.ndarray:
    n = len(crystal.supercell)
    return np.random.default_rng(0).uniform(-0.1, 0.1, (n, n, 3, 3))  # about 1 % of the largest


def test_symmetric_force_constants(crystal, central_springs):
    """In any supercell, and with noise."""
    springs = central_springs(crystal.supercell, SPRINGS)
    check_symmetry(crystal, springs, "file")
    check_symmetry(crystal, springs + noise(crystal), "file")


def test_two_atoms_exchanged(crystal, central_springs):
    springs = central_springs(crystal.supercell, SPRINGS)
    order = np.arange(len(springs))
    order[:2] = [1, 0]
    named = r"^file: a translation .* atoms \d+ \((Na|Cl)\) and \d+ .* in another order than the"
    with pytest.raises(ValueError, match=named):
        check_symmetry(crystal, springs[np.ix_(order, order)], "file")


def test_other_axes(crystal, central_springs):
    springs = central_springs(crystal.supercell, SPRINGS)
    turn = Rotation.from_euler("xz", [20, 30], degrees=True).as_matrix()
    turned = np.einsum("ab,ijbc,dc->ijad", turn, springs, turn)
    with pytest.raises(ValueError, match=r"the operation \[\[.* or their axes are others"):
        check_symmetry(crystal, turned, "file")


def test_operations_of_the_supercell_only():
    """Constants of a long supercell need not have the cubic symmetry of its unit cell."""
    crystal = Crystal("Cu", bulk("Cu", cubic=True), supercell_matrix([1, 1, 2]))
    n = len(crystal.supercell)
    constants = np.zeros((n, n, 3, 3))
    constants[range(n), range(n)] = np.diag([1.0, 1.0, 2.0])
    check_symmetry(crystal, constants, "file")
    constants[range(n), range(n)] = np.diag([1.0, 2.0, 1.0])
    with pytest.raises(ValueError, match="the operation"):
        check_symmetry(crystal, constants, "file")


@pytest.fixture
def glass() -> Crystal:
    """Without any symmetry; symmetric matrices of 3 atoms in 2 cells."""
    positions = [(0.1, 0, 0), (2.2, 1.0, 0.4), (0.7, 2.4, 1.9)]
    cell = [[3.9, 0, 0.3], [0.2, 4.1, 0], [0, 0.4, 3.7]]
    return Crystal(
        "glass", Atoms("NaClNa", positions, cell=cell, pbc=True), supercell_matrix([2, 1, 1])
    )


def with_displacements(crystal, u):
    phonon = crystal.phonopy()
    phonon.dataset = {"displacements": u, "forces": np.zeros_like(u)}
    return phonon


def test_random_displacements_that_are_too_few(glass):
    """At the zone boundary each gives one of the 9 vectors on which the matrix must be known."""
    u = np.random.default_rng(0).normal(0, 0.01, (9, 6, 3))
    check_fit(with_displacements(glass, u), "file")
    named = r"^file: 8 structures .* the 66 independent force constants .* at least 9, each with"
    with pytest.raises(ValueError, match=named):
        check_fit(with_displacements(glass, u[:8]), "file")
    with pytest.raises(ValueError, match=r"^file: 20 structures .* at least 9, each with other"):
        check_fit(with_displacements(glass, np.repeat(u[:1], 20, axis=0)), "file")


def test_one_random_supercell_is_enough_for_a_symmetric_crystal(rock_salt):
    u = np.random.default_rng(0).normal(0, 0.01, (1, 16, 3))
    check_fit(with_displacements(rock_salt, u), "file")


def test_displacements_that_are_missing(glass, rock_salt):
    """One direction of one atom; of a cubic crystal, one of two species."""
    for crystal, named in [
        (glass, r"^file: atom 4 \(Na\) .* along 2 of 3"),
        (rock_salt, r"^file: atom 8 \(Cl\) .* along 0 of 3"),
    ]:
        phonon = crystal.phonopy()
        phonon.generate_displacements(is_plusminus=False)
        check_fit(phonon, "file")
        phonon.dataset = {**phonon.dataset, "first_atoms": phonon.dataset["first_atoms"][:-1]}
        with pytest.raises(ValueError, match=named):
            check_fit(phonon, "file")
