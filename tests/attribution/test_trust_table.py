"""Trust figures of several runs, from tables whose figures are known."""

import numpy as np
import pandas as pd
import pytest

from schnetpack_phonon.attribution.trust import trust_table, trust_text
from tests.evaluation.comparison.comparison_fixtures import runs_table

BONDS = {"i": [0, 0, 1, 1], "j": [1, 2, 0, 2], "image_x": 0, "image_y": 0, "image_z": 0}


def attributed(folder, missed, r, bonds, control=(0.0, 0.1)):
    """What the callback leaves: three structures, one of them with a miss; two crystals."""
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


def test_figures_side_by_side(runs):
    table = trust_table(runs).set_index("model")
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


def test_in_words(runs):
    first, second = trust_text(trust_table(runs)).to_dict("records")
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
    first = trust_text(trust_table(runs)).iloc[0]
    assert first["faithfulness r"] == first["r between seeds"] == "not known"
    assert first["bonds miss at most"] == "0.20%"


def test_no_attributions(runs):
    assert trust_table(runs[runs["ensemble"] == "matched"]).empty
