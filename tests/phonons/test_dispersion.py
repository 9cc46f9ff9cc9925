"""Bands agree with closed forms, and their paths are labelled as they run."""

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk

from schnetpack_phonon.phonons.dispersion import dispersion
from schnetpack_phonon.phonons.harmonic import THZ_PER_SQRT_FC, to_blocks
from schnetpack_phonon.structures.crystals import Crystal, antiperovskite, supercell_matrix

SPRING, MASS, A = 2.0, 40.0, 3.0


def cubic_springs(n: int = 4) -> tuple[Crystal, np.ndarray]:
    """Simple cubic crystal whose nearest neighbours pull in all directions alike."""
    atoms = Atoms("Ar", cell=[A] * 3, pbc=True, masses=[MASS])
    crystal = Crystal("Ar", atoms, supercell_matrix((n, n, n)))
    cell = crystal.supercell
    scaled = np.rint(cell.positions / A).astype(int)
    matrix = np.zeros((len(cell), len(cell)))
    for i, site in enumerate(scaled):
        for step in np.vstack([np.eye(3, dtype=int), -np.eye(3, dtype=int)]):
            (j,) = np.flatnonzero((scaled % n == (site + step) % n).all(axis=1))
            matrix[i, j] -= SPRING
            matrix[i, i] += SPRING
    return crystal, to_blocks(np.kron(matrix, np.eye(3)))


def frequency(q: np.ndarray) -> float:
    """omega^2 = 4 K / m sum sin^2(pi q), in THz."""
    return THZ_PER_SQRT_FC * np.sqrt(4 * SPRING / MASS * (np.sin(np.pi * q) ** 2).sum())


def test_springs_at_the_special_points():
    found = dispersion(*cubic_springs())
    assert [name for name, _ in found.ticks] == ["Γ", "X", "M", "Γ", "R", "X|M", "R"]
    points = {"Γ": (0, 0, 0), "X": (0, 0.5, 0), "M": (0.5, 0.5, 0), "R": (0.5, 0.5, 0.5)}
    for name, x in found.ticks:
        rows = found.frequencies[np.isclose(found.distances, x)]
        expected = {round(frequency(np.array(points[p])), 4) for p in name.split("|")}
        # Square roots of rounding errors, at Gamma.
        assert {round(f, 4) for f in np.abs(rows[np.isfinite(rows)]).round(4) + 0.0} <= {
            *expected,
            *(0.0,) * ("Γ" in name),
        } | {e + d for e in expected for d in (-1e-4, 1e-4)}


def test_density_of_states_counts_the_modes():
    found = dispersion(*cubic_springs())
    assert np.trapezoid(found.dos, found.dos_frequencies) == pytest.approx(3, rel=0.02)


def test_imaginary_branches_lie_below_zero():
    crystal, force_constants = cubic_springs()
    assert np.nanmin(dispersion(crystal, -force_constants).frequencies) == pytest.approx(
        -frequency(np.full(3, 0.5)), abs=1e-6
    )


def test_lines_break_where_the_path_jumps():
    found = dispersion(*cubic_springs())
    broken = np.isnan(found.frequencies).all(axis=1)
    assert broken.sum() == 6  # segments
    (jump,) = [x for name, x in found.ticks if "|" in name]
    assert np.isclose(found.distances[broken], jump).any()


def test_antiperovskite_has_the_cubic_path():
    crystal = Crystal("Ag3SBr", antiperovskite("Ag3SBr"), supercell_matrix((1, 1, 1)))
    held = to_blocks(np.diag(np.arange(1.0, 16.0)))  # every atom on springs of its own
    found = dispersion(crystal, held)
    masses = np.repeat(crystal.unitcell.get_masses(), 3)
    expected = np.sort(THZ_PER_SQRT_FC * np.sqrt(np.arange(1.0, 16.0) / masses))
    np.testing.assert_allclose(found.frequencies[0], expected, rtol=1e-6)
    assert [name for name, _ in found.ticks] == ["Γ", "X", "M", "Γ", "R", "X|M", "R"]


def test_large_cells_get_fewer_points(central_springs):
    """One cell of 64 atoms has 12 points a segment, with phonopy's frequencies at each."""
    cell = bulk("Cu", cubic=True).repeat((2, 2, 4))
    crystal = Crystal("Cu", cell, supercell_matrix((1, 1, 1)))
    springs = central_springs(crystal.supercell, {3.61 / 2**0.5: 3.0})
    found = dispersion(crystal, springs)
    n_segments = np.isnan(found.frequencies).all(axis=1).sum()
    assert len(found.distances) == n_segments * (12 + 1)
    phonon = crystal.phonopy()
    phonon.force_constants = springs
    phonon.run_qpoints([[0, 0, 0]])
    np.testing.assert_allclose(found.frequencies[0], phonon.qpoints.frequencies[0], atol=1e-6)
    assert np.trapezoid(found.dos, found.dos_frequencies) == pytest.approx(192, rel=0.05)
