"""SchNetPack's task with losses in units of the spread of each property; a metric of tensors."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from schnetpack.data import AtomsDataModule
from schnetpack.model import AtomisticModel
from schnetpack.task import AtomisticTask, ModelOutput
from torch import nn
from torchmetrics import MeanAbsoluteError, Metric

from schnetpack_phonon.common.errors import TrainingError
from schnetpack_phonon.common.properties import element_names
from schnetpack_phonon.data.statistics import label_spread, training_elements
from schnetpack_phonon.models.trained.units import units_of_data
from schnetpack_phonon.models.trained.weights import save_weights

_SQUARES = nn.MSELoss()


class ScaledOutput(ModelOutput):
    """SchNetPack's ``ModelOutput`` with its loss in units of the spread of the labels.

    Loss weights of several properties are thereby comparable, whatever their units: with a squared
    error, the loss is the fraction of the variance that is not explained yet. The spread is that of
    :func:`.label_spread`. Predictions, targets and metrics stay in physical units. Structures
    without a label (NaN) are left out of loss and metrics, as are atoms for a property of atoms and
    single numbers, such as levels at k-points that other structures alone have. A metric without
    any label is NaN.

    Args:
        name: output of the model.
        loss_fn: the mean squared error by default; None for an output that is not trained.
        loss_weight: of this output in the sum of all.
        metrics: by name; ``mae``, the mean absolute error, by default.
        kwargs: of SchNetPack's class.
    """

    scale: torch.Tensor

    def __init__(
        self,
        name: str,
        loss_fn: nn.Module | None = _SQUARES,
        loss_weight: float = 1.0,
        metrics: Mapping[str, Metric] | None = None,
        **kwargs: Any,
    ):
        found = {"mae": MeanAbsoluteError()} if metrics is None else dict(metrics)
        super().__init__(name, loss_fn, loss_weight, found, **kwargs)
        self.register_buffer("scale", torch.ones(1))

    def datamodule(self, value: AtomsDataModule) -> None:
        """Takes the spread from the training labels."""
        self.scale = label_spread(value, self.target_property).to(self.scale)

    def calculate_loss(
        self, pred: dict[str, torch.Tensor], target: dict[str, torch.Tensor]
    ) -> torch.Tensor | float:
        if self.loss_weight == 0 or self.loss_fn is None:
            return 0.0
        predictions, labels = self._labelled(pred, target)
        if not len(labels):
            return 0.0 * pred[self.name].nansum()
        # Predictions of a model in evaluation mode are float64; losses need one type.
        labels = labels.to(predictions.dtype)
        return self.loss_weight * self.loss_fn(predictions / self.scale, labels / self.scale)

    def update_metrics(
        self, pred: dict[str, torch.Tensor], target: dict[str, torch.Tensor], subset: str
    ) -> None:
        predictions, labels = self._labelled(pred, target)
        for metric in self.metrics[subset].values():
            if len(labels):
                # A stress from derivatives is not contiguous, as torchmetrics requires.
                metric(predictions.contiguous(), labels.contiguous())

    def _labelled(
        self, pred: dict[str, torch.Tensor], target: dict[str, torch.Tensor]
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Predictions and labels of the rows that have one, flattened if some have a part of it."""
        predictions, labels = pred[self.name], target[self.target_property]
        present = labels.isfinite()
        rows = present.reshape(len(labels), -1).any(dim=1)
        if present[rows].all():
            present = rows
        return predictions[present], labels[present]


