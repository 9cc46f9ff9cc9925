"""The data path beside the plain host's: start, batches, epochs, memory.

Databases hold Ag3SBr with random displacements and labels. Each figure of ours stands beside the
host's, measured in turn with it in the same process: processor seconds, since other work on the
machine changes wall-clock times, and wall-clock seconds where processes share the work. Larger
databases are gone through in part, and times per epoch scaled. The model is PaiNN with 64 features
and 3 interactions, on one thread.

    OMP_NUM_THREADS=1 python -m tests.benchmarks.loading                      # 30 minutes
    OMP_NUM_THREADS=1 python -m tests.benchmarks.loading --sizes 500x40       # 1 minute
"""

import argparse
import resource
import sys
import tempfile
import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

import loky
import numpy as np
import schnetpack as spk
import torch
from pytorch_lightning import Callback, seed_everything
from schnetpack.atomistic import Atomwise
from schnetpack.data import AtomsDataModule
from schnetpack.model import NeuralNetworkPotential
from schnetpack.transform import CastTo32, MatScipyNeighborList

from schnetpack_phonon.data.loading.loaders import GraphLoading
from tests.benchmarks.label_store import in_own_process
from tests.data.data_fixtures import ensemble_data
from tests.data.loading.loading_fixtures import displaced, energy_task, fake_database
from tests.models.model_fixtures import quiet_trainer

SIZES = ("500x40", "5000x40", "50000x40", "500x320")
SUPERCELLS = {40: (2, 2, 2), 320: (4, 4, 4)}
CUTOFF = 5.0
BATCH_SIZE = 10
N_BATCHES = 50  # of the host's loader, and of a training epoch of databases that are larger
N_TURNS = 3
BUDGETS = {"in memory": 8.0, "streamed": 0.0}  # GiB


@dataclass
class Clock:
    """Processor seconds, those of finished processes included, and wall-clock seconds."""

    processor: float = field(default_factory=lambda: time.process_time() + _of_children())
    wall: float = field(default_factory=time.perf_counter)

    def passed(self) -> "Clock":
        now = Clock()
        return Clock(now.processor - self.processor, now.wall - self.wall)


def _of_children() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def data_module(path: Path, cache: Path | None, budget: float, **kwargs: Any) -> AtomsDataModule:
    """Ours, or the host's where there is no cache; set up."""
    options = {
        "datapath": str(path),
        "batch_size": BATCH_SIZE,
        "num_train": 0.8,
        "num_val": 0.1,
        "num_test": 0.1,
        "num_workers": 0,
        "split_file": None,
        "load_properties": ["energy", "band_gap"],
        "transforms": [MatScipyNeighborList(cutoff=CUTOFF), CastTo32()],
    } | kwargs
    torch.manual_seed(0)
    if cache is None:
        data = AtomsDataModule(**options)
    else:
        loading = GraphLoading(str(cache), budget, on_device=torch.cuda.is_available())
        data = ensemble_data(path.parent, splitting=None, loading=loading, **options)
        data.generation = None
        data.prepare_data = lambda: None
    data.setup()
    return data


def start(path: Path, cache: Path | None) -> Clock:
    """Until the first batch of a data module."""
    clock = Clock()
    next(iter(data_module(path, cache, BUDGETS["in memory"]).train_dataloader()))
    return clock.passed()


def exhaust(batches: Iterable) -> int:
    """Structures in them."""
    return sum(len(batch["_idx"]) for batch in batches)


def per_structure(*loaders: Iterable, repeats: int = 3) -> list[float]:
    """Processor milliseconds of each loader, warm; the best of some passes in turn."""
    found: list[list[float]] = [[] for _ in loaders]
    for _ in range(repeats):
        for times, loader in zip(found, loaders, strict=True):
            clock, n = Clock(), 0
            while clock.passed().processor < 0.3:
                n += exhaust(loader)
            times.append(1e3 * clock.passed().processor / n)
    return [min(times) for times in found]


class FirstBatches:
    """So many batches of a loader, each time it is gone through."""

    def __init__(self, loader: Iterable, n: int):
        self.loader, self.n = loader, n

    def __iter__(self):
        return islice(self.loader, self.n)


class Epochs(Callback):
    """Processor seconds of each epoch with its validation."""

    def __init__(self):
        self.seconds: list[float] = []

    def on_train_epoch_start(self, trainer, task):
        self.clock = Clock()

    def on_train_epoch_end(self, trainer, task):
        self.seconds.append(self.clock.passed().processor)


