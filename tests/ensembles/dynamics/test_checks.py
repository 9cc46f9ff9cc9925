"""Dynamics that leaves what is sane is stopped, each with its own message."""

import numpy as np
import pytest

from schnetpack_phonon.ensembles.dynamics.checks import DynamicsError, lindemann
from tests.ensembles.dynamics.dynamics_fixtures import SpringModel, md
from tests.ensembles.ensemble_fixtures import first, hessian


@pytest.mark.parametrize(
    ("strength", "options", "message"),
    [
        (1.0, {"time_step": 60.0}, r"temperature runs away to .* K: lower .*time_step \(60 fs\)"),
        (1.0, {"time_step": 15.0, "friction": 0.5}, r"mean temperature is .*; expected 300|drifts"),
        (0.1, {"temperatures": [6000]}, r"two atoms come within .* expected at least 1.68 Ang"),
        (
            0.05,
            {"temperatures": [900], "min_distance": 0.0},
            r"melts: all elements move by more than 0.2 .* \(rms, Lindemann's ratio; Na 0.\d\d, Cl",
        ),
    ],
)
def test_stopped(nacl, tmp_path, strength, options, message):
    crystal, model = nacl
    calculator = SpringModel(model.ideal, hessian(model), strength)
    ensemble = md(calculator, tmp_path, **options)
    with pytest.raises(
        DynamicsError, match=rf"dynamics of NaCl at .* K, replica \d after .*{message}"
    ):
        first(ensemble, crystal, crystal.supercell, 1)


def test_lindemann_is_of_each_element(nacl):
    ideal = nacl[1].ideal
    rng = np.random.default_rng(0)
    scale = np.where(ideal.symbols == "Na", 0.1, 0.3)[:, None]
    u = scale * rng.normal(size=(500, len(ideal), 3)) + [5.0, 0.0, 0.0]
    found = lindemann(ideal, ideal.positions + u)
    for element, own in (("Na", 0.1), ("Cl", 0.3)):
        expected = np.sqrt(3 * own**2 * (1 - 1 / 8)) / 2.8
        assert found[element] == pytest.approx(expected, rel=0.05)
