"""What each policy makes of frequencies, and which ones it refuses."""

import numpy as np
import pytest

from schnetpack_phonon.phonons.instabilities import Instabilities


@pytest.mark.parametrize(
    ("policy", "sampled"),
    [
        ("abs", [3.0, 0.5, 0.5, 4.0]),
        ("floor", [3.0, 1.5, 1.5, 4.0]),
        ("freeze", [0.0, 0.0, 0.0, 4.0]),
    ],
)
def test_policies(policy, sampled):
    frequencies = np.array([-3.0, -0.5, 0.5, 4.0])
    np.testing.assert_array_equal(Instabilities(policy, 1.5).apply(frequencies), sampled)


@pytest.mark.parametrize(
    ("policy", "frequencies", "named"),
    [
        ("error", [-2.0, 0.5, 3.0], "1 imaginary modes, the lowest at -2.00 THz, and 2 of 3"),
        ("error", [0.5, 3.0], "0 imaginary modes, .* 1 of 2 modes below 1.5 THz"),
        ("abs", [-2.0, 0.004, 3.0], "mode 1 has 0.0040 THz.*diverge"),
    ],
)
def test_policies_that_refuse(policy, frequencies, named):
    with pytest.raises(ValueError, match=named):
        Instabilities(policy, 1.5).apply(np.array(frequencies))


def test_policies_accept_a_stable_crystal():
    frequencies = np.array([1.6, 4.0])
    for policy in ("error", "abs", "floor", "freeze"):
        np.testing.assert_array_equal(Instabilities(policy, 1.5).apply(frequencies), frequencies)


@pytest.mark.parametrize("settings", [("drop", 1.5), ("floor", 0.0), ("floor", float("nan"))])
def test_instabilities_errors(settings):
    with pytest.raises(ValueError, match=r"policy is 'drop'; expected error, abs|expected > 0"):
        Instabilities(*settings)
