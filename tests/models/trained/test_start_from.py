"""Training that starts from a trained model of other crystals."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from ase.build import bulk
from hydra.utils import instantiate
from pytorch_lightning import Trainer
from schnetpack.atomistic import Atomwise
from torch import nn

from schnetpack_phonon.common.errors import TrainingError
from schnetpack_phonon.common.files import Trust
from schnetpack_phonon.models.band_edges import BandEdges
from schnetpack_phonon.models.heads import Intensive
from schnetpack_phonon.models.predict import Predictor
from schnetpack_phonon.models.task import ScaledOutput, ScaledTask
from schnetpack_phonon.models.trained.start_from import StartFrom, start_from
from tests.models.model_fixtures import batch, data_module, potential, quiet_trainer, thermal

TRUST = Trust(everything=True)  # the models are in pickles only
OLD, OTHER, BOTH = [47, 16, 35], [12, 8], [8, 12, 16, 35, 47]
VBM = [5.0, 5.3, 4.9, 5.4, 5.1, 5.2]
ENERGY = [-732.0, -731.0, -731.5, -731.9, -731.2, -731.4]


def rocksalt(seed: int):
    atoms = bulk("MgO", "rocksalt", a=4.2, cubic=True)
    atoms.rattle(0.1, seed=seed)
    return atoms


NEW = [rocksalt(k) for k in range(6)]


def heads() -> list[nn.Module]:
    return [Intensive(16, "energy_per_atom"), BandEdges(16)]


@pytest.fixture
def trained(tmp_path) -> Path:
    """A model of Ag, Br and S with offsets of another method, and one more head."""
    model = potential(*heads(), Intensive(16, "hydrostatic_stress"), seed=1)
    for head, offset in zip(model.output_modules, (-100.0, 3.0, 0.1), strict=True):
        head.offset[OLD] = offset
        head.scale.fill_(0.7)
    model.register_buffer("trained_elements", torch.zeros(101, dtype=torch.bool))
    model.trained_elements[OLD] = True
    torch.save(model, tmp_path / "best_model")
    return tmp_path / "best_model"


@pytest.fixture
def data(tmp_path):
    labels = {"energy_per_atom": ENERGY, "vbm": VBM}
    return data_module(tmp_path / "new.db", NEW, range(4), [4], **labels)


def fit(task, data, *callbacks, **options) -> Trainer:
    trainer = quiet_trainer(callbacks=list(callbacks))
    trainer.fit(task, datamodule=data, **options)
    return trainer


def fresh_task() -> ScaledTask:
    outputs = [ScaledOutput(key, nn.MSELoss(), metrics={}) for key in ("energy_per_atom", "vbm")]
    return ScaledTask(potential(*heads(), seed=2).train(), outputs, optimizer_args={"lr": 1e-2})


def weights(module: nn.Module) -> list[torch.Tensor]:
    return [parameter.detach() for parameter in module.parameters()]


@pytest.mark.parametrize("frozen", [(), ("representation",), ("heads",)])
def test_offsets_of_the_new_data_and_frozen_parts(trained, data, frozen):
    """Fits of the new labels; elements that the new data do not have keep their offsets."""
    task, old = fresh_task(), Predictor(trained, trust=TRUST).model
    fit(task, data, StartFrom(trained.name, frozen=frozen, folder=str(trained.parent), trust=True))
    model = task.model.eval()
    energy, edges = model.output_modules
    assert energy.offset[OTHER].mean().item() == pytest.approx(np.mean(ENERGY[:4]))
    assert edges.offset[OTHER, 0].mean().item() == pytest.approx(np.mean(VBM[:4]))
    assert energy.scale.item() == pytest.approx(np.std(ENERGY[:4]), rel=1e-5)
    assert (energy.offset[OLD] == -100).all()
    assert (edges.offset[OLD] == 3).all()
    assert model.trained_elements.nonzero()[:, 0].tolist() == BOTH
    for name, own, other in (
        ("representation", model.representation, old.representation),
        ("heads", model.output_modules, old.output_modules[:2]),
    ):
        same = [torch.equal(a, b) for a, b in zip(weights(own), weights(other), strict=True)]
        assert all(same) == (name in frozen)
    Predictor(model)([NEW[5], thermal()[1]])


def test_representation_alone_starts_as_a_model_of_the_new_elements(trained, data):
    task = fresh_task()
    options = {"parts": ["representation"], "frozen": ["representation"], "trust": True}
    fit(task, data, StartFrom(str(trained), **options))
    energy = task.model.output_modules[0]
    assert not energy.offset[OLD].any()
    assert energy.offset[OTHER].mean().item() == pytest.approx(np.mean(ENERGY[:4]))
    assert task.model.trained_elements.nonzero()[:, 0].tolist() == sorted(OTHER)


def test_before_the_fit_it_is_the_trained_model(trained):
    model, old = potential(*heads(), seed=2), Predictor(trained, trust=TRUST).model
    start_from(model, old)
    inputs = batch([thermal()[1]])
    found, expected = model(dict(inputs)), old(dict(inputs))
    for key in model.model_outputs:
        torch.testing.assert_close(found[key], expected[key], rtol=0, atol=0)


@pytest.mark.parametrize(
    ("new", "options", "message"),
    [
        (lambda: potential(*heads(), representation="SchNet"), {}, "representation is SchNet, the"),
        (lambda: potential(*heads(), smooth=True), {}, "cutoff_fn is PolynomialCutoff, there Cos"),
        (lambda: potential(Intensive(16, "energy_per_atom", 7)), {}, r"shape \(7, 16\), there"),
        (lambda: potential(Atomwise(16)), {}, "BandEdges for .*no head to start from"),
        (lambda: potential(*heads()), {"frozen": ["representation", "heads"]}, "all parts are fro"),
    ],
)
def test_models_that_do_not_fit_are_refused(new, options, message, trained):
    with pytest.raises(TrainingError, match=message):
        start_from(new(), Predictor(trained, trust=TRUST).model, **options)


def test_another_cutoff_is_refused(trained):
    """Also if shapes fit: the neighbour list would be another one."""
    old = Predictor(trained, trust=TRUST).model
    old.representation.cutoff_fn.cutoff.fill_(6.0)
    old.representation.cutoff = old.representation.cutoff_fn.cutoff
    with pytest.raises(TrainingError, match=r"set globals\.cutoff=6"):
        start_from(potential(*heads()), old)


@pytest.mark.parametrize(
    "options", [{"parts": ["representaton"]}, {"parts": ["heads"], "frozen": ["representation"]}]
)
def test_parts_are_checked_before_training(options):
    with pytest.raises(ValueError, match="is 'representat"):
        StartFrom("best_model", **options)


def test_it_is_a_callback_of_any_experiment(compose_train, trained):
    path = f"callbacks.start_from.path={trained.name}"
    config = compose_train(
        "experiment=phonon_band_gap",
        "+callbacks=start_from",
        path,
        f"run.work_dir={trained.parent}",
    )
    assert {"model_checkpoint", "phonon_report"} < {*config.callbacks}
    assert instantiate(config.callbacks.start_from).path == trained
