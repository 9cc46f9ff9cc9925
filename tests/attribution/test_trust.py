"""Trust figures against closed forms, and a verdict that says no more than they do."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from schnetpack_phonon.attribution import trust


def test_correlation_is_within_structures():
    """Two structures far apart, in each of which nothing is foretold."""
    x = np.random.default_rng(0).normal(size=200)
    table = pd.DataFrame({"index": np.repeat([0, 1], 100), "predicted": x, "actual": x[::-1]})
    shifted = table.assign(predicted=x + 100 * table["index"], actual=x[::-1] + table["index"])
    assert abs(trust.correlation(table)) < 0.2
    assert trust.correlation(shifted) == pytest.approx(trust.correlation(table))
    assert np.isnan(trust.correlation(table.assign(actual=0.0)))


def test_stability_is_the_mean_over_pairs_of_runs():
    keys = {k: np.arange(50) for k in ("i", "j", "image_x", "image_y", "image_z")}
    a, b, c = np.random.default_rng(0).normal(size=(3, 50))
    tables = [pd.DataFrame({"index": 0, **keys, "attribution": x}) for x in (a, a + b, c)]
    expected = np.mean([np.corrcoef(*p)[0, 1] for p in ((a, a + b), (a, c), (a + b, c))])
    shuffled = [tables[0].sample(frac=1, random_state=0), *tables[1:]]
    assert trust.stability(shuffled) == pytest.approx(expected)


def tables(n: int = 12, residual: float = 0.0, control: float = 0.2):
    change = np.linspace(-1, 1, n)
    structures = pd.DataFrame({"model": "trained", "structure": "x", "change": change})
    structures = structures.assign(residual=residual * change)
    rows = [("trained", "Ag-S", 0.9), ("trained", "Ag-Ag", 0.1)]
    rows += [("untrained", "Ag-S", control), ("untrained", "Ag-Ag", 1 - control)]
    shares = pd.DataFrame(rows, columns=["model", "bond_type", "share"])
    shares = shares.assign(structure="x", low=shares["share"] - 0.1, high=shares["share"] + 0.1)
    x = np.random.default_rng(0).normal(size=40)
    return (
        structures,
        shares,
        pd.DataFrame({"index": 0, "predicted": x, "actual": x, "displaced": x}),
    )


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({}, "training made the difference"),
        ({"control": 0.85}, "not clearly learnt"),
        ({"n": 5}, "5 structures are too few for intervals"),
        ({"n": 2}, "at least 3"),
        ({"residual": 0.05}, "12 of 12 miss more than 1 %"),
    ],
)
def test_verdict_says_what_the_figures_support(given, said):
    text = "\n".join(trust.verdict(*tables(**given)))
    assert said in text
    assert "foretell well" in text
    assert "one run only" in text
    assert ("carries" not in text) == (given.get("n") == 2)
    assert (", more than any other" in text) == (given.get("n", 12) > 5)
    assert ("training made the difference" in text) == (given in ({}, {"residual": 0.05}))


def test_verdict_on_a_property_that_no_bond_changes():
    structures, shares, frozen = tables(residual=0.9)
    text = "\n".join(trust.verdict(structures, shares, frozen.assign(actual=0.0)))
    assert "Faithfulness: undefined" in text
    assert "shares are undefined" in text
    assert "nan" not in text


def test_verdict_names_what_is_not_seen():
    structures, shares, frozen = tables()
    noise = frozen.assign(actual=frozen["actual"].to_numpy()[::-1])
    text = "\n".join(trust.verdict(structures, shares, noise, 0.5, ["EnergyEwald"], "mask"))
    assert "foretell badly" in text
    assert "r = 0.50" in text
    assert "EnergyEwald" in text
    assert "far from all training data" in text
