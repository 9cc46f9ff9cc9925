"""SchNetPack's task with losses in units of each property's spread."""

from __future__ import annotations

from typing import Any

import torch
from schnetpack.data import AtomsDataModule
from schnetpack.task import AtomisticTask, ModelOutput

from schnetpack_phonon.datamodule import composition_fit


class ScaledOutput(ModelOutput):
    """The host's ``ModelOutput`` with its loss in units of the spread of the labels.

    Loss weights of several properties are thereby comparable numbers, whatever their units.
    Predictions, targets and metrics stay in physical units. Structures without a label (NaN) are
    left out of the loss.

    Args:
        args, kwargs: of the host's class.
    """

    scale: torch.Tensor

    def __init__(self, *args: Any, **kwargs: Any):
        super().__init__(*args, **kwargs)
        self.register_buffer("scale", torch.ones(1))

    def datamodule(self, value: AtomsDataModule) -> None:
        """Takes the spread at fixed composition from the training labels."""
        self.scale = composition_fit(value, self.target_property)[1].to(self.scale)

    def calculate_loss(
        self, pred: dict[str, torch.Tensor], target: dict[str, torch.Tensor]
    ) -> torch.Tensor | float:
        if self.loss_weight == 0 or self.loss_fn is None:
            return 0.0
        labels, predictions = target[self.target_property], pred[self.name]
        present = labels.isfinite()
        if not present.any():
            return 0.0 * predictions.sum()
        scaled = (predictions[present] / self.scale, labels[present] / self.scale)
        return self.loss_weight * self.loss_fn(*scaled)


class ScaledTask(AtomisticTask):
    """The host's task; before a fit it lets each :class:`ScaledOutput` see the training set."""

    def setup(self, stage: str | None = None) -> None:
        super().setup(stage)
        if stage == "fit":
            for output in self.outputs:
                if isinstance(output, ScaledOutput):
                    output.datamodule(self.trainer.datamodule)
