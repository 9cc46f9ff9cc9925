"""Traces show what the records say."""

import numpy as np
import pytest

from schnetpack_phonon.ensembles.dynamics.figures import traces
from tests.ensembles.dynamics.dynamics_fixtures import SpringModel, md
from tests.ensembles.ensemble_fixtures import hessian


def test_traces(nacl, tmp_path):
    crystal, model = nacl
    ensemble = md(SpringModel(model.ideal, hessian(model)), tmp_path, temperatures=[300, 100])
    runs = {t: ensemble.trajectories(crystal, t) for t in ensemble.parameters}
    for run in runs.values():
        run.ensure(run.needed(2))
    figure = traces("NaCl", runs)
    axes = np.array(figure.axes).reshape(4, 2)
    for column, temperature in zip(axes.T, (100, 300), strict=True):
        run = runs[temperature]
        lines = [line for line in column[0].lines if len(line.get_xdata()) > 10]
        assert len(lines) >= 2
        shown = lines[0].get_ydata()
        found = np.concatenate([s.temperatures for s in run.replicas[0]])
        np.testing.assert_allclose(shown, found)
        assert shown[50:].mean() == pytest.approx(temperature, rel=0.2)
        assert lines[0].get_xdata()[-1] == pytest.approx(len(run.replicas[0]) * 0.5)
        distances = column[3].lines[0].get_ydata()
        assert 0.6 * 2.8 < distances.min() < distances.max() < 2.8