class ScaledTask(AtomisticTask):
    """SchNetPack's task; before a fit each :class:`ScaledOutput` gets its scale.

    The model gets a buffer ``trained_elements``: which of the first 100 elements are in the
    training set, and ``training_units``: units of its outputs. Modules with a method
    ``check_model`` check the whole model before any data is made. A run is continued from
    checkpoints of its own training set alone.

    Args:
        model, args, kwargs: of SchNetPack's class.
    """

    def __init__(self, model: AtomisticModel, *args: Any, **kwargs: Any):
        super().__init__(model, *args, **kwargs)
        if not hasattr(self.model, "trained_elements"):
            self.model.register_buffer("trained_elements", torch.zeros(101, dtype=torch.bool))
        # TorchScript (spkdeploy) cannot tell the type of an empty list, as without forces.
        model.__annotations__ = {"required_derivatives": list[str]}
        for module in model.modules():
            if hasattr(module, "check_model"):
                module.check_model(model)

    def setup(self, stage: str | None = None) -> None:
        super().setup(stage)
        if stage == "fit":
            data = self.trainer.datamodule
            self.model.training_units = units_of_data(data, self.outputs)
            for output in self.outputs:
                if isinstance(output, ScaledOutput):
                    output.datamodule(data)
                    seen = training_elements(data, output.target_property)
                    self.model.trained_elements |= seen.to(self.model.trained_elements.device)

    def test_step(self, batch: dict[str, torch.Tensor], batch_idx: int) -> dict[str, torch.Tensor]:
        """As SchNetPack's; with forces also in the inference mode of a plain Trainer."""
        with torch.inference_mode(False):
            return super().test_step({k: v.clone() for k, v in batch.items()}, batch_idx)

    def save_model(self, path: str, do_postprocessing: bool | None = None) -> None:
        """As SchNetPack's, with the weights beside the pickle: :func:`.write_weights`."""
        before = self.model.do_postprocessing
        if do_postprocessing is not None:
            self.model.do_postprocessing = do_postprocessing
        super().save_model(path)
        if self.global_rank == 0:
            save_weights(self.model, Path(path))
        self.model.do_postprocessing = before

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Lightning calls this before it takes weights, offsets and scales of a checkpoint.

        Raises:
            TrainingError: if training would continue with offsets of another training set, or with
                another optimiser or scheduler.
        """
        if self._trainer is not None and self.trainer.state.fn == "fit":
            self._check_training_set(checkpoint["state_dict"])
            self._check_options(checkpoint)

    def _check_training_set(self, there: dict[str, torch.Tensor]) -> None:
        changed = []
        for name, value in self.state_dict().items():
            other = there.get(name, value).to(value)
            if name == "model.trained_elements" and not torch.equal(value, other):
                sets = (seen.nonzero()[:, 0].tolist() for seen in (other, value))
                old, new = (element_names(numbers) or "none" for numbers in sets)
                changed.append(f"elements {old}, now {new}")
            elif name.endswith((".offset", ".scale")) and not _close(value, other):
                changed.append(f"{name} differs")
        if changed:
            raise TrainingError(
                "the checkpoint is of a run with another training set "
                f"({'; '.join(changed[:3])}), and its offsets, scales and elements would replace "
                "those of this one: continue the other run with its own data, or start a new one "
                f"{_NEW_RUN}"
            )

    def _check_options(self, checkpoint: dict[str, Any]) -> None:
        """Names options that the checkpoint overrides."""
        there, kept = checkpoint.get("hyper_parameters", {}), []
        for name in ("optimizer_cls", "scheduler_cls"):
            if name in there and there[name] is not self.hparams[name]:
                raise TrainingError(
                    f"the checkpoint has the state of {there[name]}, but task.{name} is "
                    f"{self.hparams[name]}: continue with the former, or start a new run {_NEW_RUN}"
                )
        for group in ("optimizer_args", "scheduler_args"):
            old, new = (dict(one.get(group) or {}) for one in (there, self.hparams))
            if group in there:
                kept += _changed(f"task.{group}", old, new)
        for callback in self.trainer.callbacks:
            state = checkpoint.get("callbacks", {}).get(callback.state_key, {})
            old = {k: v for k, v in {**state, **state.get("ema", {})}.items() if k in _OF_CALLBACKS}
            new = {k: getattr(callback, k, v) for k, v in old.items()}
            kept += _changed(type(callback).__name__, old, new)
        if kept:
            warnings.warn(
                f"the run continues with {', '.join(kept)}: the checkpoint holds these options. "
                f"For other values start a new run {_NEW_RUN}",
                stacklevel=2,
            )


_NEW_RUN = "from its model: +callbacks=start_from callbacks.start_from.path=RUN"
_OF_CALLBACKS = ("patience", "decay")  # options that callbacks take from a checkpoint


def _close(one: torch.Tensor, other: torch.Tensor) -> bool:
    return one.shape == other.shape and bool((one - other).abs().max() <= 1e-4 * one.abs().max())


def _changed(place: str, old: dict[str, Any], new: dict[str, Any]) -> list[str]:
    return [
        f"{place}.{key}={old.get(key)} (not {new.get(key)})"
        for key in sorted(old.keys() | new.keys())
        if old.get(key) != new.get(key)
    ]


class RelativeFrobeniusError(Metric):
    r"""Mean over structures of :math:`\|C - C_0\|_F / \|C_0\|_F`, which has no unit.

    The Frobenius norm is that of the 6 x 6 matrix in Voigt's notation. Predictions and labels have
    the shape (n_structures, 6, 6), or (n_structures, 3, 3) for stresses.
    """

    full_state_update = False
    higher_is_better = False
    total: torch.Tensor
    count: torch.Tensor

    def __init__(self) -> None:
        super().__init__()
        self.add_state("total", torch.tensor(0.0), dist_reduce_fx="sum")
        self.add_state("count", torch.tensor(0), dist_reduce_fx="sum")

    def update(self, predictions: torch.Tensor, labels: torch.Tensor) -> None:
        norm = torch.linalg.matrix_norm
        self.total += (norm(predictions - labels) / norm(labels)).sum()
        self.count += len(labels)

    def compute(self) -> torch.Tensor:
        return self.total / self.count
