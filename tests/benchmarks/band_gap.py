"""Which head predicts the band gap best: same data, representation, settings and labels.

Trains PaiNN (32 features, 2 layers: a third of the time of the experiment's 64 and 3, and no
worse with so few structures) on all PBEsol phonon snapshots that come with the package, with a
choice of heads for gap and band edges; energy per atom and hydrostatic stress are learned beside
them, but for "BandGap alone". All have the same recipe: AdamW, learning rate from 2e-3 down to
zero along a cosine over 100 epochs, moving average of the weights, those of the epoch with the
lowest validation loss. Each seed has a split (70 % training, 20 % test) and initial weights of its
own.

Beside them a graph convolution in the manner of published ones: summed neighbours, maximum over
atoms, a sigmoid between the smallest and the largest gap, gap alone. Every setting of it below is
tried, and the one with the lowest mean validation loss counts. Each line of the output is one
training; the table is over seeds, with differences to Atomwise(avg) on the same split. What can be
had without learning features is the row "quadratic response". "Hamiltonian" is
experiment=phonon_hamiltonian with its own recipe, on the same splits; with "PaiNN" its hoppings and
on-site energies depend on PaiNN's features, too.

    python -m tests.benchmarks.band_gap [--seeds 3] [--only BandEdges]      # 3 to 5 min a training
    python -m tests.benchmarks.band_gap --labels 96 --epochs 80             # of 280 for training
    python -m tests.benchmarks.band_gap --ensemble random --epochs 80       # or uniform, matched
    python -m tests.benchmarks.band_gap --only BandEdges Hamiltonian --test-on random matched
"""

import argparse
import contextlib
import itertools
import json
import logging
import os
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytorch_lightning as pl
import schnetpack.nn as snn
import torch
from hydra import compose, initialize_config_module
from hydra.utils import instantiate
from omegaconf import DictConfig, open_dict
from schnetpack import properties as host
from schnetpack.atomistic import Atomwise, PairwiseDistances
from schnetpack.model import NeuralNetworkPotential
from schnetpack.representation import PaiNN
from schnetpack.train import ExponentialMovingAverage
from schnetpack.utils import str2class
from torch import nn
from torchmetrics.regression import MeanAbsoluteError

from schnetpack_phonon.data.statistics import training_labels
from schnetpack_phonon.models.band_edges import BandEdges
from schnetpack_phonon.models.heads import BandGap, Intensive
from schnetpack_phonon.models.task import ScaledOutput
from tests.benchmarks import quadratic_response

WIDTH = 32
REFERENCE = "Atomwise(avg)"
QUADRATIC = "quadratic response"
HAMILTONIANS = {"Hamiltonian": 0, "Hamiltonian, PaiNN": WIDTH}  # number of features
EDGES = ("band_gap", "vbm", "cbm")
OTHERS = ("energy_per_atom", "hydrostatic_stress")
GRAPH_CONVOLUTIONS = list(itertools.product((2, 3), ("distance", "inverse")))


class Mean(BandEdges):
    """Edges that are means of the levels."""

    def pooled(self, levels, inputs):
        n_atoms = inputs[host.n_atoms]
        return snn.scatter_add(levels, inputs[host.idx_m], len(n_atoms)) / n_atoms[:, None]


class Outermost(BandEdges):
    """Edges that are the outermost levels."""

    def pooled(self, levels, inputs):
        return self.outward * largest(self.outward * levels, inputs)


class Attention(BandEdges):
    """Edges that are means of the levels with learned weights."""

    def __init__(self, n_in):
        super().__init__(n_in)
        self.score = snn.build_mlp(n_in, 2)

    def pooled(self, levels, inputs):
        idx_m, n = inputs[host.idx_m], len(inputs[host.n_atoms])
        score = self.score(inputs["scalar_representation"])
        weight = (score - largest(score, inputs).detach()[idx_m]).exp()
        return snn.scatter_add(weight * levels, idx_m, n) / snn.scatter_add(weight, idx_m, n)


def largest(values: torch.Tensor, inputs: dict[str, torch.Tensor]) -> torch.Tensor:
    """Over the atoms of each structure, shape=(n_atoms, k) -> (n_structures, k)."""
    lowest = values.new_full((len(inputs[host.n_atoms]), values.shape[1]), -torch.inf)
    index = inputs[host.idx_m][:, None].expand_as(values)
    return lowest.scatter_reduce(0, index, values, "amax")


