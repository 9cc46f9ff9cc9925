"""Predictions beside labels, and of several models; models are not changed."""

from __future__ import annotations

import numpy as np
import pytest
import schnetpack as spk
import torch
from ase.units import kcal, mol
from schnetpack import properties as structure_keys
from schnetpack.data import AtomsLoader
from schnetpack.transform import AddOffsets
from torch import nn

from schnetpack_phonon.common.files import Trust
from schnetpack_phonon.evaluation.predictions import (
    answers,
    component_names,
    predict,
    stored_labels,
)
from schnetpack_phonon.evaluation.runs import Question
from schnetpack_phonon.models.heads import BandGap, Energy, Intensive
from tests.models.model_fixtures import CUTOFF, batch, data_module, potential, state, thermal

LIST = {"_target_": "schnetpack.transform.MatScipyNeighborList", "cutoff": CUTOFF}
TRUST = Trust(everything=True)  # models that no configuration describes
CAST = {"_target_": "schnetpack.transform.CastTo32"}
ELEMENTS = (16, 35, 47, 53)

TARGETS = {"band_gap": "band_gap", "pressure": "hydrostatic_stress"}
LABELS = {
    "band_gap": [0.9, 1.1, np.nan, 1.3, 1.0, 1.6, 0.7],
    "hydrostatic_stress": [0.01, 0.02, -0.01, 0.03, np.nan, 0.0, -0.02],
}


def model() -> nn.Module:
    return potential(BandGap(16, "band_gap"), Intensive(16, "pressure"))


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    """Seven displaced crystals, two labels missing, in the database's order."""
    path = tmp_path_factory.mktemp("evaluation") / "labels.db"
    structures = [thermal(k)[1] for k in range(7)]
    return data_module(path, structures, [0], range(1, 7), **LABELS)


@pytest.mark.parametrize("batch_size", [1, 3, 6])
def test_predictions_beside_labels(dataset, batch_size):
    """Against one structure at a time; rows without label are left out."""
    network = model()
    table = predict(network, AtomsLoader(dataset.test_dataset, batch_size=batch_size), TARGETS)
    for name, key in TARGETS.items():
        rows = table[table["property"] == name]
        expected = [k for k in range(1, 7) if np.isfinite(LABELS[key][k])]
        assert list(rows["index"]) == expected
        np.testing.assert_allclose(rows["label"], np.array(LABELS[key])[expected], rtol=1e-6)
        single = [network(batch([thermal(k)[1]]))[name].item() for k in expected]
        np.testing.assert_allclose(rows["prediction"], single, atol=1e-6)
    assert len(table) == 10


def batches() -> list[dict[str, torch.Tensor]]:
    labels = {"band_gap": [1.0, 2.0], "hydrostatic_stress": [0.0, 0.1]}
    return [batch([thermal(1)[1], thermal(2)[1]], **labels)]


@pytest.mark.parametrize("training", [(False, False), (True, True), (True, False)])
@pytest.mark.parametrize("postprocessing", [False, True])
@pytest.mark.parametrize("fails", [False, True])
def test_model_is_not_changed(training, postprocessing, fails):
    """Also one that is trained with its representation in evaluation mode."""
    network = model().train(training[0])
    network.representation.train(training[1]).embedding.weight.requires_grad_(False)
    network.do_postprocessing = postprocessing
    before = state(network)
    if fails:
        with pytest.raises(KeyError):
            predict(network, batches(), {"absent": "band_gap"})
    else:
        predict(network, batches(), TARGETS)
    assert state(network) == before


def test_components_of_forces_and_tensors():
    """A row each, also in the inference mode of a plain Trainer; atoms without label have none."""
    network = potential(Energy(16), spk.atomistic.Forces(calc_stress=True))
    network.input_modules.insert(0, spk.atomistic.Strain())
    network.collect_derivatives()
    rng = np.random.default_rng(0)
    forces, stress = rng.normal(size=(10, 3)), rng.normal(size=(2, 3, 3))
    forces[7] = np.nan
    structures = [thermal(k)[1] for k in range(2)]
    with torch.inference_mode():
        given = batch(structures, forces=forces, stress=stress)
        given[structure_keys.idx] = torch.tensor([3, 1])
        table = predict(network, [given], {"forces": "forces", "stress": "stress"})
    found = [network(batch([atoms])) for atoms in structures]
    own = table[table["property"] == "forces"].reset_index(drop=True)
    there = np.isfinite(forces).ravel()
    expected = torch.cat([one["forces"] for one in found]).detach().ravel()[there]
    np.testing.assert_allclose(own["prediction"], expected, atol=1e-5)
    np.testing.assert_allclose(own["label"], forces.ravel()[there], rtol=1e-6)
    assert list(own["component"][:3]) == ["x", "y", "z"]
    assert [*own.loc[own["component"] == "y", "atom"]] == [0, 1, 2, 3, 4, 0, 1, 3, 4]
    assert [*own["index"]] == 15 * [3] + 12 * [1]
    own = table[table["property"] == "stress"]
    expected = torch.cat([one["stress"] for one in found]).detach().ravel()
    np.testing.assert_allclose(own["prediction"], expected, atol=1e-6)
    assert own["atom"].isna().all()
    assert list(own["component"][:4]) == ["xx", "xy", "xz", "yx"]


