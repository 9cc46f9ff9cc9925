"""What the tests of this folder share."""

from __future__ import annotations

from pathlib import Path

import pytest
from pytorch_lightning import Trainer
from schnetpack.data import AtomsDataModule

from schnetpack_phonon.models.task import ScaledTask
from tests.models.model_fixtures import (
    data_module,
    quiet_trainer,
    thermal,
)
from tests.models.task.task_fixtures import LABELS, TEST, TRAIN, fresh_task


@pytest.fixture
def data(tmp_path: Path) -> AtomsDataModule:
    """Ten displaced crystals of one composition; a training label is missing."""
    structures = [thermal(k)[1] for k in range(10)]
    return data_module(tmp_path / "labels.db", structures, TRAIN, TEST, **LABELS)


@pytest.fixture
def trained(data: AtomsDataModule, tmp_path: Path) -> tuple[ScaledTask, Trainer]:
    """After one epoch."""
    task = fresh_task().train()
    trainer = quiet_trainer(default_root_dir=tmp_path)
    trainer.fit(task, datamodule=data)
    return task, trainer