class GraphConvolution(nn.Module):
    """x_i <- relu(W1 x_i + W2 sum_j e_ij x_j) on tabulated elements (Morris et al., AAAI 2019)."""

    def __init__(self, n_layers: int, edge: str, cutoff: float, width: int = 64):
        super().__init__()
        self.edge, self.cutoff = edge, torch.tensor(cutoff)
        self.embedding = nn.Embedding(101, width)
        self.own = nn.ModuleList([nn.Linear(width, width) for _ in range(n_layers)])
        self.neighbours = nn.ModuleList([nn.Linear(width, width) for _ in range(n_layers)])

    def forward(self, inputs):
        x, i, j = self.embedding(inputs[host.Z]), inputs[host.idx_i], inputs[host.idx_j]
        distance = inputs[host.Rij].norm(dim=1, keepdim=True) / self.cutoff
        weight = distance if self.edge == "distance" else 0.1 / distance
        for own, neighbours in zip(self.own, self.neighbours, strict=True):
            x = torch.relu(own(x) + neighbours(snn.scatter_add(weight * x[j], i, len(x))))
        return inputs | {"scalar_representation": x}


class MaxSigmoid(Intensive):
    """Maximum over the atoms, a network, and a sigmoid between the extremes of the training set."""

    def datamodule(self, value):
        labels, _ = training_labels(value, self.output_key)
        self.scale = (labels.max() - labels.min()).float()
        self.lowest = labels.min().float()

    def readout(self, inputs):
        pooled = largest(inputs["scalar_representation"], inputs)
        return self.lowest + self.scale * torch.sigmoid(self.outnet(pooled)[:, 0])


def hosts(mode: str) -> Callable[[], list[nn.Module]]:
    return lambda: [Atomwise(WIDTH, aggregation_mode=mode, output_key=key) for key in EDGES]


HEADS: dict[str, Callable[[], list[nn.Module]]] = {
    "BandEdges": lambda: [BandEdges(WIDTH)],
    "Atomwise(avg)": hosts("avg"),
    "Atomwise(sum)": hosts("sum"),
    "three heads": lambda: [BandGap(WIDTH, "band_gap"), *(Intensive(WIDTH, k) for k in EDGES[1:])],
    "BandGap alone": lambda: [BandGap(WIDTH, "band_gap")],
    "BandEdges, mean": lambda: [Mean(WIDTH)],
    "BandEdges, outermost": lambda: [Outermost(WIDTH)],
    "BandEdges, attention": lambda: [Attention(WIDTH)],
}


def trained(
    config: DictConfig,
    model: NeuralNetworkPotential,
    seed: int,
    folder: Path,
    others: Mapping[str, DictConfig] | None = None,
) -> dict[str, float]:
    """Test errors (eV and so on) and the best validation loss, by the experiment's settings.

    Those on the test parts of other data have the name of the data before them.
    """
    names = sorted(model.model_outputs)
    if any(isinstance(head, Atomwise) for head in model.output_modules):
        # The host's way for intensive properties; errors do not change with it.
        remove = {"_target_": "schnetpack.transform.RemoveOffsets", "remove_mean": True}
        config.data.transforms += [
            {**remove, "property": key, "is_extensive": False} for key in EDGES
        ]
    data = instantiate(config.data)
    with contextlib.chdir(folder):
        data.prepare_data()
        data.setup()
        options = {"optimizer_cls": str2class(config.task.optimizer_cls)}
        if config.run.experiment == "phonon_hamiltonian":
            options["scheduler_cls"] = str2class(config.task.scheduler_cls)
        else:
            with open_dict(config):
                del config.task.scheduler_args  # of the experiment's scheduler
            metrics = {"mae": MeanAbsoluteError()}
            options |= {
                "outputs": [ScaledOutput(n, nn.MSELoss(), metrics=metrics) for n in names],
                "scheduler_cls": torch.optim.lr_scheduler.CosineAnnealingLR,
                "scheduler_args": {"T_max": config.trainer.max_epochs},
                "scheduler_monitor": None,
            }
        task = instantiate(config.task, model=model, **options)
        best = instantiate(config.callbacks.model_checkpoint, save_last=False)
        trainer: pl.Trainer = instantiate(
            config.trainer,
            accelerator="cpu",
            callbacks=[
                best,
                ExponentialMovingAverage(decay=config.callbacks.ema.decay),
            ],
            logger=False,
            enable_progress_bar=False,
            enable_model_summary=False,
        )
        start = time.perf_counter()
        pl.seed_everything(seed)
        trainer.fit(task, datamodule=data)
        seconds = time.perf_counter() - start
        (metrics,) = trainer.test(task, datamodule=data, ckpt_path="best", verbose=False)
        errors = {name: metrics[f"test_{name}_mae"] for name in names}
        for other, its_config in (others or {}).items():
            (metrics,) = trainer.test(task, instantiate(its_config.data), "best", verbose=False)
            errors |= {f"{other}: {name}": metrics[f"test_{name}_mae"] for name in names}
    return errors | {
        "val_loss": float(best.best_model_score),
        "epochs": trainer.current_epoch,
        "seconds": round(seconds),
    }


