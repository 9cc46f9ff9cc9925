"""Bootstrap against closed forms; streams are NumPy's own, one by one or many at once."""

import zlib

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from schnetpack_phonon.common.random import (
    N_BOOTSTRAP,
    drawn,
    interval,
    snapshot_stream,
    snapshot_streams,
)


def test_samples_are_those_of_a_bootstrap():
    """As many as there are, each one binomial; the same as of the drawn numbers themselves."""
    counts = drawn(20, np.random.default_rng(1))
    assert counts.shape == (N_BOOTSTRAP, 20)
    assert (counts.sum(axis=1) == 20).all()
    assert counts.var() == pytest.approx(1 - 1 / 20, rel=0.03)  # n p (1 - p)
    values = np.random.default_rng(2).normal(size=20)
    chosen = np.random.default_rng(1).integers(20, size=(N_BOOTSTRAP, 20))
    np.testing.assert_allclose(counts @ values / 20, values[chosen].mean(axis=1), atol=1e-12)


def test_interval():
    """Of numbers 0 to 1000, and a column each."""
    assert interval(np.arange(1001.0)) == pytest.approx([25, 975])
    both = interval(np.stack([np.arange(1001.0), -np.arange(1001.0)], axis=1))
    np.testing.assert_allclose(both, [[25, -975], [975, -25]])


def published_stream(seed: int, group: str, index: int) -> np.random.Generator:
    """PCG64 of SeedSequence(seed) with the spawn key (crc32 of the group's name, index)."""
    key = (zlib.crc32(group.encode("utf-8")), index)
    return np.random.default_rng(np.random.SeedSequence(entropy=seed, spawn_key=key))


@pytest.mark.parametrize("group", ["NaCl/phonon/300.0", "Ag3S(Br,I)-7/random/0.2", "α/β"])
def test_stream_is_the_published_one(group):
    """Labels that were paid for depend on it: the numbers may never change."""
    for index in (0, 1, 4096):
        ours = snapshot_stream(7, group, index)
        np.testing.assert_array_equal(
            ours.standard_normal(10), published_stream(7, group, index).standard_normal(10)
        )


def test_stream_in_numbers():
    """Written down with NumPy 2.5; the generator and its seeding are frozen (NEP 19)."""
    first = snapshot_stream(2511, "NaCl/random/0.2", 3).bit_generator.random_raw(2)
    assert first.tolist() == [6079603676396862943, 7952006778506742281]


@given(st.integers(0, 2**200), st.text(), st.integers(0, 2**32 - 9), st.sampled_from([1, 2]))
@example(0, "", 0, 1)
@example(2**32, "Ag3SBr/phonon/300.0", 2**32 - 9, 1)
def test_many_streams_are_the_single_ones(seed, group, first, step):
    """To the last bit of their states, however many words the seed has."""
    indices = range(first, first + 8, step)
    found = [s.bit_generator.state for s in snapshot_streams(seed, group, indices)]
    assert found == [published_stream(seed, group, k).bit_generator.state for k in indices]


def test_numbers_left_over_are_not_passed_on():
    """Of a 64-bit number that a 32-bit one was taken from."""
    for k, stream in enumerate(snapshot_streams(3, "a", range(4))):
        expected = published_stream(3, "a", k).integers(2**31, size=3, dtype=np.uint32)
        np.testing.assert_array_equal(stream.integers(2**31, size=3, dtype=np.uint32), expected)