def painn() -> NeuralNetworkPotential:
    torch.manual_seed(1)
    basis, cutoff = spk.nn.GaussianRBF(20, CUTOFF), spk.nn.CosineCutoff(CUTOFF)
    network = spk.representation.PaiNN(64, 3, basis, cutoff)
    head = Atomwise(64, output_key="energy")
    return NeuralNetworkPotential(network, [spk.atomistic.PairwiseDistances()], [head])


def epoch(data: AtomsDataModule, n_batches: int) -> tuple[float, float]:
    """Seconds of the second epoch, the first being the warm-up, and its ``val_loss``."""
    seed_everything(3, workers=True, verbose=False)
    epochs = Epochs()
    trainer = quiet_trainer(
        accelerator="auto",
        devices=1,
        max_epochs=2,
        limit_train_batches=n_batches,
        limit_val_batches=max(n_batches // 8, 1),
        num_sanity_val_steps=0,
        callbacks=[epochs],
        default_root_dir=tempfile.gettempdir(),
    )
    trainer.fit(energy_task(painn()), datamodule=data)
    return epochs.seconds[-1], trainer.callback_metrics["val_loss"].item()


def memory(path: Path, cache: Path, budget: float) -> float:
    """Largest memory in GiB of a process that goes through all batches."""
    return in_own_process(_go_through, path, cache, budget)[1] / 1024


def _go_through(path: Path, cache: Path, budget: float) -> None:
    exhaust(data_module(path, cache, budget).train_dataloader())


def measure(size: str, folder: Path) -> None:
    n, n_atoms = map(int, size.split("x"))
    path = fake_database(folder / f"{size}.db", displaced(n, SUPERCELLS[n_atoms]))
    cache = folder / f"graphs {size}"
    cold, warm, plain = start(path, cache), start(path, cache), start(path, None)
    ours, streamed = (data_module(path, cache, budget) for budget in BUDGETS.values())
    host = data_module(path, None, 0)
    loaders = [data.train_dataloader() for data in (ours, streamed, host)]
    loaders[2] = FirstBatches(loaders[2], N_BATCHES)
    exhaust(loaders[0])
    rates = per_structure(*loaders)
    n_batches = min(len(ours.train_dataloader()), N_BATCHES * 40 // n_atoms)
    turns = [[epoch(data, n_batches) for data in (host, ours)] for _ in range(N_TURNS)]
    seconds = np.min([[time for time, _ in turn] for turn in turns], axis=0)
    losses = {loss for turn in turns for _, loss in turn}
    seconds *= 0.8 * n / BATCH_SIZE / n_batches
    megabytes = sum(file.stat().st_size for file in cache.rglob("*.bin")) / 2**20
    peaks = [memory(path, cache, budget) for budget in BUDGETS.values()]
    cells = [
        f"{size:>9s} {megabytes:9.0f} {cold.wall:8.1f} {cold.processor:8.1f}",
        f"{warm.wall:8.2f} {warm.processor:7.2f} {plain.processor:7.2f} |",
        f"{rates[2]:6.2f} {rates[0]:7.4f} {rates[1]:9.4f}",
        f"{rates[2] / rates[0]:7.0f} {rates[2] / rates[1]:9.0f} |",
        f"{seconds[0]:8.1f} {seconds[1]:8.1f} {seconds[0] / seconds[1]:6.2f}",
        f"{'same' if len(losses) == 1 else losses!s:>8s} |",
        f"{peaks[0]:7.2f} {peaks[1]:8.2f}",
    ]
    print(" ".join(cells), flush=True)


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sizes", nargs="+", default=SIZES, help="structures x atoms")
    sizes = parser.parse_args(arguments).sizes
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else "CPU; GPU: not measured"
    print(f"\ndata path, {loky.cpu_count()} cores, {device}, batches of {BATCH_SIZE}")
    print(f"{'':20} {'s to the first batch (processor)':41} | {'ms a structure':26}", end="")
    print(f"{'host / ours':>17} | {'s an epoch':34} | GiB of a process")
    print(f"{'size':>9s} {'graphs MB':>9s} {'cold':>8s} {'(cold)':>8s} {'warm':>8s}", end="")
    print(f" {'(warm)':>7s} {'(host)':>7s} | {'host':>6s} {'memory':>7s} {'streamed':>9s}", end="")
    print(f" {'memory':>7s} {'streamed':>9s} | {'host':>8s} {'ours':>8s} {'ratio':>6s}", end="")
    print(f" {'val_loss':>8s} | {'memory':>7s} {'streamed':>8s}")
    with tempfile.TemporaryDirectory() as name:
        for size in sizes:
            measure(size, Path(name))


if __name__ == "__main__":
    main(sys.argv[1:])