def settings(seed: int, work: Path, *overrides: str) -> DictConfig:
    """The PaiNN experiment's config with the benchmark's recipe."""
    recipe = [
        "experiment=phonon_antiperovskite",
        "heads=painn",
        "heads=painn",
        f"model.representation.n_atom_basis={WIDTH}",
        "model.representation.n_interactions=2",
        "globals.lr=2e-3",
        "trainer.max_epochs=100",
        f"data.load_properties=[{','.join((*EDGES, *OTHERS))}]",
    ]
    return composed(seed, work, *recipe, *overrides)


def composed(seed: int, work: Path, *overrides: str) -> DictConfig:
    """An experiment's config with a split of its own."""
    folder = Path.cwd()
    with initialize_config_module("schnetpack.configs", version_base="1.2"):
        return compose(
            "train",
            [
                f"run.work_dir={work}",
                "run.id=benchmark",
                f"run.data_dir={folder / 'data'}",
                f"seed={seed}",
                "data.num_train=0.7",
                "data.num_test=0.2",
                *overrides,
            ],
        )


def learned_hamiltonian(config: DictConfig, n_in: int) -> NeuralNetworkPotential:
    """The experiment's model; with features, behind PaiNN."""
    representation = instantiate(config.model.representation)
    if n_in:
        cutoff = config.globals.cutoff
        representation = PaiNN(n_in, 2, snn.GaussianRBF(20, cutoff), snn.CosineCutoff(cutoff))
    (head,) = config.model.output_modules
    return NeuralNetworkPotential(
        representation, [PairwiseDistances()], [instantiate(head, n_in=n_in)]
    )


def painn(config: DictConfig, name: str) -> NeuralNetworkPotential:
    """The experiment's model with the chosen heads for gap and edges."""
    heads = HEADS[name]()
    if name != "BandGap alone":
        heads += [Intensive(WIDTH, key) for key in OTHERS]
    representation = instantiate(config.model.representation)
    return NeuralNetworkPotential(representation, [PairwiseDistances()], heads)


def convolution(config: DictConfig, n_layers: int, edge: str) -> NeuralNetworkPotential:
    network = GraphConvolution(n_layers, edge, config.globals.cutoff)
    return NeuralNetworkPotential(network, [PairwiseDistances()], [MaxSigmoid(64, "band_gap")])


def quadratic(config: DictConfig, folder: Path) -> dict[str, float]:
    data = instantiate(config.data)
    with contextlib.chdir(folder):
        data.prepare_data()
        data.setup()
        start = time.perf_counter()
        parts = (data.train_idx, data.val_idx, data.test_idx)
        found = quadratic_response.errors(Path(data.datapath), EDGES, *parts)
    return found | {"seconds": round(time.perf_counter() - start)}


def of_ensemble(ensemble: str) -> list[str]:
    """Overrides that take the shipped labels of an ensemble, 400 of phonons and 160 of others."""
    name = "antiperovskite_pbesol_phonon_400" if ensemble == "phonon" else ensemble
    split = [f"data/ensemble={ensemble}", f"data.datapath={Path.cwd() / 'data' / name}.db"]
    return split + (["data.ensemble.n_snapshots=25"] if ensemble == "phonon" else [])


