"""A trained model as the calculator of a database."""

from __future__ import annotations

import pickle
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from hydra.utils import instantiate

from schnetpack_phonon.common import properties
from schnetpack_phonon.data.preparation import Recipe
from schnetpack_phonon.data.reading import read_rows
from schnetpack_phonon.ensembles.thermal import PhononEnsemble
from schnetpack_phonon.models.predict import Predictor
from schnetpack_phonon.models.trained.calculator import TrainedModel
from schnetpack_phonon.models.trained.weights import write_weights
from schnetpack_phonon.phonons.force_constants import FiniteDisplacements
from schnetpack_phonon.structures.crystals import Antiperovskites
from tests.data.data_fixtures import ensemble_data
from tests.models.model_fixtures import thermal
from tests.models.trained.trained_fixtures import head, model_config

STRAIN = {"_target_": "schnetpack.atomistic.Strain"}
FORCES = {"_target_": "schnetpack.atomistic.Forces", "calc_stress": True}
POTENTIAL = [head("Energy"), FORCES]
EDGES = [head("BandEdges")]


def run(folder: Path, *heads: dict, seed: int = 0, elements=(16, 35, 47)) -> Path:
    """What spktrain leaves of a model with random weights, in double precision."""
    config = model_config(*heads)
    config["input_modules"].insert(0, STRAIN)
    torch.manual_seed(seed)
    model = instantiate(config).double().eval()
    model.register_buffer("trained_elements", torch.zeros(101, dtype=torch.bool))
    model.trained_elements[list(elements)] = True
    folder.mkdir(parents=True)
    torch.save(model, folder / "best_model")
    write_weights(model, folder / "best_model", config)
    return folder


@pytest.fixture(scope="module")
def runs(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("runs")
    run(folder / "all", *POTENTIAL, *EDGES)
    run(folder / "potential", *POTENTIAL, seed=1)
    run(folder / "edges", *EDGES)
    return folder


def test_labels_are_the_predictions(runs):
    calculator, atoms = TrainedModel("all", work_dir=str(runs)), thermal(1)[1]
    labels, (found,) = calculator.label(atoms), Predictor(runs / "all")([atoms])
    assert set(labels) == set(calculator.properties)
    for key, value in labels.items():
        assert value.shape == properties.array_shape(key, len(atoms))
    for key in ("forces", "band_gap", "vbm", "cbm", "energy_per_atom"):
        np.testing.assert_allclose(labels[key].squeeze(), found[key], rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(labels["stress"][0], found["stress"], rtol=1e-12)
    assert labels["energy"] == pytest.approx(5 * found["energy_per_atom"])


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("potential", "energy energy_per_atom forces stress hydrostatic_stress"),
        ("edges", "band_gap vbm cbm"),
    ],
)
def test_labels_are_those_that_the_model_has(runs, name, expected):
    calculator = TrainedModel(str(runs / name))
    assert calculator.properties == tuple(expected.split())
    assert set(calculator.label(thermal(1)[1])) == set(calculator.properties)


def test_labels_are_known_by_the_content_of_the_model(runs, tmp_path):
    """Not by its path or name; another model at the same path is another calculator."""
    copy = shutil.copytree(runs / "all", tmp_path / "copy")
    one, other = TrainedModel(str(runs / "all")), TrainedModel("copy", work_dir=str(tmp_path))
    for same in (other, TrainedModel(str(copy / "best_model")), pickle.loads(pickle.dumps(one))):
        assert (same.settings, same.code_version) == (one.settings, one.code_version)
    energies = [other.label(thermal(1)[1])["energy"]]
    shutil.rmtree(copy)
    run(copy, *POTENTIAL, *EDGES, seed=9)
    assert other.settings != one.settings
    energies.append(other.label(thermal(1)[1])["energy"])
    assert abs(energies[1] - energies[0]) > 1e-3


def recipe(calculator, relax=False) -> Recipe:
    structure = Antiperovskites(["Ag3SBr"], [1, 1, 1], relax=relax)
    ensemble = PhononEnsemble([300], n_snapshots=1, seed=1)
    return Recipe(structure, FiniteDisplacements(), ensemble, calculator)


def test_refused_before_anything_starts(runs, tmp_path):
    other = run(tmp_path / "other", *POTENTIAL, elements=(16, 47))
    with pytest.raises(ValueError, match=r"holds Br; the model was trained on Ag, S"):
        recipe(TrainedModel(str(other))).check()
    with pytest.raises(ValueError, match=r"relaxation needs energy, .*gives band_gap, vbm, cbm"):
        recipe(TrainedModel(str(runs / "edges")), relax=True).check()
    with pytest.raises(ValueError, match=r"no file .*/none; expected a run folder"):
        recipe(TrainedModel("none", work_dir=str(tmp_path))).check()
    (other / "best_model.npz").unlink()
    with pytest.raises(ValueError, match=r"best_model is a pickle"):
        recipe(TrainedModel(str(other))).check()
    recipe(TrainedModel(str(runs / "all")), relax=True).check()


def made(folder, calculator, forces=None):
    return ensemble_data(
        folder,
        PhononEnsemble([100], n_snapshots=2, seed=1, min_distance=0.0),
        calculator,
        structure=Antiperovskites(["Ag3SBr"], [1, 1, 1], relax=False),
        phonons=FiniteDisplacements(calculator=forces),
    )


def test_force_constants_and_labels_of_models(runs, tmp_path):
    """Forces of one model, gaps of another that has no forces."""
    potential, edges = (TrainedModel(str(runs / name)) for name in ("potential", "edges"))
    data = made(tmp_path, edges, potential)
    data.prepare_data()
    for row in read_rows(data.datapath, [0, 1]):
        predicted = edges.label(row.atoms)
        assert row.data["vbm"] == pytest.approx(predicted["vbm"], rel=1e-9)
        assert row.key_value_pairs["phonons_code"] == potential.code_version
    with pytest.raises(ValueError, match=r"force constants needs energy, .*, forces; "):
        made(tmp_path / "other", edges).prepare_data()
