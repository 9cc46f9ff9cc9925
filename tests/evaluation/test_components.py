"""Numbers, tensors and forces as one table of components."""

import numpy as np
import pandas as pd
import pytest

from schnetpack_phonon.evaluation.test_sets import cell, stacked


@pytest.mark.parametrize(
    ("key", "shape", "n_atoms", "expected"),
    [
        ("band_gap", (1,), 5, ()),
        ("band_gap", (), 5, ()),
        ("stress", (1, 3, 3), 3, (1, 9)),
        ("elastic_tensor", (6, 6), 6, (1, 36)),
        ("forces", (5, 3), 5, (5, 3)),
        ("forces", (1, 3), 1, (1, 3)),
        ("of_the_user", (1, 4), 5, (1, 4)),
        ("charges_of_the_user", (5,), 5, (5, 1)),
    ],
)
def test_cells(key, shape, n_atoms, expected):
    value = np.random.default_rng(0).normal(size=shape)
    found = cell(key, value, n_atoms)
    assert np.shape(found) == expected
    np.testing.assert_array_equal(np.ravel(found), value.ravel())


def test_means_and_largest_of_each_structure():
    """Against each structure alone; the second has no value."""
    rng = np.random.default_rng(1)
    cells = [rng.normal(size=(n, 3)) for n in (2, 5, 1)]
    values = stacked(pd.Series([cells[0], np.nan, *cells[1:]]))
    assert list(values.counts) == [2, 0, 5, 1]
    assert list(values.structure) == [0, 0, 2, 2, 2, 2, 2, 3]
    expected = [cells[0].mean(), np.nan, cells[1].mean(), cells[2].mean()]
    np.testing.assert_allclose(values.mean(values.rows), expected)
    expected = [cells[0].max(), np.nan, cells[1].max(), cells[2].max()]
    np.testing.assert_array_equal(values.largest(values.rows), expected)


def test_some_structures_in_any_order():
    cells = [np.full((n, 2), float(n)) for n in (2, 1, 3)]
    values = stacked(pd.Series([*cells, np.nan])).of(np.array([2, 3, 0]))
    assert list(values.counts) == [3, 0, 2]
    np.testing.assert_array_equal(values.rows, np.concatenate([cells[2], cells[0]]))


def test_numbers_are_rows_of_one_component():
    values = stacked(pd.Series([1.0, np.nan, 3.0]))
    np.testing.assert_array_equal(values.rows, [[1.0], [3.0]])
    assert stacked(pd.Series([np.nan, np.nan])).rows.shape == (0, 1)
