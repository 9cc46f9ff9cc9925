"""Several models of one kind; those whose predictions are no numbers have no averages."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from ase.build import bulk

from schnetpack_phonon.common.errors import RunError
from schnetpack_phonon.common.files import Trust
from schnetpack_phonon.evaluation.thermal.models import Models
from schnetpack_phonon.models.heads import BandGap, Intensive
from tests.models.model_fixtures import potential

COPPER = [bulk("Cu", a=a) for a in (3.5, 3.6, 3.7)]


def saved(folder, name, head, seed=0):
    """As much of a run as is asked for."""
    model = potential(head, seed=seed)
    torch.save(model, folder / name)
    place, trust = folder / f"run_{name}", Trust(everything=True)
    return SimpleNamespace(folder=place, model=folder / name, trust=trust), head, model


def test_values_of_each_model(tmp_path):
    runs = [saved(tmp_path, str(k), BandGap(16, "band_gap"), seed=k)[0] for k in (1, 2)]
    both = Models(runs)
    assert both.keys == ["band_gap"]
    values = both(COPPER)["band_gap"]
    assert values.shape == (2, 3)
    for run, own in zip(runs, values, strict=True):
        np.testing.assert_allclose(Models([run])(COPPER)["band_gap"], [own])


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_predictions_that_are_no_numbers_have_no_average(tmp_path, value):
    """The weights of a training that diverged, in the second model."""
    good, _, _ = saved(tmp_path, "good", Intensive(16, "vbm"))
    bad, head, model = saved(tmp_path, "diverged", Intensive(16, "vbm"))
    head.outnet[-1].bias.data.fill_(value)
    torch.save(model, bad.model)
    with pytest.raises(RunError, match=r"run_diverged predicts vbm that is NaN or infinite for 3 "):
        Models([good, bad])(COPPER)


def test_models_of_other_outputs(tmp_path):
    one, _, _ = saved(tmp_path, "one", BandGap(16, "band_gap"))
    other, _, _ = saved(tmp_path, "other", Intensive(16, "energy_per_atom"))
    with pytest.raises(RunError, match="share no scalar output"):
        Models([one, other])
