"""What is told of a training, in place of Lightning's bars."""

import re

import pytest
import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import EarlyStopping, ModelCheckpoint
from torch.utils.data import DataLoader

from schnetpack_phonon.evaluation.callbacks import ReportCallback
from schnetpack_phonon.evaluation.training import TrainingProgress


class Line(pl.LightningModule):
    """A straight line, which gets worse: its validation loss is the number of its epoch."""

    def __init__(self):
        super().__init__()
        self.layer = torch.nn.Linear(1, 1)

    def training_step(self, batch, number):
        return self.layer(batch).square().mean()

    def validation_step(self, batch, number):
        self.log("val_loss", torch.tensor(1.0 + self.current_epoch), batch_size=1)

    def test_step(self, batch, number):
        self.log("test_loss", torch.tensor(1.0), batch_size=1)

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), 1e-3)


def train(tmp_path, *callbacks, progress=True, **options):
    loader = DataLoader(torch.ones(6, 1), batch_size=2)
    trainer = pl.Trainer(
        accelerator="cpu",
        logger=False,
        enable_progress_bar=progress,
        enable_model_summary=False,
        default_root_dir=tmp_path,
        callbacks=[
            ModelCheckpoint(tmp_path, monitor="val_loss"),
            TrainingProgress(),
            *callbacks,
        ],
        **{"max_epochs": 2, "log_every_n_steps": 1} | options,
    )
    model = Line()
    trainer.fit(model, loader, loader)
    trainer.test(model, loader)


@pytest.fixture
def lines(caplog):
    caplog.set_level("INFO", "schnetpack_phonon")
    return lambda: [text for text in caplog.messages if text.startswith(("training", "test"))]


def test_one_line_for_training_and_one_for_the_test(tmp_path, lines, capsys):
    train(tmp_path)
    first, training, test = lines()
    assert first == "training of 2 parameters, 3 batches an epoch, on cpu"
    assert re.fullmatch(
        r"training: 6 of 6 batches, \S+ per second, took 0:00:0\d, epoch 2 of 2, val_loss 2, "
        r"best 1",
        training,
    )
    assert test.startswith("test: 3 of 3 batches, ")
    both = "".join(capsys.readouterr())
    assert "Epoch" not in both
    assert "test_loss" in both  # Lightning's table, where nothing else tells the errors


def test_stopped_early(tmp_path, lines):
    train(tmp_path, EarlyStopping("val_loss", patience=1), max_epochs=9)
    assert re.fullmatch(
        r"training: 6 of 6 .*, stopped early at epoch 2 of 9, val_loss 2, best 1", lines()[1]
    )


def test_steps_instead_of_epochs(tmp_path, lines):
    train(tmp_path, max_epochs=-1, max_steps=5)
    assert lines()[1].startswith("training: 5 of 5 batches")


def test_table_of_lightning_is_left_out_beside_a_report(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(ReportCallback, "on_test_end", lambda *_: None)
    train(tmp_path, ReportCallback())
    assert "test_loss" not in capsys.readouterr().out


def test_switched_off_with_that_of_lightning(tmp_path, lines):
    train(tmp_path, progress=False)
    assert lines() == []


def test_interrupted(tmp_path, lines):
    """The line says how far it came."""

    class Fail(pl.Callback):
        def on_train_batch_end(self, trainer, *_):
            if trainer.global_step == 4:
                raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        train(tmp_path, Fail())
    assert lines()[1].startswith("training: 4 of 6 batches, ")
