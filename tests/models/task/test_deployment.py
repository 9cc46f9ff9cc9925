"""Models, labels and checkpoints that a task refuses; forces; what is deployed."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from pytorch_lightning import Trainer
from pytorch_lightning.callbacks import EarlyStopping
from schnetpack.atomistic import Atomwise, Forces, Strain
from schnetpack.model import NeuralNetworkPotential
from schnetpack.utils import load_model
from torch import nn

from schnetpack_phonon.common.errors import TrainingError
from schnetpack_phonon.models.band_edges import BandEdges
from schnetpack_phonon.models.elastic_response import ElasticResponse
from schnetpack_phonon.models.elastic_tensor import ElasticTensor
from schnetpack_phonon.models.heads import BandGap
from schnetpack_phonon.models.stress import StressTensor
from schnetpack_phonon.models.task import RelativeFrobeniusError, ScaledOutput, ScaledTask
from tests.models.model_fixtures import (
    CUTOFF,
    assemble,
    batch,
    data_module,
    potential,
    quiet_trainer,
    scripted,
    thermal,
)
from tests.models.task.task_fixtures import LABELS, TEST, TRAIN, fresh_task, output


def second_derivatives_of_a_cosine() -> NeuralNetworkPotential:
    model = potential(Atomwise(16, output_key="energy"), ElasticResponse())
    model.input_modules.insert(0, Strain())
    return model


class Featureless(nn.Module):
    """A representation that names its features otherwise."""

    cutoff = torch.tensor([CUTOFF])

    def forward(self, inputs):
        return inputs | {"node_features": torch.zeros(len(inputs["_atomic_numbers"]), 16)}


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (second_derivatives_of_a_cosine, "representation.cutoff_fn is a CosineCutoff"),
        (lambda: assemble(Featureless(), BandGap(16, "y")), "gives no 'scalar_representation'"),
        (lambda: assemble(Featureless(), BandEdges(16)), "gives no 'scalar_representation'"),
        (lambda: potential(StressTensor(32, CUTOFF)), r"shape \[2, 16\]; a head has n_in=32"),
        (lambda: potential(BandEdges(8)), r"shape \[2, 16\]; a head has n_in=8: set its n_in"),
        (lambda: potential(ElasticTensor(16, 6.0)), "up to 6 Ang; .* ends at 5: use it for"),
    ],
    ids=["cutoff", "no features", "no features, edges", "wide", "narrow", "long bonds"],
)
def test_models_that_cannot_give_what_they_should_are_refused_before_any_data(make, message):
    with pytest.raises(ValueError, match=message):
        ScaledTask(make(), [output()], optimizer_args={"lr": 1e-3})


def test_representations_that_cannot_be_tried_are_left_to_the_first_step():
    """The check of the features is in the head, too. An external field comes with the data."""
    without = Featureless()
    without.cutoff = None
    model = assemble(without, BandGap(16, "band_gap"))
    ScaledTask(model, [output()], optimizer_args={"lr": 1e-3})
    with pytest.raises(ValueError, match="gives no 'scalar_representation'"):
        model(batch([thermal(1)[1]]))
    model = potential(
        BandGap(8, "band_gap"), representation="FieldSchNet", fields=["electric_field"]
    )
    ScaledTask(model, [output()], optimizer_args={"lr": 1e-3})
    field = {"electric_field": np.zeros((1, 3)), "dipole_moment": np.zeros((1, 3))}
    with pytest.raises(ValueError, match="a head has n_in=8"):
        model(batch([thermal(1)[1]], **field))


def test_forces_are_tested_by_a_plain_trainer(tmp_path):
    """It tests in inference mode, where SchNetPack's task has no gradients."""
    structures = [thermal(k)[1] for k in range(4)]
    forces = [np.random.default_rng(k).normal(size=(5, 3)) for k in range(4)]
    data = data_module(tmp_path / "forces.db", structures, [0, 1], [2, 3], atoms={"forces": forces})
    task = ScaledTask(
        potential(Atomwise(16, output_key="energy"), Forces()),
        [ScaledOutput("forces")],
        optimizer_args={"lr": 1e-3},
    )
    found = []
    for mode in (True, False):
        options = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False}
        trainer = Trainer(inference_mode=mode, accelerator="cpu", **options)
        found.append(trainer.test(task, datamodule=data, verbose=False))
    assert found[0] == found[1]
    assert found[0][0]["test_forces_mae"] > 0.1


