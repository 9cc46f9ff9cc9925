"""What the tests of this folder share."""

from __future__ import annotations

from schnetpack.atomistic import Atomwise
from torch import nn
from torchmetrics.regression import MeanAbsoluteError

from schnetpack_phonon.models.heads import BandGap
from schnetpack_phonon.models.task import ScaledOutput, ScaledTask
from tests.models.model_fixtures import (
    potential,
)


def output(name: str = "band_gap", scale: float = 1.0, **kwargs) -> ScaledOutput:
    result = ScaledOutput(
        name, loss_fn=nn.MSELoss(), metrics={"mae": MeanAbsoluteError()}, **kwargs
    )
    result.scale.fill_(scale)
    return result


LABELS = {
    "band_gap": [0.9, 1.1, 1.3, float("nan"), 1.0, 1.6, 0.7, 1.2, 1.15, 0.95],
    "hydrostatic_stress": [0.01, 0.02, -0.01, 0.03, 0.015, 0.0, -0.02, 0.005, 0.012, -0.004],
}


TRAIN, TEST = [1, 3, 5, 7, 8, 9], [2, 4, 6]


def fresh_task() -> ScaledTask:
    """Our head, and one of SchNetPack whose output has another name than its label."""
    pressure = Atomwise(16, aggregation_mode="avg", output_key="pressure")
    return ScaledTask(
        potential(BandGap(16, "band_gap"), pressure),
        [output(), output("pressure", target_property="hydrostatic_stress")],
        optimizer_args={"lr": 1e-3},
    )