def test_names_of_components():
    assert component_names(()) == [""]
    assert component_names((2,)) == ["1", "2"]
    assert component_names((6, 6))[6:8] == ["21", "22"]  # C21, C22
    assert component_names((2, 12))[11:13] == ["1,12", "2,1"]


def test_stored_labels_are_as_predicted_ones(tmp_path):
    """In the order of the rows that are asked for, in the units of the package."""
    rng = np.random.default_rng(0)
    structures = [thermal(k)[1] for k in range(3)]
    given = [{"energy": np.array([float(k)]), "forces": rng.normal(size=(5, 3))} for k in range(3)]
    path = str(tmp_path / "x.db")
    units = {"energy": "kcal/mol", "forces": "eV/Ang"}
    spk.data.ASEAtomsData.create(path, "Ang", units).add_systems(given, structures)
    table = stored_labels(path, [2, 0], {"e": "energy", "forces": "forces"})
    own = table[table["property"] == "e"]
    assert list(own["index"]) == [2, 0]
    np.testing.assert_allclose(own["label"], [2 * kcal / mol, 0.0])
    own = table[(table["property"] == "forces") & (table["index"] == 0)]
    np.testing.assert_array_equal(own["label"], given[0]["forces"].ravel())


def test_dropout_is_off_and_postprocessors_are_skipped():
    """Labels in a batch are raw: a postprocessor would shift the prediction away from them."""
    network = model()
    plain = predict(network, batches(), TARGETS)["prediction"]
    shift = AddOffsets("band_gap", add_mean=True, is_extensive=False)
    shift.mean = torch.tensor([100.0])
    network.postprocessors.append(shift)
    network.output_modules[0].outnet.insert(1, nn.Dropout(0.5))
    network.train()
    again = predict(network, batches(), TARGETS)["prediction"]
    np.testing.assert_array_equal(again, plain)


def test_batches_are_left_as_they_were():
    """The model writes its outputs under the labels' keys; they must not end in the batch."""
    (given,), (before,) = batches(), batches()
    table = predict(model(), [given], TARGETS)
    assert list(table["label"][:2]) == [1.0, 2.0]
    assert given.keys() == before.keys()
    assert all(torch.equal(given[key], before[key]) for key in before)
    assert not given[structure_keys.R].requires_grad


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
        Question(one, (LIST, CAST), {"forces": "forces"}, labels, ELEMENTS, trust=TRUST),
        Question(other, (LIST, CAST), {"gap_of_mine": "band_gap"}, labels, ELEMENTS, trust=TRUST),
        Question(other, (LIST, CAST), {}, labels, ELEMENTS, trust=TRUST),
    ]
    first, second, nothing = answers(questions, structures)
    assert set(first) == {"forces", "stress"}  # stress was not trained, but there are labels
    assert set(second) == {"band_gap"}
    assert nothing == {}
    assert first["forces"].shape == (15, 3)
    assert first["stress"].shape == (3, 9)
    for k, atoms in enumerate(structures):
        found = model(batch([atoms]))
        np.testing.assert_allclose(
            first["forces"][5 * k : 5 * k + 5], found["forces"].detach(), atol=1e-4, rtol=1e-4
        )
        expected = found["stress"].detach().reshape(9)
        np.testing.assert_allclose(first["stress"][k], expected, atol=1e-5, rtol=1e-4)
        gap = plain(batch([atoms]))["gap_of_mine"].item()
        assert second["band_gap"][k, 0] == pytest.approx(gap, abs=1e-5)


def test_offsets_of_schnetpack_models_are_added(tmp_path, structures):
    """Its data module subtracts them from the labels, and postprocessors add them again."""
    add = spk.transform.AddOffsets("energy", add_mean=True, is_extensive=False)
    add.mean = torch.tensor(7.0)
    path, model = saved(tmp_path, Energy(16), postprocessors=[add])
    remove = {"_target_": "schnetpack.transform.RemoveOffsets", "property": "energy"}
    transforms, targets = (LIST, remove, CAST), {"energy": "energy"}
    question = Question(path, transforms, targets, ("energy",), ELEMENTS, trust=TRUST)
    (found,) = answers([question], structures)
    model.do_postprocessing = False
    bare = [model(batch([atoms]))["energy"].item() for atoms in structures]
    np.testing.assert_allclose(found["energy"][:, 0], np.array(bare) + 7, rtol=1e-5)


def test_structures_with_untrained_elements_are_refused(tmp_path, structures):
    """By the record of the model where it has one, else by the training set of the run."""
    path, model = saved(tmp_path, Energy(16), spk.atomistic.Forces())
    targets, labels = {"energy": "energy", "forces": "forces"}, ("energy", "forces")
    question = Question(path, (LIST, CAST), targets, labels, (16, 35, 47), trust=TRUST)
    (found,) = answers([question], structures)  # iodine is in the second one
    np.testing.assert_array_equal(np.isnan(found["energy"][:, 0]), [False, True, False])
    np.testing.assert_array_equal(np.isnan(found["forces"]).all(axis=1), np.arange(15) // 5 == 1)
    model.register_buffer("trained_elements", torch.zeros(101, dtype=torch.bool))
    model.trained_elements[list(ELEMENTS)] = True
    torch.save(model, path)
    (found,) = answers([question], structures)
    assert np.isfinite(found["energy"]).all()
