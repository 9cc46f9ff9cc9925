"""A Lightning callback: one line of progress for a training, and one for its test."""

from __future__ import annotations

import logging
import math
from contextlib import ExitStack
from typing import Any

from pytorch_lightning import Callback, LightningModule, Trainer
from pytorch_lightning.callbacks import ModelCheckpoint, TQDMProgressBar

from schnetpack_phonon.common.progress import Progress
from schnetpack_phonon.evaluation.callbacks import ReportCallback

log = logging.getLogger(__name__)


class TrainingProgress(Callback):
    """Progress of training and test, in place of Lightning's bars.

    Where the test has a report of this package, Lightning's table of the same errors is left out.
    Nothing is shown with ``trainer.enable_progress_bar=false`` or another progress bar, and
    Lightning's bars are kept for trainings without end.
    """

    def __init__(self) -> None:
        self._shown = False
        self._stack = ExitStack()
        self._progress: Progress | None = None

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        bar = trainer.progress_bar_callback
        if type(bar) is TQDMProgressBar and max(trainer.max_epochs or 0, trainer.max_steps) > 0:
            bar.disable()
            self._shown = trainer.is_global_zero

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        n_batches, n_epochs = trainer.num_training_batches, trainer.max_epochs or 0
        total = n_epochs * n_batches if n_epochs > 0 else trainer.max_steps
        if self._shown and math.isfinite(total):
            log.info(
                "training of %s parameters, %d batches an epoch, on %s",
                f"{sum(weights.numel() for weights in pl_module.parameters()):,}",
                n_batches,
                trainer.strategy.root_device,
            )
            self._show("training", int(total), trainer.current_epoch * int(n_batches))

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if self._progress:
            self._progress.update(0, _state(trainer, trainer.current_epoch + 1))

    def on_train_batch_end(self, *_: Any) -> None:
        if self._progress:
            self._progress.update()

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if self._progress:
            early = trainer.should_stop and trainer.current_epoch < (trainer.max_epochs or 0)
            state = _state(trainer, trainer.current_epoch)
            self._progress.finish(f"stopped early at {state}" if early else state)
        self._close()

    def on_test_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if any(isinstance(callback, ReportCallback) for callback in trainer.callbacks):
            trainer.test_loop.verbose = False
        if self._shown and math.isfinite(total := sum(trainer.num_test_batches)):
            self._show("test", int(total))

    def on_test_batch_end(self, *_: Any) -> None:
        if self._progress:
            self._progress.update()

    def on_test_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._close()

    def on_exception(self, *_: Any) -> None:
        self._close()

    def _show(self, description: str, total: int, done: int = 0) -> None:
        self._progress = Progress(description, total, done, "batches")
        self._stack.enter_context(self._progress)

    def _close(self) -> None:
        self._stack.close()
        self._progress = None


def _state(trainer: Trainer, epoch: int) -> str:
    """Epoch, and the last and best value of what the checkpoint monitors."""
    text = f"epoch {epoch} of {trainer.max_epochs}"
    checkpoint = trainer.checkpoint_callback
    if isinstance(checkpoint, ModelCheckpoint) and checkpoint.best_model_score is not None:
        if (last := trainer.callback_metrics.get(str(checkpoint.monitor))) is not None:
            text += f", {checkpoint.monitor} {last:.3g}"
        text += f", best {checkpoint.best_model_score:.3g}"
    return text
