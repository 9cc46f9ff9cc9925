"""Files of predictions against the predictor itself, and what is refused before any."""

from __future__ import annotations

from pathlib import Path

import ase.io
import numpy as np
import pandas as pd
import pytest
import torch
from schnetpack.atomistic import Atomwise, Forces, PairwiseDistances, Strain
from schnetpack.model import NeuralNetworkPotential

from schnetpack_phonon.common.errors import ReportError
from schnetpack_phonon.common.files import Trust
from schnetpack_phonon.evaluation.predicted import DISTANCE, predict_files
from schnetpack_phonon.models.elastic_tensor import ElasticTensor
from schnetpack_phonon.models.heads import BandGap, Intensive
from schnetpack_phonon.models.predict import Predictor
from tests.evaluation.comparison.comparison_fixtures import databases, write_run
from tests.models.model_fixtures import CUTOFF, potential, thermal

TRUST = Trust(everything=True)
pytestmark = pytest.mark.filterwarnings("ignore:You are using `torch.load`:FutureWarning")


def saved(name: str, *heads: torch.nn.Module, seed: int = 0) -> Path:
    torch.save(potential(*heads, seed=seed), name)
    return Path(name)


@pytest.fixture
def files() -> list[Path]:
    """Three structures of two sizes in two files."""
    ase.io.write("a.extxyz", [thermal(1)[1], thermal(2, "Ag3SeI")[1].repeat((2, 1, 1))])
    ase.io.write("b.vasp", thermal(3)[1])
    return [Path("a.extxyz"), Path("b.vasp")]


def atoms(files: list[Path]) -> list[ase.Atoms]:
    return [one for file in files for one in ase.io.read(file, ":")]


def test_energy_forces_and_stress_stand_where_ase_looks_for_them(files):
    parts = potential(BandGap(16, "band_gap"), Atomwise(16, output_key="energy"))
    model = NeuralNetworkPotential(
        parts.representation,
        [Strain(), PairwiseDistances()],
        [*parts.output_modules, Forces(calc_stress=True)],
    )
    model.training_units = {"energy": "eV"}
    torch.save(model, "model")
    said = predict_files([Path("model")], files, Path("out/new.extxyz"), trust=TRUST)
    assert "3 structures" in said
    expected = Predictor(model)(atoms(files))
    found = ase.io.read("out/new.extxyz", ":")
    assert [one.info["file"] for one in found] == ["a.extxyz", "a.extxyz", "b.vasp"]
    assert "band_gap: eV" in found[0].info["units"]
    assert "stress: eV/Ang^3" in found[0].info["units"]
    for one, own in zip(found, expected, strict=True):
        assert one.get_potential_energy() == pytest.approx(float(own["energy"]))
        np.testing.assert_allclose(one.get_forces(), own["forces"], atol=1e-7)
        np.testing.assert_allclose(one.get_stress(voigt=False), own["stress"], atol=1e-7)
        assert one.info["band_gap"] == pytest.approx(float(own["band_gap"]), abs=1e-6)


def test_a_table_has_a_line_a_structure_and_components_with_units(files):
    model = saved(
        "model", Intensive(16, "vbm"), ElasticTensor(16, cutoff=CUTOFF, bonds_key="pairs")
    )
    predict_files([model], files, Path("new.csv"), trust=TRUST)
    table = pd.read_csv("new.csv")
    expected = Predictor(model, trust=TRUST)(atoms(files))
    assert list(table["index"]) == [0, 1, 0]
    assert list(table["n_atoms"]) == [5, 10, 5]
    np.testing.assert_allclose(table["vbm (eV)"], [float(own["vbm"]) for own in expected])
    tensors = np.array([own["elastic_tensor"] for own in expected])
    np.testing.assert_allclose(table["elastic_tensor_14 (GPa)"], tensors[:, 0, 3], rtol=1e-5)
    assert not [name for name in table if "bond" in name or "pairs" in name]


def test_several_models_give_mean_and_standard_deviation(files):
    models = [saved(f"model{k}", Intensive(16, "vbm"), seed=k) for k in range(3)]
    predict_files(models, files, Path("new.csv"), trust=TRUST)
    table = pd.read_csv("new.csv")
    every = [[float(v["vbm"]) for v in Predictor(m, trust=TRUST)(atoms(files))] for m in models]
    np.testing.assert_allclose(table["vbm (eV)"], np.mean(every, axis=0), rtol=1e-6)
    np.testing.assert_allclose(table["vbm_std (eV)"], np.std(every, axis=0, ddof=1), rtol=1e-5)
    other = saved("other", Intensive(16, "cbm"))
    with pytest.raises(ReportError, match=r"other predicts cbm, model0 vbm"):
        predict_files([models[0], other], files, Path("new.csv"), trust=TRUST)


def test_far_structures_are_counted_where_the_training_set_is_known(tmp_path):
    """Structures of the training set have distance 0."""
    path = databases(tmp_path)["phonon"]
    run = write_run(tmp_path / "runs" / "one", path, 1, range(1, 9))
    said = predict_files([run], [path], Path("new.csv"), trust=TRUST)
    assert "do not rely on them" not in said
    table = pd.read_csv("new.csv")
    assert (table[DISTANCE][1:9] == 0).all()
    far = ase.io.read(path, 0)
    far.rattle(0.8, seed=0)
    far.write("far.extxyz")
    said = predict_files([run], [Path("far.extxyz")], Path("far.csv"), trust=TRUST)
    assert "1 of 1 structures are more than 2 times as far" in said


def test_predictions_that_are_no_numbers_are_named(files):
    head = Intensive(16, "vbm")
    model = potential(head)
    head.offset[34] = torch.nan  # selenium
    torch.save(model, "model")
    said = predict_files([Path("model")], files, Path("new.csv"), trust=TRUST)
    assert "1 of 3 structures have predictions that are NaN" in said
    assert "the first is structure 1 of a.extxyz" in said
    assert "NaN" in Path("new.csv").read_text()


def test_what_cannot_be_predicted_is_refused_before_any_is(files):
    model = saved("model", Intensive(16, "vbm"))
    broken = thermal(1)[1]
    broken.positions[2, 1] = np.nan
    ase.io.write("broken.extxyz", [thermal(2)[1], broken])
    with pytest.raises(ValueError, match=r"structure 1 of broken\.extxyz: .*not NaN"):
        predict_files([model], [*files, Path("broken.extxyz")], Path("new.csv"), trust=TRUST)
    with pytest.raises(ReportError, match=r"cannot write new\.xyz: expected NAME\.extxyz"):
        predict_files([model], files, Path("new.xyz"), trust=TRUST)
    with pytest.raises(ReportError, match="take another name"):
        predict_files([model], files, Path("a.extxyz"), trust=TRUST)
    assert not Path("new.csv").exists()
