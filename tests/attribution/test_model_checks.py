"""Models and outputs that cannot be attributed are refused with the reason."""

import pytest
import schnetpack as spk
import torch
from schnetpack.atomistic import Atomwise, Forces

from schnetpack_phonon.attribution.model_checks import check_model, output_component, unseen_terms
from schnetpack_phonon.common.errors import AttributionError
from schnetpack_phonon.models.heads import Intensive
from tests.models.model_fixtures import potential, scripted


def test_responses_are_refused():
    model = potential(Atomwise(16, output_key="energy"), Forces())
    with pytest.raises(AttributionError, match="derivative of another output"):
        output_component(model, "forces")


def test_models_out_of_reach_are_refused():
    model = potential(Intensive(16, "y"))
    check_model(model)
    with pytest.raises(AttributionError, match="scripted"):
        check_model(scripted(potential(Atomwise(16, output_key="energy"), Forces())))
    with pytest.raises(AttributionError, match="compiled"):
        check_model(torch.compile(model))
    with pytest.raises(AttributionError, match="no 'representation'"):
        check_model(torch.nn.Linear(1, 1))


def test_terms_beyond_edges_are_listed():
    model = potential(Intensive(16, "y"), spk.atomistic.ZBLRepulsionEnergy("eV", "Ang", "z"))
    assert unseen_terms(model) == []
    assert unseen_terms(model, mask=True) == ["ZBLRepulsionEnergy"]
