"""What models say of structures, against the models themselves."""

import numpy as np
import pytest
import schnetpack as spk
import torch
from schnetpack.interfaces import AtomsConverter
from schnetpack.transform import MatScipyNeighborList
from torch import nn

from schnetpack_phonon.evaluation.predictions import answers
from schnetpack_phonon.evaluation.runs import Question
from schnetpack_phonon.models.heads import Energy, Intensive
from tests.models.model_fixtures import CUTOFF, potential, thermal

LIST = {"_target_": "schnetpack.transform.MatScipyNeighborList", "cutoff": CUTOFF}
CAST = {"_target_": "schnetpack.transform.CastTo32"}


@pytest.fixture(scope="module")
def structures():
    return [thermal(k, formula)[1] for k, formula in enumerate(["Ag3SBr", "Ag3SI", "Ag3SBr"])]


def saved(folder, *heads, seed=0, postprocessors=()):
    model = potential(*heads, seed=seed)
    model.input_modules.insert(0, spk.atomistic.Strain())
    model.postprocessors = nn.ModuleList(postprocessors)
    model.collect_derivatives()
    path = folder / f"model{seed}"
    torch.save(model, path)
    return path, model


def test_tensors_and_numbers_of_several_models(tmp_path, structures):
    """A number, a tensor and forces; the second model has no derivatives."""
    one, model = saved(tmp_path, Energy(16), spk.atomistic.Forces(calc_stress=True))
    other, plain = saved(tmp_path, Intensive(16, "gap_of_mine"), seed=1)
    labels = ("band_gap", "forces", "stress")
    questions = [
        Question(one, (LIST, CAST), {"forces": "forces"}, labels),
        Question(other, (LIST, CAST), {"gap_of_mine": "band_gap"}, labels),
        Question(other, (LIST, CAST), {}, labels),
    ]
    first, second, nothing = answers(questions, structures)
    assert set(first) == {"forces", "stress"}  # stress was not trained, but there are labels
    assert set(second) == {"band_gap"}
    assert nothing == {}
    assert first["forces"].shape == (15, 3)
    assert first["stress"].shape == (3, 9)
    convert = AtomsConverter(MatScipyNeighborList(cutoff=CUTOFF))
    for k, atoms in enumerate(structures):
        found = model(convert(atoms))
        np.testing.assert_allclose(
            first["forces"][5 * k : 5 * k + 5], found["forces"].detach(), atol=1e-4, rtol=1e-4
        )
        expected = found["stress"].detach().reshape(9)
        np.testing.assert_allclose(first["stress"][k], expected, atol=1e-5, rtol=1e-4)
        gap = plain(convert(atoms))["gap_of_mine"].item()
        assert second["band_gap"][k, 0] == pytest.approx(gap, abs=1e-5)


def test_offsets_of_models_of_the_host_are_added(tmp_path, structures):
    """Its data module takes them from the labels, and models put them back behind their outputs."""
    add = spk.transform.AddOffsets("energy", add_mean=True, is_extensive=False)
    add.mean = torch.tensor(7.0)
    path, model = saved(tmp_path, Energy(16), postprocessors=[add])
    remove = {"_target_": "schnetpack.transform.RemoveOffsets", "property": "energy"}
    question = Question(path, (LIST, remove, CAST), {"energy": "energy"}, ("energy",))
    (found,) = answers([question], structures)
    model.do_postprocessing = False
    convert = AtomsConverter(MatScipyNeighborList(cutoff=CUTOFF))
    bare = [model(convert(atoms))["energy"].item() for atoms in structures]
    np.testing.assert_allclose(found["energy"][:, 0], np.array(bare) + 7, rtol=1e-5)
