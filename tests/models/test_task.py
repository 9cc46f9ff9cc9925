"""The scaled loss against standardised values, the task in a small training, the metric by hand."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from pytorch_lightning import Trainer
from pytorch_lightning.callbacks import EarlyStopping
from schnetpack.atomistic import Atomwise, Forces, Strain
from schnetpack.data import AtomsDataModule
from schnetpack.model import NeuralNetworkPotential
from schnetpack.utils import load_model
from torch import nn
from torch.utils.data import DataLoader
from torchmetrics.regression import MeanAbsoluteError

from schnetpack_phonon.common.errors import TrainingError
from schnetpack_phonon.models.band_edges import BandEdges
from schnetpack_phonon.models.elastic_response import ElasticResponse
from schnetpack_phonon.models.elastic_tensor import ElasticTensor
from schnetpack_phonon.models.heads import BandGap, Energy
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


def output(name: str = "band_gap", scale: float = 1.0, **kwargs) -> ScaledOutput:
    result = ScaledOutput(
        name, loss_fn=nn.MSELoss(), metrics={"mae": MeanAbsoluteError()}, **kwargs
    )
    result.scale.fill_(scale)
    return result


@pytest.mark.parametrize("weight", [1.0, 0.3])
def test_loss_is_mse_of_standardised_values(weight):
    rng = np.random.default_rng(0)
    label, prediction = rng.normal(3, 0.2, (2, 50))
    mean, spread = label.mean(), label.std()
    expected = weight * np.mean(((prediction - mean) / spread - (label - mean) / spread) ** 2)
    loss = output(scale=spread, loss_weight=weight).calculate_loss(
        {"band_gap": torch.tensor(prediction)}, {"band_gap": torch.tensor(label)}
    )
    assert loss.item() == pytest.approx(expected, rel=1e-6)


def test_missing_labels_are_left_out_of_loss_and_gradient():
    label = torch.tensor([1.0, float("nan"), 3.0, float("nan")])
    prediction = torch.tensor([1.5, 9.0, 2.0, 9.0], requires_grad=True)
    loss = output(scale=0.5).calculate_loss({"band_gap": prediction}, {"band_gap": label})
    loss.backward()
    assert loss.item() == pytest.approx((1.0**2 + 2.0**2) / 2)  # (0.5 / 0.5)^2 and (1 / 0.5)^2
    # d/dp of ((p - y) / s)^2 / n
    torch.testing.assert_close(prediction.grad, torch.tensor([2.0, 0.0, -4.0, 0.0]))


@pytest.mark.parametrize("missing", [False, True], ids=["one complete", "none"])
def test_loss_and_metric_take_the_levels_that_there_are(missing):
    """Of structures with fewer k-points than others, whose predictions are NaN, too."""
    label = torch.tensor([[[1.0, 2.0], [3.0, 4.0]], [[1.0, 2.0], [3.0, 4.0]], [[0.0, 0], [0, 0]]])
    label[1, 1], label[2] = torch.nan, torch.nan
    if missing:
        label[:] = torch.nan
    prediction = torch.where(label.isnan(), label, label + 0.5).requires_grad_()
    levels = output("eigenvalues", scale=0.25)
    loss = levels.calculate_loss({"eigenvalues": prediction}, {"eigenvalues": label})
    levels.update_metrics({"eigenvalues": prediction.detach()}, {"eigenvalues": label}, "val")
    loss.backward()
    there = label.isfinite()
    assert loss.item() == pytest.approx(0.0 if missing else 2.0**2)
    assert prediction.grad.isfinite().all()
    assert torch.equal(prediction.grad != 0, there)
    if not missing:
        assert levels.metrics["val"]["mae"].compute().item() == pytest.approx(0.5)


def test_a_model_in_evaluation_mode_is_trained():
    """As Predictor gives it: its predictions are float64, for which PyTorch has no such loss."""
    model = potential(Energy(16)).eval()
    given = batch([thermal(1)[1]], energy=np.zeros(1))
    found = model({**given})
    assert found["energy"].dtype == torch.float64
    output("energy").calculate_loss(found, given).backward()
    assert model.output_modules[0].outnet[0].weight.grad.abs().sum() > 0


LABELS = {
    "band_gap": [0.9, 1.1, 1.3, float("nan"), 1.0, 1.6, 0.7, 1.2, 1.15, 0.95],
    "hydrostatic_stress": [0.01, 0.02, -0.01, 0.03, 0.015, 0.0, -0.02, 0.005, 0.012, -0.004],
}

TRAIN, TEST = [1, 3, 5, 7, 8, 9], [2, 4, 6]


@pytest.fixture
def data(tmp_path: Path) -> AtomsDataModule:
    """Ten displaced crystals of one composition; a training label is missing."""
    structures = [thermal(k)[1] for k in range(10)]
    return data_module(tmp_path / "labels.db", structures, TRAIN, TEST, **LABELS)


def fresh_task() -> ScaledTask:
    """Our head, and one of SchNetPack whose output has another name than its label."""
    pressure = Atomwise(16, aggregation_mode="avg", output_key="pressure")
    return ScaledTask(
        potential(BandGap(16, "band_gap"), pressure),
        [output(), output("pressure", target_property="hydrostatic_stress")],
        optimizer_args={"lr": 1e-3},
    )


@pytest.fixture
def trained(data: AtomsDataModule, tmp_path: Path) -> tuple[ScaledTask, Trainer]:
    """After one epoch."""
    task = fresh_task().train()
    trainer = quiet_trainer(default_root_dir=tmp_path)
    trainer.fit(task, datamodule=data)
    return task, trainer


def spread(key: str) -> float:
    return np.nanstd(np.array(LABELS[key])[TRAIN])


def test_fit_takes_scales_from_training_labels(trained, tmp_path):
    """One composition: the spread is the standard deviation. A checkpoint restores it."""
    task, trainer = trained
    trainer.save_checkpoint(tmp_path / "last.ckpt")
    tested = fresh_task()  # Lightning's way before a test
    tested.load_state_dict(torch.load(tmp_path / "last.ckpt", weights_only=False)["state_dict"])
    stored = ScaledTask.load_from_checkpoint(tmp_path / "last.ckpt")  # SchNetPack's after training
    numbers = torch.as_tensor(thermal()[0].numbers)
    for each in (task, tested, stored):
        for out, key in zip(each.outputs, LABELS, strict=True):
            assert out.scale.item() == pytest.approx(spread(key), rel=1e-5)
        head = each.model.output_modules[0]
        assert head.scale.item() == pytest.approx(spread("band_gap"), rel=1e-5)
        mean = np.nanmean(np.array(LABELS["band_gap"])[TRAIN])
        assert head.offset[numbers].mean().item() == pytest.approx(mean, rel=1e-5)


def test_metrics_are_in_physical_units(trained, data):
    """Lightning's numbers over batches of unequal size, against one structure at a time."""
    task, trainer = trained
    (metrics,) = trainer.test(task, datamodule=data, verbose=False)
    task.eval()
    single = [task.model(batch([thermal(k)[1]])) for k in TEST]
    losses = []
    for name, key in zip(("band_gap", "pressure"), LABELS, strict=True):
        error = [
            values[name].item() - LABELS[key][k] for values, k in zip(single, TEST, strict=True)
        ]
        assert metrics[f"test_{name}_mae"] == pytest.approx(np.abs(error).mean(), rel=1e-4)
        losses.append(np.mean(np.square(error)) / spread(key) ** 2)
    assert metrics["test_loss"] == pytest.approx(sum(losses), rel=1e-4)


