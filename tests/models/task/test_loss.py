"""The scaled loss against standardised values, the task in a small training, the metric by hand."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

from schnetpack_phonon.models.heads import BandGap, Energy
from schnetpack_phonon.models.task import ScaledTask
from tests.models.model_fixtures import (
    batch,
    data_module,
    potential,
    quiet_trainer,
    thermal,
)
from tests.models.task.task_fixtures import LABELS, TEST, TRAIN, fresh_task, output


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
