"""Correlation times against closed forms."""

import numpy as np
import pytest

from schnetpack_phonon.ensembles.dynamics.sampling import correlation_time


@pytest.mark.parametrize("memory", [0.0, 0.5, 0.9])
def test_autoregressive_process(memory):
    """C(k) = a^k: by the trapezoidal rule 1/2 + a / (1 - a)."""
    rng = np.random.default_rng(1)
    values = np.zeros((20_000, 3))
    for k, noise in enumerate(rng.normal(size=values.shape)):
        values[k] = memory * values[k - 1] + noise
    expected = 0.5 + memory / (1 - memory)
    assert correlation_time(values, every=0.1) == pytest.approx(0.1 * expected, rel=0.1)


def test_an_oscillation_is_as_long_as_its_envelope():
    """exp(-t/10) cos(t): the mean of |cos| is 2/pi; without it the integral would be 0.1."""
    times = np.arange(0, 4000, 0.1)
    rng = np.random.default_rng(2)
    decay = np.exp((-1 / 10 + 1j) * 0.1)
    values = np.empty(len(times), complex)
    values[0] = 0
    noise = rng.normal(size=(len(times), 2)) @ [1, 1j]
    for k in range(1, len(times)):
        values[k] = decay * values[k - 1] + noise[k]
    found = correlation_time(np.c_[values.real, values.imag], 0.1)
    assert found == pytest.approx(10 * 2 / np.pi, rel=0.3)


def test_what_does_not_move_has_no_memory():
    assert correlation_time(np.ones((10, 2))) == 0.0
