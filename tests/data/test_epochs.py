"""Epochs of one size."""

from collections import Counter

import pytest

from schnetpack_phonon.data.splits import EpochSampler


@pytest.mark.parametrize(("n", "size"), [(4, 10), (10, 10), (30, 10)])
def test_each_structure_comes_as_often_as_the_others(n, size):
    sampler = EpochSampler(range(n), num_samples=n, epoch_size=size)
    drawn = Counter(sampler)
    assert len(sampler) == sum(drawn.values()) == size
    times = [drawn[k] for k in range(n)]
    assert max(times) - min(times) <= 1


def test_order_is_random():
    sampler = EpochSampler(range(50), num_samples=50, epoch_size=50)
    assert list(sampler) != list(sampler)
