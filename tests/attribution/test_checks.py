"""Checks against closed forms, a verdict that says no more, and checks of several runs."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from schnetpack_phonon.attribution.checks import (
    checks_table,
    checks_text,
    correlation,
    missed_shares,
    stability,
    verdict,
)
from tests.evaluation.comparison.comparison_fixtures import runs_table


def test_correlation_is_within_structures():
    """Two structures far apart, in each of which nothing is predicted."""
    x = np.random.default_rng(0).normal(size=200)
    table = pd.DataFrame({"index": np.repeat([0, 1], 100), "predicted": x, "actual": x[::-1]})
    shifted = table.assign(predicted=x + 100 * table["index"], actual=x[::-1] + table["index"])
    assert abs(correlation(table)) < 0.2
    assert correlation(shifted) == pytest.approx(correlation(table))
    assert np.isnan(correlation(table.assign(actual=0.0)))


def test_stability_is_the_mean_over_pairs_of_runs():
    keys = {k: np.arange(50) for k in ("i", "j", "image_x", "image_y", "image_z")}
    a, b, c = np.random.default_rng(0).normal(size=(3, 50))
    tables = [pd.DataFrame({"index": 0, **keys, "attribution": x}) for x in (a, a + b, c)]
    expected = np.mean([np.corrcoef(*p)[0, 1] for p in ((a, a + b), (a, c), (a + b, c))])
    shuffled = [tables[0].sample(frac=1, random_state=0), *tables[1:]]
    assert stability(shuffled) == pytest.approx(expected)


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
        ({}, "an effect of training"),
        ({"control": 0.85}, "no clear effect of training"),
        ({"n": 5}, "5 structures are too few for intervals"),
        ({"n": 2}, "at least 3"),
        ({"residual": 0.05}, "12 of 12 miss more than 1 %"),
    ],
)
def test_verdict_says_what_the_checks_support(given, said):
    text = "\n".join(verdict(*tables(**given)))
    assert said in text
    assert "predict well" in text
    assert "one run only" in text
    assert ("carries" not in text) == (given.get("n") == 2)
    assert (", more than any other" in text) == (given.get("n", 12) > 5)
    assert ("an effect of training" in text) == (given in ({}, {"residual": 0.05}))


def test_verdict_on_a_property_that_no_bond_changes():
    structures, shares, frozen = tables(residual=0.9)
    text = "\n".join(verdict(structures, shares, frozen.assign(actual=0.0)))
    assert "Faithfulness: undefined" in text
    assert "shares are undefined" in text
    assert "nan" not in text


def test_verdict_names_terms_that_are_not_included():
    structures, shares, frozen = tables()
    noise = frozen.assign(actual=frozen["actual"].to_numpy()[::-1])
    text = "\n".join(verdict(structures, shares, noise, 0.5, ["EnergyEwald"], "mask"))
    assert "predict poorly" in text
    assert "r = 0.50" in text
    assert "EnergyEwald" in text
    assert "far from all training data" in text


@pytest.mark.parametrize(
    ("change", "resolution", "said"),
    [
        (0.0, 0.0, "Completeness: not resolved, "),
        (1e-6, 1e-5, "Completeness: not resolved, "),
        ([0.0, 1.0], 0.01, "at most 50.00% of a structure's change (1 of 2 miss more than 1 %)."),
        ([1e-3, 1e-2], 5e-3, "(1 of 2 miss more than 1 %, not resolved for 1 of 2)."),
    ],
)
def test_completeness_of_a_change_that_is_not_resolved(change, resolution, said):
    """Never 0/0 = 0 %; where the mean change is resolved, its tenth is the scale of small ones."""
    table = pd.DataFrame({"model": "trained", "structure": "x", "change": np.atleast_1d(change)})
    table = table.assign(residual=table["change"] / 2, resolution=resolution)
    shares = pd.DataFrame(columns=["structure", "model", "bond_type", "share", "low", "high"])
    found = verdict(table, shares, pd.DataFrame())[0]
    assert said in found
    assert np.isnan(missed_shares(table)).any() == ("not resolved" in found)


BONDS = {"i": [0, 0, 1, 1], "j": [1, 2, 0, 2], "image_x": 0, "image_y": 0, "image_z": 0}


def attributed(folder, missed, r, bonds, control=(0.0, 0.1)):
    """Files of the callback: three structures, one of them with a residual; two crystals."""
    folder.mkdir(parents=True)
    trained = pd.DataFrame({"index": [0, 1, 2], "change": 1.0, "residual": [0.0, -missed, 0.0]})
    untrained = trained.assign(model="untrained", residual=0.5)
    both = pd.concat([trained.assign(model="trained"), untrained])
    both.to_csv(folder / "bond_attribution.csv", index=False)
    x, y = np.array([1, -1, 1, -1]), np.array([1, 1, -1, -1])  # not correlated
    frozen = {"index": 0, "predicted": x, "actual": r * x + np.sqrt(1 - r**2) * y}
    pd.DataFrame(frozen).to_csv(folder / "bond_faithfulness.csv", index=False)
    table = pd.DataFrame({"index": 0, **BONDS, "attribution": bonds})
    table.to_csv(folder / "bonds.csv", index=False)
    rows = [
        (crystal, "trained", bond, share, share - 0.1, share + 0.1)
        for crystal in ("A", "B")
        for bond, share in (("Ag-Br", 0.7), ("Ag-Ag", 0.3))
    ]
    rows += [("A", "untrained", "Ag-Br", 0.05, *control), ("B", "untrained", "Ag-Br", 0.7, 0.5, 1)]
    columns = ["structure", "model", "bond_type", "share", "low", "high"]
    pd.DataFrame(rows, columns=columns).to_csv(folder / "bond_shares.csv", index=False)


@pytest.fixture
def runs(tmp_path):
    """Two seeds on phonon, one on random, one without attributions."""
    attributed(tmp_path / "phonon_10_0", 0.002, 0.9, [1, 2, 3, 4])
    attributed(tmp_path / "phonon_10_1", 0.001, 0.7, [1, 3, 2, 4])
    attributed(tmp_path / "random_10_0", 0.03, -0.2, [1, 2, 3, 4], control=(0.0, 0.65))
    table = runs_table({"phonon": 10, "random": 10, "matched": 10}, n_seeds=2)
    return table.assign(run=[str(tmp_path / run) for run in table["run"]])


def test_checks_of_several_runs(runs):
    table = checks_table(runs).set_index("model")
    assert list(table.index) == ["phonon, N = 10", "random, N = 10"]
    phonon, random = table.iloc[0], table.iloc[1]
    assert (phonon["n_runs"], phonon["n_structures"]) == (2, 6)
    assert phonon["missed"] == pytest.approx(0.002)
    assert phonon["faithfulness"] == pytest.approx(0.8)
    assert phonon["faithfulness_sd"] == pytest.approx(0.1 * np.sqrt(2))
    assert phonon["stability"] == pytest.approx(0.8)  # of 1, 2, 3, 4 and 1, 3, 2, 4
    assert (phonon["n_clear"], phonon["n_leading"]) == (2, 4)
    assert random["missed"] == pytest.approx(0.03)
    assert random["faithfulness"] == pytest.approx(-0.2)
    assert np.isnan(random["stability"])
    assert (random["n_clear"], random["n_leading"]) == (0, 2)


def test_text_of_a_page(runs):
    first, second = checks_text(checks_table(runs)).to_dict("records")
    assert first == {
        "trained on": "phonon, N = 10",
        "runs": "2",
        "structures": "6",
        "bonds miss at most": "0.20%",
        "faithfulness r": "0.80 ± 0.14",
        "r between seeds": "0.80",
        "clear of untrained": "2 of 4",
    }
    assert second["faithfulness r"] == "-0.20"
    assert second["r between seeds"] == "not known"


def test_runs_of_the_first_versions(runs, tmp_path):
    """They hold attributions and shares alone."""
    for name in ("bonds.csv", "bond_faithfulness.csv"):
        for path in tmp_path.glob(f"*/{name}"):
            path.unlink()
    first = checks_text(checks_table(runs)).iloc[0]
    assert first["faithfulness r"] == first["r between seeds"] == "not known"
    assert first["bonds miss at most"] == "0.20%"


def test_no_attributions(runs):
    assert checks_table(runs[runs["ensemble"] == "matched"]).empty
