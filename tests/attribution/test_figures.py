"""Figures of bonds are drawn without warnings, show their numbers and name their units."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
import pytest

from schnetpack_phonon.attribution import figures as bond_figures
from schnetpack_phonon.attribution.bond_attribution import attribute
from schnetpack_phonon.attribution.figures import bond_shares
from schnetpack_phonon.data.reading import Structure
from schnetpack_phonon.models.heads import Intensive
from tests.common.figure_fixtures import CRYSTALS, N_CRYSTALS, draw
from tests.models.model_fixtures import potential, thermal

LABEL = "band gap (eV)"


@pytest.fixture(scope="module")
def bonds() -> pd.DataFrame:
    (found,) = attribute(potential(Intensive(16, "y")), [Structure(*thermal())], "y")
    return found.bonds()


def test_against_length(bonds):
    """One panel a type, one dot a bond."""
    figure = bond_figures.against_length(bonds, LABEL)
    draw(figure)
    panels = [axis for axis in figure.axes if axis.axison]
    assert {a.get_title(loc="left") for a in panels} == set(bonds["bond_type"])
    for axis in panels:
        own = bonds[bonds["bond_type"] == axis.get_title(loc="left")]
        dots = [line for line in axis.lines if line.get_linestyle() == "None"]
        drawn = np.concatenate([line.get_xydata() for line in dots])
        expected = np.stack([own["distance"] - own["ideal_distance"], own["attribution"]], axis=1)
        np.testing.assert_allclose(np.sort(drawn, axis=0), np.sort(expected, axis=0))
    assert LABEL in figure.get_supylabel()
    assert "Å" in figure.get_supxlabel()


def test_predicted_against_actual():
    x = np.arange(6.0)
    table = pd.DataFrame({"index": [0, 0, 0, 1, 1, 1], "structure": "A", "predicted": x})
    figure = bond_figures.predicted_against_actual(table.assign(actual=2 * x), 0.987, LABEL)
    draw(figure)
    (axis,) = figure.axes
    np.testing.assert_allclose(axis.lines[0].get_xydata(), [[-1, -2], [0, 0], [1, 2]] * 2)
    assert "0.99" in axis.get_title()
    assert LABEL in axis.get_xlabel()
    assert LABEL in axis.get_ylabel()


@pytest.mark.parametrize("titles", [["one"], ["phonon", "random"]])
def test_snapshot(bonds, titles):
    """Bonds as two halves, each from its own atom, all pictures on one scale."""
    atoms = thermal()[1]
    figure = bond_figures.snapshot(dict.fromkeys(titles, (atoms, bonds)), LABEL, drawn=1.0)
    draw(figure)
    *axes, bar = figure.axes
    assert [axis.get_title() for axis in axes] == titles
    assert LABEL in bar.get_ylabel()
    for axis in axes:
        lengths = [np.linalg.norm(b - a) for a, b in axis.collections[0]._segments3d]
        assert np.sum(lengths) == pytest.approx(bonds["distance"].sum())


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
