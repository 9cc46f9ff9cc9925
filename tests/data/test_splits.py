"""Partitions of a database by parent, and epochs of one size."""

from collections import Counter
from itertools import chain

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from schnetpack.data import ASEAtomsData

from schnetpack_phonon.common import properties
from schnetpack_phonon.data.database import write_database
from schnetpack_phonon.data.splits import EpochSampler, NestedSplit, ParentSplit


@pytest.fixture(scope="session")
def make_dataset(tmp_path_factory, make_snapshots):
    def make(parents: list[str]) -> ASEAtomsData:
        path = tmp_path_factory.mktemp("split") / "data.db"
        labels = [{properties.energy: np.zeros(1)}] * len(parents)
        write_database(path, make_snapshots(parents), labels, {}, {})
        return ASEAtomsData(str(path))

    return make


@settings(max_examples=20, deadline=None)
@given(data=st.data())
def test_no_parent_on_two_sides(make_dataset, data):
    """Whatever the parents and sizes: no leak, no repeat, short by less than one parent."""
    parents = data.draw(
        st.lists(st.sampled_from("abcdefghij").map("p/{}".format), min_size=3, max_size=20)
    )
    n, largest = len(parents), max(Counter(parents).values())
    sizes = data.draw(st.sampled_from([(n // 2, None, 0), (0.5, 0.2, None), (1, n // 3, n // 3)]))
    absolute = [s if s is None or s >= 1 else int(s * n) for s in sizes]
    asked = [n - sum(filter(None, absolute)) if s is None else s for s in absolute]
    dataset = make_dataset(parents)
    try:
        partitions = ParentSplit(seed=data.draw(st.integers(0, 99))).split(dataset, *sizes)
    except ValueError as error:
        assert "no parent fits" in str(error)  # noqa: PT017
        assert min(filter(None, asked)) < largest
        return
    assert max(Counter(chain(*partitions)).values()) == 1
    sides = [{parents[i] for i in part} for part in partitions]
    assert sum(map(len, sides)) == len(set.union(*sides))
    for part, size in zip(partitions, asked, strict=True):
        assert size - largest < len(part) <= size


@pytest.fixture(scope="module")
def dataset(make_dataset):
    """40 structures of 20 parents."""
    return make_dataset([f"p/{i // 2}" for i in range(40)])


@pytest.mark.parametrize(
    ("sizes", "expected"),
    [
        ((20, 10, None), [20, 10, 10]),
        ((0.5, 0.25, None), [20, 10, 10]),
        ((20, 0.25, 4), [20, 10, 4]),
        ((None, 6, 6), [28, 6, 6]),
        ((13, 11, None), [12, 10, 16]),
        ((30, 10, 0), [30, 10, 0]),
        ((1.0, 0, 0), [40, 0, 0]),
        ((1.0, None, 0.0), [40, 0, 0]),
    ],
)
def test_sizes(dataset, sizes, expected):
    assert [len(part) for part in ParentSplit(seed=0).split(dataset, *sizes)] == expected


def test_seed_makes_the_split(dataset):
    one, again, other = (ParentSplit(seed).split(dataset, 20, 10, None) for seed in (1, 1, 2))
    assert one == again
    assert one != other
    assert sorted(one[0]) != list(range(20))


@pytest.mark.parametrize(
    ("sizes", "named"),
    [
        ((30, 20, None), "cannot split 40 structures"),
        ((None, None, 5), "at most one None"),
        ((1, 10, 10), "no parent fits in a partition of 1"),
        ((-1, 10, 10), "cannot split|no parent fits"),
        ((1.0, 0.1, 0.1), "cannot split 40 structures"),
        ((20.0, 10, 10), "a partition of 20.0 structures; expected a number .* as an integer"),
        ((0.5, -0.1, 0.1), "a partition of -0.1 structures"),
    ],
)
def test_size_errors(dataset, sizes, named):
    with pytest.raises(ValueError, match=named):
        ParentSplit(seed=0).split(dataset, *sizes)


def test_rows_without_a_parent(dataset):
    with pytest.raises(ValueError, match=r"row 0 of .* has no key-value pair 'grandparent'"):
        ParentSplit(seed=0, key="grandparent").split(dataset, 20, 10, None)


def test_small_training_sets_lie_in_large_ones(dataset):
    """With one validation set and one test set for all sizes, the test set for all seeds."""
    found = {
        (n, seed): NestedSplit(seed).split(dataset, n, 6, 10)
        for n in (4, 12, 24)
        for seed in (1, 2)
    }
    tests = {tuple(test) for _, _, test in found.values()}
    assert len(tests) == 1
    for seed in (1, 2):
        small, middle, large = (set(found[n, seed][0]) for n in (4, 12, 24))
        assert small < middle < large
        assert len({tuple(found[n, seed][1]) for n in (4, 12, 24)}) == 1
    assert found[12, 1][0] != found[12, 2][0]
    for train, val, test in found.values():
        sides = [{i // 2 for i in part} for part in (train, val, test)]
        assert sum(map(len, sides)) == len(set.union(*sides))
        assert (len(val), len(test)) == (6, 10)


def test_test_set_has_its_own_seed(dataset):
    one, other = (NestedSplit(1, test_seed=k).split(dataset, 4, 6, 10)[2] for k in (0, 1))
    assert one != other
    with pytest.raises(ValueError, match="cannot split 40 structures"):
        NestedSplit(1).split(dataset, 30, 6, 10)


@pytest.mark.parametrize(("n", "size"), [(4, 10), (10, 10), (30, 10)])
def test_epochs_have_each_structure_as_often_as_the_others(n, size):
    torch.manual_seed(0)
    sampler = EpochSampler(range(n), num_samples=n, epoch_size=size)
    drawn = Counter(sampler)
    assert len(sampler) == sum(drawn.values()) == size
    times = [drawn[k] for k in range(n)]
    assert max(times) - min(times) <= 1
    assert list(sampler) != list(sampler)  # in random order
