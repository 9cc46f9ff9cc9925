"""Figures hold the numbers of their tables, draw without a warning and name their units."""

from __future__ import annotations

import io
from collections.abc import Sequence

import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure

from schnetpack_phonon.attribution.figures import bond_shares
from schnetpack_phonon.data.card import distribution
from schnetpack_phonon.evaluation.run_report import parity

CRYSTALS = ("Ag3SBr", "Ag3SI", "Ag3SeBr", "Ag3SeI")
N_CRYSTALS = pytest.mark.parametrize("crystals", [CRYSTALS[:1], CRYSTALS], ids=["one", "four"])


def draw(figure: Figure) -> None:
    """Renders a figure; layout and missing glyphs warn only here."""
    file = io.BytesIO()
    figure.savefig(file, format="png", dpi=60)
    assert file.getvalue().startswith(b"\x89PNG")


def predictions(crystals: Sequence[str], keys: Sequence[str]) -> pd.DataFrame:
    rng = np.random.default_rng(0)
    rows = [(key, crystal) for key in keys for crystal in crystals for _ in range(5)]
    table = pd.DataFrame(rows, columns=["property", "structure"])
    return table.assign(
        label=rng.normal(size=len(rows)), prediction=rng.normal(size=len(rows))
    ).sample(frac=1, random_state=0)


@N_CRYSTALS
@pytest.mark.parametrize("n_keys", [1, 3])
def test_parity(crystals, n_keys):
    """One marker a structure; energies, whose zero is arbitrary, about their crystal's mean."""
    units = {"band_gap": "eV", "hydrostatic_stress": "GPa", "energy_per_atom": "meV"}
    keys = list(units)[:n_keys]
    titles = ["MAE 0.0123 eV,  R² 0.900", "MAE 4.5 GPa,  R² 0.800"]
    titles.append("MAE 678 meV,  R² within crystals 0.300")
    errors = {"mae": [0.0123, 4.5, 678.0], "r2": [0.9, 0.8, 0.7], "r2_crystal": [0.1, 0.2, 0.3]}
    table = predictions(crystals, keys)
    figure = parity(table, pd.DataFrame(errors, index=list(units)).loc[keys])
    draw(figure)
    panels = [axis for axis in figure.axes if axis.axison]
    assert [axis.get_title() for axis in panels] == titles[:n_keys]
    for axis, key in zip(panels, keys, strict=True):
        assert axis.get_xlabel().endswith(f"({units[key]})")
        assert axis.get_ylabel().endswith(f"({units[key]})")
        assert ("crystal mean" in axis.get_xlabel()) == (key == "energy_per_atom")
        assert axis.get_xlim() == axis.get_ylim()
        lines = {line.get_label(): line for line in axis.lines if line.get_label() in crystals}
        assert set(lines) == set(crystals)
        for crystal, line in lines.items():
            own = table[(table["property"] == key) & (table["structure"] == crystal)]
            zero = own["label"].mean() if key == "energy_per_atom" else 0.0
            expected = own[["label", "prediction"]] - zero
            np.testing.assert_allclose(line.get_xydata(), expected, atol=1e-12)
            low, high = axis.get_xlim()
            assert ((line.get_xydata() > low) & (line.get_xydata() < high)).all()
        assert len({(line.get_color(), line.get_marker()) for line in lines.values()}) == len(lines)
        (diagonal,) = (line for line in axis.lines if line.get_label() not in crystals)
        np.testing.assert_array_equal(diagonal.get_xdata(), diagonal.get_ydata())
    assert [text.get_text() for text in panels[0].get_legend().get_texts()] == list(crystals)


def test_parity_of_one_structure():
    """A test set may be that small; its axes have a width all the same."""
    table = predictions(CRYSTALS[:1], ["band_gap"]).head(1).assign(label=1.0, prediction=1.0)
    errors = pd.DataFrame({"mae": [0.0], "r2": [np.nan], "r2_crystal": [np.nan]}, ["band_gap"])
    figure = parity(table, errors)
    draw(figure)
    low, high = figure.axes[0].get_xlim()
    assert low < 1.0 < high


@N_CRYSTALS
@pytest.mark.parametrize("temperatures", [(300.0,), (100.0, 200.0, 350.0)])
def test_distribution(crystals, temperatures):
    """One panel a crystal, every label a dot in the column of its temperature, and the means."""
    rows = [(c, t) for c in crystals for t in temperatures for _ in range(int(t) // 25)]
    table = pd.DataFrame(rows, columns=["structure", "temperature"])
    table["label"] = np.random.default_rng(1).normal(1.0, 0.1, len(rows))
    figure = distribution(table, "temperature", "K")
    draw(figure)
    assert [axis.get_title() for axis in figure.axes] == list(crystals)
    assert figure.axes[0].get_ylabel().endswith("band gap (eV)")
    for axis, crystal in zip(figure.axes, crystals, strict=True):
        assert axis.get_xlabel() == "temperature (K)"
        ticks = [text.get_text() for text in axis.get_xticklabels()]
        assert ticks == [f"{t:g}" for t in temperatures]
        points = np.concatenate([line.get_xydata() for line in axis.lines])
        for position, temperature in enumerate(temperatures):
            own = table[(table["structure"] == crystal) & (table["temperature"] == temperature)]
            drawn = points[np.abs(points[:, 0] - position) < 0.4, 1]
            expected = [*own["label"], own["label"].mean()]
            np.testing.assert_allclose(np.sort(drawn), np.sort(expected))


def shares(crystals: Sequence[str]) -> pd.DataFrame:
    bonds = ("Ag-S", "Ag-Ag", "Ag-Br")
    rows = [(c, m, b) for c in crystals for m in ("trained", "untrained") for b in bonds]
    table = pd.DataFrame(rows, columns=["structure", "model", "bond_type"])
    table["share"] = np.random.default_rng(2).normal(0.3, 0.4, len(rows))
    return table.assign(low=table["share"] - 0.1, high=table["share"] + 0.2)


@N_CRYSTALS
def test_bond_shares(crystals):
    """Bars are shares, largest first, the control beside them, whiskers from low to high."""
    table = shares(crystals)
    figure = bond_shares(table, "band_gap")
    draw(figure)
    assert "band gap" in figure.get_suptitle()
    panels = [axis for axis in figure.axes if axis.axison]
    assert [axis.get_title(loc="left") for axis in panels] == list(crystals)
    for axis, crystal in zip(panels, crystals, strict=True):
        own = table[table["structure"] == crystal].set_index(["model", "bond_type"])
        types = [label.get_text() for label in axis.get_xticklabels()]
        trained = own.loc["trained", "share"]
        assert types == list(trained.sort_values(ascending=False).index)
        bars = [group for group in axis.containers if group.get_label() in ("trained", "untrained")]
        for group, lines in zip(bars, axis.collections, strict=True):
            rows = own.loc[group.get_label()].loc[types]
            np.testing.assert_allclose([bar.get_height() for bar in group], rows["share"])
            centres = [bar.get_x() + bar.get_width() / 2 for bar in group]
            assert np.abs(np.subtract(centres, range(len(types)))).max() < 0.5
            whiskers = np.array([segment[:, 1] for segment in lines.get_segments()])
            np.testing.assert_allclose(whiskers, rows[["low", "high"]])
        assert [group.get_label() for group in bars] == ["trained", "untrained"]


def test_bond_shares_without_a_control_for_a_type():
    table = shares(CRYSTALS[:1])
    figure = bond_shares(table.drop(index=4), "band_gap")
    draw(figure)
    heights = [bar.get_height() for bar in figure.axes[0].patches]
    assert np.isfinite(heights).sum() == 5