@pytest.mark.filterwarnings("ignore:The ``compute`` method of metric:UserWarning")
def test_metrics_leave_out_missing_labels(tmp_path):
    """Most training batches have none, the first too; validation has none; the test set has one."""
    gap = np.full(12, np.nan)
    gap[[0, 1, 9]] = [0.9, 1.1, 1.4]
    structures = [thermal(k)[1] for k in range(12)]
    data = data_module(tmp_path / "labels.db", structures, range(7), [9, 10, 11], band_gap=gap)
    inputs = [batch([structures[k]], band_gap=gap[[k]]) for k in (4, 0, 5, 1, 6)]
    data._train_dataloader = DataLoader(inputs, batch_size=None)  # in this order
    task = ScaledTask(potential(BandGap(16, "band_gap")), [output()], optimizer_args={"lr": 1e-3})
    trainer = quiet_trainer(default_root_dir=tmp_path)
    trainer.fit(task.train(), datamodule=data)
    assert trainer.callback_metrics["val_loss"] == 0
    assert trainer.callback_metrics["val_band_gap_mae"].isnan()
    (metrics,) = trainer.test(task, datamodule=data, verbose=False)
    error = abs(task.eval().model(batch([structures[9]]))["band_gap"].item() - gap[9])
    assert metrics["test_band_gap_mae"] == pytest.approx(error, rel=1e-4)


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
