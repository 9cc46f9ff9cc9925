"""The figure holds its tables and draws with and without phonons."""

import numpy as np
import pandas as pd
import pytest

from schnetpack_phonon.evaluation.comparison.figures import coverage
from tests.common.figure_fixtures import draw


@pytest.mark.parametrize("phonons", [True, False])
def test_coverage(phonons):
    rng = np.random.default_rng(0)
    names = ["phonon", "random"]
    densities = pd.concat(
        pd.DataFrame({"ensemble": n, "distance": np.linspace(2, 4, 20), "density": k + 1.0})
        for k, n in enumerate(names)
    )
    amplitudes = pd.DataFrame({"ensemble": names, "frequency": [-1.0, 2.0], "amplitude": 1.1})
    labels = pd.DataFrame({"ensemble": names * 10, "label": rng.normal(size=20)})
    errors = pd.DataFrame(
        {"model": "phonon, N = 4", "distance": rng.uniform(1, 3, 60), "error": rng.uniform(size=60)}
    )
    errors.loc[0, "distance"] = np.inf  # a species that is not known
    errors.loc[1, "distance"] = 1e3  # an outlier takes no room, but is shown
    figure = coverage(
        densities, amplitudes[: 2 * phonons], labels, errors, "Ag3SBr", "band_gap", 300
    )
    draw(figure)
    first, second, third, fourth = figure.axes
    assert [line.get_label() for line in first.lines] == names
    assert bool(second.texts) != phonons
    assert third.get_xlabel() == "band gap (eV)"
    inside, beyond = fourth.lines[:2]
    assert (len(inside.get_xdata()), len(beyond.get_xdata())) == (58, 1)
    assert fourth.get_xlim()[1] > beyond.get_xdata().item() > 3
    assert "1 beyond" in fourth.get_title()
