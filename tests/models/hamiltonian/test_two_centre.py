"""Two-centre blocks against Slater and Koster's table and under rotations."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.spatial.transform import Rotation

from schnetpack_phonon.models.hamiltonian.two_centre import TwoCentre

FORMS = TwoCentre().double()
SHELLS = [(a, b) for a in range(3) for b in range(a, 3)]


def block(direction: np.ndarray, strengths: list[float], a: int, b: int) -> np.ndarray:
    u, v = (torch.tensor(np.array([x]), dtype=torch.float64).T for x in (direction, strengths))
    return FORMS(u, v, a, b)[..., 0].numpy()


def slater_koster(u: np.ndarray, v: list[float], a: int, b: int) -> dict[tuple[int, int], float]:
    """Entries of their table I; p are x, y, z and d are xy, yz, xz, x2-y2, 3z2-r2."""
    l, m, n = u  # noqa: E741
    root, plus, minus = np.sqrt(3), l * l + m * m, l * l - m * m
    axial = n * n - plus / 2
    if (a, b) == (0, 0):
        return {(0, 0): v[0]}
    if (a, b) == (0, 1):
        return {(0, 0): l * v[0], (0, 1): m * v[0], (0, 2): n * v[0]}
    if (a, b) == (0, 2):
        return {
            (0, 0): root * l * m * v[0],
            (0, 1): root * m * n * v[0],
            (0, 2): root * l * n * v[0],
            (0, 3): root / 2 * minus * v[0],
            (0, 4): axial * v[0],
        }
    if (a, b) == (1, 1):
        s, p = v
        return {
            (0, 0): l * l * s + (1 - l * l) * p,
            (0, 1): l * m * (s - p),
            (1, 0): l * m * (s - p),
            (0, 2): l * n * (s - p),
            (1, 2): m * n * (s - p),
            (2, 2): n * n * s + (1 - n * n) * p,
        }
    if (a, b) == (1, 2):
        s, p = v
        return {
            (0, 0): root * l * l * m * s + m * (1 - 2 * l * l) * p,
            (0, 1): l * m * n * (root * s - 2 * p),
            (0, 2): root * l * l * n * s + n * (1 - 2 * l * l) * p,
            (0, 3): root / 2 * l * minus * s + l * (1 - minus) * p,
            (1, 3): root / 2 * m * minus * s - m * (1 + minus) * p,
            (2, 3): root / 2 * n * minus * s - n * minus * p,
            (0, 4): l * axial * s - root * l * n * n * p,
            (1, 4): m * axial * s - root * m * n * n * p,
            (2, 4): n * axial * s + root * n * plus * p,
        }
    s, p, d = v
    return {
        (0, 0): l * l * m * m * (3 * s - 4 * p + d) + plus * p + n * n * d,
        (0, 1): l * m * m * n * (3 * s - 4 * p + d) + l * n * (p - d),
        (0, 2): l * l * m * n * (3 * s - 4 * p + d) + m * n * (p - d),
        (0, 3): l * m * minus * (1.5 * s - 2 * p + d / 2),
        (1, 3): m * n * (1.5 * minus * s - (1 + 2 * minus) * p + (1 + minus / 2) * d),
        (2, 3): n * l * (1.5 * minus * s + (1 - 2 * minus) * p - (1 - minus / 2) * d),
        (0, 4): root * l * m * (axial * s - 2 * n * n * p + (1 + n * n) / 2 * d),
        (1, 4): root * m * n * (axial * s + (plus - n * n) * p - plus / 2 * d),
        (3, 3): 0.75 * minus**2 * s + (plus - minus**2) * p + (n * n + minus**2 / 4) * d,
        (3, 4): root * minus * (axial / 2 * s - n * n * p + (1 + n * n) / 4 * d),
        (4, 4): axial**2 * s + 3 * n * n * plus * p + 0.75 * plus**2 * d,
    }


@pytest.mark.parametrize(("a", "b"), SHELLS)
def test_blocks_are_those_of_slater_and_koster(a, b):
    rng = np.random.default_rng(0)
    for _ in range(3):
        u = rng.normal(size=3)
        u /= np.linalg.norm(u)
        strengths = rng.normal(size=a + 1).tolist()
        found = block(u, strengths, a, b)
        for place, expected in slater_koster(u, strengths, a, b).items():
            assert found[place] == pytest.approx(expected, abs=1e-12), place


@pytest.mark.parametrize(("a", "b"), SHELLS)
def test_singular_values_are_the_strengths_in_any_direction(a, b):
    """Sigma once, pi and delta twice: a rotation of the bond turns orbitals and nothing else."""
    strengths = [1.7, -0.9, 0.4][: a + 1]
    expected = [abs(v) for k, v in enumerate(strengths) for _ in range(2 if k else 1)]
    for u in Rotation.random(4, rng=0).as_matrix()[:, 0]:
        found = np.linalg.svd(block(u, strengths, a, b), compute_uv=False)
        np.testing.assert_allclose(sorted(found), sorted(expected), atol=1e-12)


def test_universal_hoppings_are_harrisons():
    """Per channel at 2 Ang, with a d radius of 0.9 Ang: eta hbar^2/m r_d^1.5k / d^(2+1.5k)."""
    found = TwoCentre().universal(torch.tensor([2.0]))[:, 0].numpy()
    one, two = 7.62 / 4 * (0.9 / 2) ** 1.5, 7.62 / 4 * (0.9 / 2) ** 3
    np.testing.assert_allclose(found[[0, 1, 3, 4]], 7.62 / 4 * np.array([-1.4, 1.84, 3.24, -0.81]))
    np.testing.assert_allclose(found[[2, 5, 6]], one * np.array([-3.16, -2.95, 1.36]), rtol=1e-6)
    np.testing.assert_allclose(found[[7, 8, 9]], two * np.array([-16.2, 8.75, 0]), rtol=1e-6)