def trainings(
    seeds: int,
    only: list[str],
    labels: int | None,
    ensemble: str,
    epochs: int,
    test_on: list[str],
) -> Iterator[dict[str, Any]]:
    """One row a training: ``head``, ``seed`` and what :func:`trained` gives; seeds in turn."""
    split = of_ensemble(ensemble) + ([f"data.num_train={labels}"] if labels else [])
    most = ["data.num_train=0.1", "data.num_test=0.8", "+data.split_file=null"]
    ours = {name: (partial(painn, name=name), []) for name in HEADS}
    longer = ["trainer.max_epochs=300"]
    theirs = {
        f"GraphConv, {n} layers, {edge}": (partial(convolution, n_layers=n, edge=edge), longer)
        for n, edge in GRAPH_CONVOLUTIONS
    }
    for seed in range(1, seeds + 1):
        if not only or QUADRATIC in only:
            with tempfile.TemporaryDirectory() as work:
                found = quadratic(settings(seed, Path(work), *split), Path(work))
                yield {"head": QUADRATIC, "seed": seed} | found
        for name, (make, overrides) in (ours | theirs).items():
            if only and name not in only:
                continue
            with tempfile.TemporaryDirectory() as work:
                config = settings(seed, Path(work), *overrides, *split)
                others = {
                    each: settings(seed, Path(work), *of_ensemble(each), *most) for each in test_on
                }
                pl.seed_everything(seed)
                found = trained(config, make(config), seed, Path(work), others)
                yield {"head": name, "seed": seed} | found
        for name, n_in in HAMILTONIANS.items():
            if only and name not in only:
                continue
            with tempfile.TemporaryDirectory() as work:
                own = ["experiment=phonon_hamiltonian", f"trainer.max_epochs={epochs}"]
                config = composed(seed, Path(work), *own, *split)
                others = {
                    each: composed(seed, Path(work), *own, *of_ensemble(each), *most)
                    for each in test_on
                }
                pl.seed_everything(seed)
                model = learned_hamiltonian(config, n_in)
                found = trained(config, model, seed, Path(work), others)
                yield {"head": name, "seed": seed} | found


def table(rows: list[dict[str, Any]]) -> pd.DataFrame:
    """Mean and standard deviation over seeds of the errors in meV; best GraphConv only."""
    results = pd.DataFrame(rows)
    convolutions = results[results["head"].str.startswith("GraphConv")]
    if len(convolutions):
        best = convolutions.groupby("head")["val_loss"].mean().idxmin()
        others = set(convolutions["head"]) - {best}
        results = results[~results["head"].isin(others)]
    by_head = results.groupby("head", sort=False)[
        [key for key in results if key.split(": ")[-1] in EDGES]
    ]
    text = _mean_and_spread(1e3 * by_head.mean(), 1e3 * by_head.std(ddof=0))
    gaps = 1e3 * results.pivot_table(index="seed", columns="head", values="band_gap", sort=False)
    if REFERENCE in gaps:
        gaps = gaps.sub(gaps[REFERENCE], axis=0)
        error = gaps.std() / gaps.count() ** 0.5
        text[f"gap against {REFERENCE}, ± its error"] = _mean_and_spread(gaps.mean(), error)
    return text.assign(seeds=by_head.size(), seconds=results.groupby("head")["seconds"].mean())


def _mean_and_spread(mean: Any, spread: Any) -> Any:
    return mean.round(1).astype(str) + " ± " + spread.round(1).astype(str)


def printed(rows: Iterator[dict[str, Any]]) -> list[dict[str, Any]]:
    """All rows, each as a line as soon as it is there; one thread and no warnings."""
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    torch.set_num_threads(1)
    warnings.filterwarnings("ignore")
    for name in ("pytorch_lightning", "lightning.pytorch", "lightning_fabric"):
        logging.getLogger(name).setLevel(logging.ERROR)
    found = []
    for row in rows:
        found.append(row)
        print(json.dumps(row, default=np.float64), flush=True)
    return found


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--only", nargs="*", default=[])
    parser.add_argument("--labels", type=int, help="training structures, below 70 %% of all")
    parser.add_argument("--ensemble", default="phonon", help="random, uniform or matched")
    parser.add_argument("--epochs", type=int, default=40, help="of the Hamiltonian")
    parser.add_argument("--test-on", nargs="*", default=[], help="other ensembles, in the rows")
    rows = printed(trainings(**vars(parser.parse_args(arguments))))
    print("\ntest MAE (meV), mean and standard deviation over seeds")
    print(table(rows).to_string())


if __name__ == "__main__":
    main()
