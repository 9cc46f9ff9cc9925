"""Phonons of a potential beside given ones, against closed forms."""

import numpy as np
import pytest

from schnetpack_phonon.evaluation.phonons.compared import compared
from tests.ensembles.dynamics.dynamics_fixtures import SpringModel
from tests.ensembles.ensemble_fixtures import hessian


@pytest.mark.parametrize("strength", [1.0, 1.44])
def test_frequencies_grow_with_the_root_of_the_force_constants(nacl, strength):
    crystal, model = nacl
    springs = SpringModel(model.ideal, hessian(model), strength)
    found = compared(crystal, model.force_constants, springs, 0.02)
    own = found.modes
    assert len(own) == len(model.frequencies) == 3 * len(model.ideal) - 3
    np.testing.assert_allclose(np.sort(own["reference"]), np.sort(model.frequencies), atol=1e-6)
    np.testing.assert_allclose(own["model"], np.sqrt(strength) * own["reference"], atol=2e-3)
    summary = found.summary
    assert summary["imaginary, model"] == summary["imaginary, reference"] == 0
    expected = (np.sqrt(strength) - 1) * np.sqrt((own["reference"] ** 2).mean())
    assert summary["rms difference"] == pytest.approx(expected, abs=2e-3)
    assert summary["lowest, model"] == own["model"].min()


def test_imaginary_modes_are_counted(nacl):
    crystal, model = nacl
    springs = SpringModel(model.ideal, hessian(model), -1.0)
    summary = compared(crystal, model.force_constants, springs, 0.02).summary
    assert summary["imaginary, model"] == summary["modes"]
    assert summary["imaginary, reference"] == 0
