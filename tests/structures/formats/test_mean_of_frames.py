"""The ideal crystal of a trajectory is found, whatever images and drift; or it is said why not."""

import re

import ase.io
import numpy as np
import pytest

from schnetpack_phonon.structures.crystals import antiperovskite
from schnetpack_phonon.structures.formats.mean_of_frames import MeanStructure
from schnetpack_phonon.structures.matching import match

IDEAL = antiperovskite("Ag3SBr", 4.8).repeat((2, 2, 2))


def trajectory(ideal=IDEAL, n_frames=60, sigma=0.1, strain=0.0):
    """Thermal frames with drift, wrapped, at constant volume or pressure."""
    rng = np.random.default_rng(0)
    frames = []
    for _ in range(n_frames):
        atoms = ideal.copy()
        atoms.positions += rng.normal(0, sigma, atoms.positions.shape)
        eps = strain * rng.normal(size=(3, 3))
        atoms.set_cell(atoms.cell.array @ (np.eye(3) + (eps + eps.T) / 2), scale_atoms=True)
        atoms.positions += rng.uniform(-9, 9, 3)
        atoms.wrap()
        frames.append(atoms)
    return frames


def mean(frames, **options):
    ase.io.write("md.extxyz", frames)
    (crystal,) = MeanStructure("md.extxyz", **options).crystals
    return crystal


@pytest.mark.parametrize("strain", [0.0, 0.005])
def test_crystal_is_found(strain, caplog):
    caplog.set_level("INFO")
    frames = trajectory(strain=strain)
    crystal = mean(frames)
    assert crystal.name == "Ag3SBr"
    assert crystal.space_group == "Pm-3m (221)"
    first, message = [m for m in caplog.messages if m.startswith("ideal crystal")]
    assert "mean of 60 frames of md.extxyz" in first
    found = re.search(r"to Pm-3m \(221\), largest shift (0\.\d+) of at most (0\.\d+) Ang", message)
    assert 0.01 < float(found[1]) <= float(found[2]) < 0.12
    np.testing.assert_allclose(crystal.unitcell.cell.array, IDEAL.cell.array, atol=0.03)
    assert not match(crystal.supercell, IDEAL, "the crystal").reordered
    u = match(IDEAL, crystal.supercell, "the mean").atoms.positions - IDEAL.positions
    assert np.abs(u).max() < 1e-3 or strain
    assert not match(crystal.supercell, frames[0], "frame 0").rotated or strain


def test_lower_symmetry_is_kept():
    """Sulfur off its centre by more than the noise."""
    ideal = IDEAL.copy()
    ideal.positions[ideal.symbols == "S", 2] += 0.3
    assert mean(trajectory(ideal)).space_group == "P4mm (99)"


def test_tolerance_of_the_user():
    """Too small for the noise of the mean: what is not there is not invented."""
    assert mean(trajectory(), symmetry_tolerance=1e-3).space_group == "P1 (1)"


def wandering(frames):
    for atoms in frames[30:]:
        atoms.positions[0, 0] += 4.5
    return frames


def halves(frames):
    for atoms in frames[30:]:
        atoms.positions[atoms.symbols == "S", 2] += 0.6
    return frames


def other_order(frames):
    return [*frames[:7], frames[7][::-1], *frames[8:]]


def other_cell(frames):
    frames[3].set_cell(1.1 * frames[3].cell.array, scale_atoms=True)
    return frames


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (wandering, r"atom 0 \(Ag\) of frame \d+ of .*md.extxyz is .* atoms diffuse"),
        (halves, r"first and second half of .* differ by 0\.\d+ Ang; expected at most 0\.3"),
        (other_order, r"frame 7 of .* in another order than frame 0"),
        (other_cell, r"the cell of frame 3 of .* differs by 0\.1"),
        (lambda frames: frames[:9], r"has 9 frames after the first 0; expected at least 10"),
    ],
)
def test_what_has_no_mean(change, message):
    with pytest.raises(ValueError, match=message):
        mean(change(trajectory()))
    if change is halves:
        assert mean(change(trajectory()), skip=30).space_group == "P4mm (99)"
