"""Trains on some processes; each writes what it saw: DATABASE FOLDER N_PROCESSES BATCH_SIZE."""

import json
import sys
from pathlib import Path

from pytorch_lightning import Callback, seed_everything
from schnetpack.data import AtomsLoader
from torch.utils.data import DistributedSampler

from tests.data.loading.loading_fixtures import energy_task, on_graphs
from tests.models.model_fixtures import quiet_trainer

SEED = 4


class Diary(Callback):
    """Structures and loss of each step."""

    def __init__(self):
        self.seen, self.losses = [], []

    def on_train_batch_end(self, trainer, task, outputs, batch, batch_number):
        self.seen.append(batch["_idx"].tolist())
        self.losses.append(outputs["loss"].item())


def main(database: str, folder: str, n_processes: str, batch_size: str) -> None:
    seed_everything(SEED, workers=True)
    data = on_graphs(
        Path(database), Path(folder) / "cache", batch_size=int(batch_size), num_train=12, num_test=7
    )
    diary = Diary()
    several = int(n_processes) > 1
    trainer = quiet_trainer(
        devices=int(n_processes),
        strategy="ddp" if several else "auto",
        max_epochs=2,
        num_sanity_val_steps=0,
        callbacks=[diary],
        default_root_dir=folder,
    )
    task = energy_task()
    if several:
        trainer.fit(task, datamodule=data)
    else:  # in the order in which several share
        whole = data.train_dataloader()
        trainer.fit(
            task,
            AtomsLoader(
                whole.dataset,
                batch_size=int(batch_size),
                sampler=DistributedSampler(whole.dataset, 1, 0, seed=SEED),
                collate_fn=whole.collate_fn,
            ),
        )
    weights = [value for p in task.parameters() for value in p.flatten().tolist()]
    found = {"seen": diary.seen, "losses": diary.losses, "weights": weights}
    Path(folder, f"{trainer.global_rank}.json").write_text(json.dumps(found))


if __name__ == "__main__":
    main(*sys.argv[1:])
