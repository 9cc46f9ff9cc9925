"""Figures hold the numbers of their tables and draw without a warning."""

import numpy as np
import pandas as pd

from schnetpack_phonon.evaluation.thermal import page as figures
from tests.common.figure_fixtures import draw


def averages():
    rows = [
        {
            "structure": "Ag3SBr",
            "property": key,
            "temperature": t,
            "statistics": statistics,
            "estimate": estimate,
            "value": value - t / 1000,
            "error": 0.01,
            "seed_sd": 0.02,
        }
        for key, value in (("band_gap", 1.0), ("energy_per_atom", -500.0))
        for t in (0.0, 300.0)
        for statistics in ("quantum", "classical")
        for estimate in ("ensemble", "special", "labels")
    ]
    return pd.DataFrame(rows)


def test_against_temperature():
    """Energies, whose zero is arbitrary, from the crystal at rest."""
    static = pd.DataFrame(
        {"structure": "Ag3SBr", "property": ["band_gap", "energy_per_atom"], "value": [1.1, -499.0]}
    )
    figure = figures.against_temperature(averages(), static)
    draw(figure)
    for axis, expected in zip(figure.axes, ([1.0, 0.7], [-1.0, -1.3]), strict=True):
        line = axis.containers[0].lines[0]
        np.testing.assert_allclose(line.get_ydata(orig=False), expected)
    assert figure.axes[0].get_ylabel() == "band gap (eV)"
    assert figure.axes[1].get_ylabel() == "energy per atom − at rest (meV)"


def test_modes():
    table = pd.DataFrame({"structure": ["A", "A", "B"], "frequency": [1.0, 2, 3]})
    figure = figures.modes(table.assign(shift=[-0.01, 0.002, 0.0]), 300)
    draw(figure)
    shown = [axis.lines[0].get_ydata() for axis in figure.axes]
    np.testing.assert_allclose(np.concatenate(shown), [-10, 2, 0])
