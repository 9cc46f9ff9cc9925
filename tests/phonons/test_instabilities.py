"""What each policy makes of frequencies, which ones it refuses, and what it is called."""

import numpy as np
import pytest

from schnetpack_phonon.phonons.instabilities import Instabilities

FREQUENCIES = np.array([-3.0, -0.5, 0.5, 1.2, 4.0])


@pytest.mark.parametrize(
    ("policy", "imaginary"), [("abs", [3.0, 0.5]), ("floor", [3.0, 1.5]), ("freeze", [0.0, 0.0])]
)
@pytest.mark.parametrize(
    ("min_frequency", "real"), [(0.0, [0.5, 1.2, 4.0]), (1.0, [1.0, 1.2, 4.0])]
)
def test_policies_change_imaginary_modes_only(policy, imaginary, min_frequency, real):
    sampled = Instabilities(policy, 1.5, min_frequency).apply(FREQUENCIES)
    np.testing.assert_array_equal(sampled, [*imaginary, *real])


@pytest.mark.parametrize("policy", ["error", "abs", "floor", "freeze"])
def test_soft_real_modes_stay(policy):
    frequencies = np.array([0.011, 0.4, 1.4, 4.0])
    np.testing.assert_array_equal(Instabilities(policy).apply(frequencies), frequencies)


@pytest.mark.parametrize("noise", [-0.009, 0.0, 0.009])
def test_frequencies_of_zero_within_noise_count_as_imaginary(noise):
    frequencies = np.array([noise, 4.0])
    assert Instabilities("floor", 1.5).apply(frequencies).tolist() == [1.5, 4.0]
    assert Instabilities("freeze").apply(frequencies).tolist() == [0.0, 4.0]
    for policy in ("error", "abs"):
        with pytest.raises(ValueError, match=r"use policy 'floor'|use 'floor'"):
            Instabilities(policy).apply(frequencies)


@pytest.mark.parametrize(
    ("policy", "frequencies", "named"),
    [
        ("error", [-2.0, 0.5, 3.0], "1 of 3 modes are imaginary .* the lowest at -2.00 THz"),
        ("abs", [-2.0, 0.004, 3.0], "mode 1 has 0.0040 THz.*diverge"),
    ],
)
def test_policies_that_refuse(policy, frequencies, named):
    with pytest.raises(ValueError, match=named):
        Instabilities(policy, 1.5).apply(np.array(frequencies))


@pytest.mark.parametrize(
    ("options", "settings", "words"),
    [
        # As version 0.1 had them, where the floor raised real modes too.
        (("floor", 1.0, 1.0), {}, "floor 1 THz"),
        (("abs", 1.0), {}, "abs"),
        (("error", 1.0), {}, "error"),
        # New ones.
        (("floor", 1.0), {"min_frequency": 0.0}, "floor 1 THz for imaginary modes"),
        (("freeze", 1.0), {"min_frequency": 0.0}, "freeze for imaginary modes"),
        (("abs", 1.0, 0.5), {"min_frequency": 0.5}, "abs, real modes at least 0.5 THz"),
        (("error", 1.0, 1), {"min_frequency": 1.0}, "error, real modes at least 1 THz"),
        (
            ("floor", 1.0, 0.5),
            {"min_frequency": 0.5},
            "floor 1 THz for imaginary modes, real modes at least 0.5 THz",
        ),
    ],
)
def test_one_description_means_one_thing(options, settings, words):
    instabilities = Instabilities(*options)
    assert instabilities.settings == {"policy": options[0], "floor": 1.0, **settings}
    assert str(instabilities) == words


@pytest.mark.parametrize(
    "settings", [("drop", 1.5), ("floor", 0.0), ("floor", float("nan")), ("floor", 1.5, -1.0)]
)
def test_instabilities_errors(settings):
    with pytest.raises(ValueError, match=r"policy is 'drop'; expected error, abs|expected >"):
        Instabilities(*settings)