def test_metrics_take_tensors_of_any_layout():
    """As SchNetPack's stress, which is a derivative by the transposed strain."""
    stress = torch.arange(18.0).reshape(2, 3, 3)
    own = output("stress")
    pred, target = {"stress": stress.mT}, {"stress": stress.mT + 0.5}
    own.update_metrics(pred, target, "train")
    assert own.metrics["train"]["mae"].compute() == 0.5


def test_relative_error_is_the_mean_over_structures_however_they_are_batched():
    """Labels of 3 and 4 on the diagonal have the norm 5; errors of 0.5 and 1 are 10 and 20 %."""
    labels = torch.diag_embed(torch.tensor([[3.0, 4.0], [3.0, 4.0], [30.0, 40.0]]))
    predictions = labels.clone()
    predictions[0, 0, 1] += 0.5
    predictions[1, 1, 0] -= 1.0
    whole, parts = RelativeFrobeniusError(), RelativeFrobeniusError()
    whole.update(predictions, labels)
    for part in (slice(0, 1), slice(1, 3)):
        parts(predictions[part], labels[part])
    assert whole.compute().item() == pytest.approx(0.1)
    assert parts.compute().item() == pytest.approx(0.1)


def test_checkpoints_of_another_training_set_are_refused(data, tmp_path):
    """Their offsets, scales and elements would replace the new ones."""
    first, path = quiet_trainer(default_root_dir=tmp_path), tmp_path / "last.ckpt"
    first.fit(fresh_task().train(), datamodule=data)
    first.save_checkpoint(path)
    quiet_trainer(default_root_dir=tmp_path).fit(
        fresh_task().train(), datamodule=data, ckpt_path=path
    )  # its own data
    structures = [thermal(k, "Ag3SeI")[1] for k in range(10)]
    labels = {key: 2 * np.array(values) for key, values in LABELS.items()}
    other = data_module(tmp_path / "other.db", structures, TRAIN, TEST, **labels)
    with pytest.raises(TrainingError, match=r"elements Ag, Br, S, now Ag, I, Se.*start_from"):
        quiet_trainer(default_root_dir=tmp_path).fit(
            fresh_task().train(), datamodule=other, ckpt_path=path
        )
    quiet_trainer(default_root_dir=tmp_path).test(
        fresh_task(), datamodule=other, ckpt_path=path, verbose=False
    )


def test_options_that_a_checkpoint_overrides_are_named(data, tmp_path):
    def task(lr: float, factor: float) -> ScaledTask:
        return ScaledTask(
            fresh_task().model.train(),
            [output()],
            optimizer_args={"lr": lr},
            scheduler_cls=torch.optim.lr_scheduler.StepLR,
            scheduler_args={"step_size": 3, "gamma": factor},
        )

    def stopping(patience: int) -> Trainer:
        trainer = quiet_trainer(default_root_dir=tmp_path)
        trainer.callbacks.append(EarlyStopping("val_loss", patience=patience))
        return trainer

    first, path = stopping(5), tmp_path / "last.ckpt"
    first.fit(task(1e-3, 0.5), datamodule=data)
    first.save_checkpoint(path)
    with pytest.warns(UserWarning, match="the checkpoint holds these options") as found:
        stopping(9).fit(task(1e-5, 0.9), datamodule=data, ckpt_path=path)
    text = " ".join(str(one.message) for one in found)
    assert "task.optimizer_args.lr=0.001 (not 1e-05)" in text
    assert "task.scheduler_args.gamma=0.5 (not 0.9)" in text
    assert "EarlyStopping.patience=5 (not 9)" in text
    assert "step_size" not in text
    with pytest.raises(TrainingError, match=r"StepLR.*but task\.scheduler_cls is None"):
        quiet_trainer(default_root_dir=tmp_path).fit(
            fresh_task().train(), datamodule=data, ckpt_path=path
        )


@pytest.mark.filterwarnings("ignore:You are using `torch.load`:FutureWarning")
def test_a_trained_model_without_forces_can_be_deployed(trained, tmp_path):
    """As spkdeploy does it, from the file; predictions are equal in single precision."""
    torch.save(trained[0].model.eval(), tmp_path / "best_model")
    model = load_model(tmp_path / "best_model")
    assert not model.required_derivatives
    structures = [thermal(1)[1], thermal(2)[1].repeat((2, 1, 1))]
    expected, deployed = model(batch(structures)), scripted(model)
    for _ in range(3):
        found = deployed(batch(structures))
        assert found.keys() == expected.keys()
        for key, value in expected.items():
            torch.testing.assert_close(found[key], value.float(), rtol=1e-5, atol=1e-6)
