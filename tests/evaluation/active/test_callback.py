"""What is done before a round is trained."""

import json
import logging
from types import SimpleNamespace

import pytest
from ase.build import bulk
from ase.calculators.emt import EMT
from hydra.utils import instantiate

from schnetpack_phonon.calculators.base import AseCalculator
from schnetpack_phonon.common.errors import TrainingError
from schnetpack_phonon.ensembles.active.ensemble import ActiveEnsemble
from schnetpack_phonon.ensembles.independent import RandomEnsemble
from schnetpack_phonon.evaluation.active import callback
from schnetpack_phonon.evaluation.active.callback import ActiveLearning
from schnetpack_phonon.structures.crystals import Crystal, Crystals
from tests.data.data_fixtures import ensemble_data
from tests.ensembles.dynamics.dynamics_fixtures import md

MODULE = SimpleNamespace(model=SimpleNamespace(model_outputs=["energy_per_atom", "forces"]))


class Soft(AseCalculator):
    """Forces of EMT that are 10 % too small, as if a model of round 0."""

    folder = "round_0"

    def label(self, atoms):
        labels = super().label(atoms)
        return {**labels, "forces": 0.9 * labels["forces"]}


@pytest.fixture
def active(tmp_path, monkeypatch):
    """(number) -> trainer, and the models from which training started."""
    started = []
    monkeypatch.setattr(callback, "load_trained", lambda folder: folder)
    monkeypatch.setattr(callback, "start_from", lambda model, trained: started.append(trained))

    def make(number):
        options = {"friction": 20.0, "time_step": 5.0, "temperatures": [100], "n_replicas": 1}
        ensemble = ActiveEnsemble(
            RandomEnsemble([0.1], n_snapshots=4, seed=1),
            md(Soft(EMT), tmp_path / "dynamics", **options),
            lambda _: Soft(EMT),
            number,
            n_snapshots=2,
            length=0.5,
            budget=8,
        )
        data = ensemble_data(
            tmp_path,
            ensemble,
            AseCalculator(EMT),
            datapath=str(tmp_path / "data" / f"{number}.db"),
            structure=Crystals([Crystal("Cu", bulk("Cu", cubic=True), [1, 1, 1])], relax=False),
        )
        data.prepare_data()
        return SimpleNamespace(datamodule=data, is_global_zero=True)

    return make, started


def test_rounds(active, tmp_path, caplog):
    """Round 0 only says how many labels a round adds; round 1 has errors, of its structures."""
    make, started = active
    with caplog.at_level(logging.INFO):
        for number in (0, 1):
            (tmp_path / f"{number}").mkdir()
            own, trainer = ActiveLearning(0.15, tmp_path / f"{number}"), make(number)
            for _ in range(2):  # also before the test, when there is nothing to do
                own.setup(trainer, MODULE, "fit")
    found = [json.loads((tmp_path / k / "active.json").read_text()) for k in "01"]
    assert [(r["round"], r["n_labels"], r["n_each"]) for r in found] == [(0, 0, 2), (1, 2, 2)]
    assert found[0]["relative"] is None
    assert found[1]["relative"] == pytest.approx(0.1)
    assert {*found[1]["errors"]} == {"Cu", "all"}
    assert found[1]["errors"]["all"]["n"] == 2
    assert started == ["round_0"]
    assert "round 1: 2 new structures, 2 of 8 labels." in caplog.text
    assert "Cu 10 %), 15 % is asked for" in caplog.text


def test_a_round_without_structures(active, tmp_path, monkeypatch):
    trainer = active[0](1)
    monkeypatch.setattr(callback, "_is_of", lambda row, number: False)
    with pytest.raises(TrainingError, match=r"round 1 has no new structure: every replica left"):
        ActiveLearning(0.15, tmp_path).setup(trainer, MODULE, "fit")


def test_bad_options(tmp_path, active):
    with pytest.raises(ValueError, match=r"callbacks.active.force_error is 15; expected 0 to 1"):
        ActiveLearning(15)
    trainer = SimpleNamespace(datamodule=ensemble_data(tmp_path))
    with pytest.raises(ValueError, match=r"is for data/ensemble=active; this is PhononEnsemble"):
        ActiveLearning(0.1).setup(trainer, MODULE, "fit")
    gap = SimpleNamespace(model=SimpleNamespace(model_outputs=["band_gap"]))
    with pytest.raises(ValueError, match=r"predicts band_gap; .* needs energy and forces"):
        ActiveLearning(0.1).setup(active[0](0), gap, "fit")


def test_configs(compose_train, tmp_path):
    """The potential of a round is the run of the round before; each has a database of its own."""
    options = ("experiment=phonon_active", "run.round=2", f"run.work_dir={tmp_path}")
    config = compose_train(*options, "data.ensemble.budget=99")
    ensemble = instantiate(config.data.ensemble)
    folders = [one.dynamics.calculator.folder for one in ensemble.rounds]
    assert folders == [tmp_path / "runs" / "phonon_active" / f"round_{k}" for k in (0, 1)]
    assert (ensemble.number, ensemble.budget) == (2, 99)
    assert config.data.datapath == f"{tmp_path}/data/phonon_active_round_2.db"
    assert instantiate(config.callbacks.active).force_error == 0.15
