"""Frames are found on the sites of the crystal, however their file is written."""

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk
from ase.calculators.emt import EMT
from scipy.spatial.transform import Rotation

from schnetpack_phonon.structures.elasticity import strained, voigt_to_tensor
from schnetpack_phonon.structures.matching import in_images_of, match

ROTATION = Rotation.from_rotvec([0.3, 0.5, -0.7]).as_matrix()


@pytest.fixture(scope="module")
def ideal():
    """32 atoms, Cu3Au."""
    atoms = bulk("Cu", a=3.8, cubic=True)
    atoms.symbols[0] = "Au"
    return atoms.repeat(2)


@pytest.fixture(scope="module")
def displaced(ideal):
    atoms = ideal.copy()
    atoms.positions += np.random.default_rng(0).normal(0, 0.12, (32, 3))
    return atoms


def labels_of(atoms: Atoms) -> dict[str, np.ndarray]:
    atoms = atoms.copy()
    atoms.calc = EMT()
    return {"forces": atoms.get_forces(), "stress": atoms.get_stress(voigt=False)[None]}


def rotated(atoms: Atoms) -> Atoms:
    atoms = atoms.copy()
    atoms.set_cell(atoms.cell.array @ ROTATION)
    atoms.positions = atoms.positions @ ROTATION
    return atoms


def shuffled(atoms: Atoms) -> Atoms:
    rng = np.random.default_rng(1)
    atoms = atoms[rng.permutation(len(atoms))]
    atoms.positions += [3.3, 1.2, 7.0]
    atoms.wrap()
    return atoms


def other_axes(atoms: Atoms) -> Atoms:
    """The same lattice by other vectors."""
    atoms = atoms.copy()
    cell = atoms.cell.array[[1, 2, 0]]
    cell[0] += cell[1]
    atoms.set_cell(cell)
    return atoms


CHANGES = {
    "nothing": lambda atoms: atoms,
    "order and origin": shuffled,
    "rotation": rotated,
    "both": lambda atoms: shuffled(rotated(atoms)),
    "axes": other_axes,
    "strain": lambda atoms: strained(atoms, voigt_to_tensor(np.linspace(-0.02, 0.03, 6))),
    "strain and rotation": lambda atoms: rotated(
        strained(atoms, voigt_to_tensor(np.linspace(-0.02, 0.03, 6)))
    ),
}


@pytest.mark.parametrize("change", CHANGES)
def test_labels_are_those_of_the_matched_frame(ideal, displaced, change):
    """What was read, in the order and orientation of the crystal, is what EMT gives there."""
    frame = CHANGES[change](displaced)
    found = match(ideal, frame, "frame 0")
    np.testing.assert_array_equal(found.atoms.numbers, ideal.numbers)
    u = found.atoms.positions - found.ideal.positions
    assert np.linalg.norm(u, axis=1).max() < 0.6
    np.testing.assert_allclose(u.mean(axis=0), 0, atol=1e-6)
    gradient = np.linalg.solve(ideal.cell.array, found.ideal.cell.array)
    np.testing.assert_allclose(gradient, gradient.T, atol=1e-9)
    own, there = found.labels(labels_of(frame)), labels_of(found.atoms)
    np.testing.assert_allclose(own["forces"], there["forces"], atol=2e-5)
    np.testing.assert_allclose(own["stress"], there["stress"], atol=1e-6)
    assert found.reordered == ("order" in change or change == "both")
    assert found.rotated == ("rotation" in change or change == "both")


def test_order_of_a_frame_before(ideal, displaced):
    """Is tried before any other; a wrong one does no harm."""
    frame = shuffled(displaced)
    order = match(ideal, frame, "frame 0").order
    for known in (order, order[::-1]):
        np.testing.assert_array_equal(match(ideal, frame, "frame 1", known).order, order)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda atoms: atoms[:-1], r"frame 7 has 31 atoms; the supercell .* has 32"),
        (lambda atoms: strained(atoms, 0.3 * np.eye(3)), r"strained by 0\.30 .* at most 0\.2"),
    ],
)
def test_what_is_no_frame_of_the_crystal(ideal, displaced, change, message):
    with pytest.raises(ValueError, match=message):
        match(ideal, change(displaced.copy()), "frame 7")


def test_ideal_crystal_in_the_images_of_a_displaced_one(ideal, displaced):
    """Both wrapped back into the cell, which is strained: displacements are as they were."""
    frame = strained(displaced, np.diag([0.05, 0, 0]))
    expected = frame.positions - strained(ideal, np.diag([0.05, 0, 0])).positions
    shifted = ideal.copy()
    shifted.positions += 0.01  # away from the faces
    frame.positions += 0.01 * np.array([1.05, 1, 1])
    wrapped = frame.copy()
    wrapped.wrap()
    shifted.wrap()
    assert np.abs(wrapped.positions - frame.positions).max() > 5
    for own in (frame, wrapped):
        placed = in_images_of(own, shifted)
        fractions = placed.get_scaled_positions(wrap=False)
        np.testing.assert_allclose(own.positions - fractions @ own.cell.array, expected)
    assert in_images_of(displaced, ideal) is ideal
    chain = bulk("Cu", cubic=True).repeat((3, 1, 1))
    with pytest.raises(ValueError, match=r"atom 0 is nearest to the ideal site of atom 8"):
        in_images_of(chain[[8, *range(1, 8), 0, 9, 10, 11]], chain)
