"""Moments and random numbers of independent displacements."""

import zlib

import numpy as np
import pytest
from scipy import stats

from schnetpack_phonon.ensembles.independent import RandomEnsemble
from tests.ensembles.ensemble_fixtures import (
    FALSE_ALARM,
    N_DRAWS,
    OPTIONS,
    ROUNDING,
    centring,
    draws,
    z_scores,
)


@pytest.mark.parametrize(
    ("distribution", "width", "fourth"),
    [("uniform", 0.6, -1.2), ("one_sided", 0.3, -1.2), ("gaussian", 0.3 * 12**0.5, 0.0)],
)
def test_moments(nacl, distribution, width, fourth):
    """Of x_i - <x> over N atoms: sigma^2 (1 - 1/N), odd ones 0, and the fourth cumulant.

    Cumulants add, so the excess is k4 ((1 - 1/N)^4 + (N - 1) / N^4) over the square of
    (1 - 1/N); errors from the scatter of 48 components.
    """
    crystal, model = nacl
    u = draws(RandomEnsemble([0.3], distribution, **OPTIONS), crystal, model.ideal, N_DRAWS)
    rest = 1 - 1 / 16
    variance = width**2 / 12 * rest
    excess = fourth * (rest**4 + 15 / 16**4) / rest**2
    reduced = u / np.sqrt(variance)
    expected = {1: 0, 2: 1, 3: 0, 4: 3 + excess}
    for power, value in expected.items():
        moments = (reduced**power).mean(axis=1)
        error = moments.std() / np.sqrt(N_DRAWS)
        if power % 2:  # atoms' displacements add up to zero
            moments, error = (reduced[:, 0] ** power), (reduced[:, 0] ** power).std() / 141
        assert abs(moments.mean() - value) < 5 * error


@pytest.mark.parametrize("distribution", ["uniform", "one_sided", "gaussian"])
def test_covariance(nacl, distribution):
    """sigma^2 (delta_ij - 1/N): independent atoms and directions about their centre."""
    crystal, model = nacl
    u = draws(RandomEnsemble([0.3], distribution, **OPTIONS), crystal, model.ideal, N_DRAWS)
    sigma = {"uniform": 0.3 / 3**0.5, "one_sided": 0.3 / 12**0.5, "gaussian": 0.3}
    z = z_scores(u, sigma[distribution] ** 2 * centring(16))
    # z of variances is narrower for uniform numbers, whose fourth moment is smaller.
    assert 2 * stats.norm.sf(np.abs(z).max()) * z.size > FALSE_ALARM


def test_bounds(nacl):
    """Two atoms differ by at most the width; 320,000 pairs come close to it."""
    crystal, model = nacl
    for distribution, width in (("uniform", 0.6), ("one_sided", 0.3)):
        ensemble = RandomEnsemble([0.3], distribution, **OPTIONS)
        u = draws(ensemble, crystal, model.ideal, N_DRAWS).reshape(-1, 16, 3)
        assert 0.98 * width < np.ptp(u, axis=1).max() <= width + 2e-6


@pytest.mark.parametrize("distribution", ["uniform", "one_sided", "gaussian"])
def test_recipe(nacl, distribution):
    """rng.uniform(low, a, 3N), or a standard_normal(3N), of the snapshot's own stream."""
    crystal, model = nacl
    ensemble = RandomEnsemble([0.4], distribution, n_snapshots=1, seed=2511)
    ours = draws(ensemble, crystal, model.ideal, 150).reshape(150, 16, 3)
    for k in (0, 1, 63, 64, 149):
        family = "random" if distribution == "one_sided" else f"{distribution} random"
        key = (zlib.crc32(f"NaCl/{family}/0.4".encode()), k)
        rng = np.random.Generator(np.random.PCG64(np.random.SeedSequence(2511, spawn_key=key)))
        u = {
            "uniform": lambda rng=rng: rng.uniform(-0.4, 0.4, 48),
            "one_sided": lambda rng=rng: rng.uniform(0.0, 0.4, 48),
            "gaussian": lambda rng=rng: 0.4 * rng.standard_normal(48),
        }[distribution]().reshape(16, 3)
        np.testing.assert_allclose(ours[k], u - u.mean(axis=0), rtol=0, atol=ROUNDING)


def test_published_distribution_is_the_default():
    assert RandomEnsemble([0.2], **OPTIONS).distribution == "one_sided"


@pytest.mark.parametrize(
    ("distribution", "largest"), [("uniform", 1.4), ("gaussian", 1.4), ("one_sided", 2.8)]
)
def test_too_large(rock_salt, distribution, largest):
    """More than half the shortest distance, 2.8 Ang: atoms could change places."""
    below = RandomEnsemble([largest - 0.01], distribution, **OPTIONS)
    next(below.batches("NaCl", rock_salt.supercell, largest - 0.01))
    above = RandomEnsemble([largest + 0.01], distribution, **OPTIONS)
    with pytest.raises(ValueError, match=r"half the shortest distance \(1.40 Ang\)"):
        next(above.snapshots(rock_salt, rock_salt.supercell, largest + 0.01))


def test_errors():
    with pytest.raises(ValueError, match=r"0.0 Ang; expected > 0"):
        RandomEnsemble([0.0], **OPTIONS)
    with pytest.raises(ValueError, match="'normal'; expected uniform, one_sided, gaussian"):
        RandomEnsemble([0.1], "normal", **OPTIONS)


@pytest.mark.parametrize("distribution", ["uniform", "one_sided", "gaussian"])
def test_sobol_points(nacl, distribution):
    crystal, model = nacl
    ensemble = RandomEnsemble([0.3], distribution, draws="sobol", **OPTIONS)
    u = draws(ensemble, crystal, model.ideal, 4096)
    sigma = {"uniform": 0.3 / 3**0.5, "one_sided": 0.3 / 12**0.5, "gaussian": 0.3}
    expected = sigma[distribution] * (1 - 1 / 16) ** 0.5
    np.testing.assert_allclose(u.std(axis=0), expected, rtol=0.012)
    assert u.std() == pytest.approx(expected, rel=0.001)
