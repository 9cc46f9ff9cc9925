"""What levels next to the gap are worth as further labels of the learned Hamiltonian.

Structures are the PBEsol phonon snapshots that come with the package. They get further labels of
GFN1-xTB, with eight levels below and above the gap, in data/labels.jsonl, a few seconds a structure
and core. Trained are, by the recipe of experiment=phonon_hamiltonian for a number of epochs,

- xTB labels: gap and edges alone ("xTB"), and levels as well ("xTB, levels");
- PBEsol labels of gap and edges, from the start of the experiment ("PBEsol") and from the models of
  both kinds that have the most xTB labels ("PBEsol from xTB", "PBEsol from xTB, levels").

One test set for all, which no model has seen with labels of either kind; training sets are nested.

    python -m tests.benchmarks.levels [--seeds 3]
    python -m tests.benchmarks.levels --crystals Ag3SBr Ag3SI --snapshots 12 --test 0.3 --labels 24
"""

import argparse
import copy
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pandas as pd
import pytorch_lightning as pl
from schnetpack.model import NeuralNetworkPotential

from schnetpack_phonon.models.trained.start_from import start_from
from tests.benchmarks.band_gap import EDGES, composed, learned_hamiltonian, printed, trained

CRYSTALS = ["Ag3SBr", "Ag3SI", "Ag3SeBr", "Ag3SeI"]
_PBESOL = "2023.1"  # of CP2K, the version of the labels


def xtb_labels() -> list[str]:
    """Overrides for xTB labels of the structures that have PBEsol labels."""
    parts = [f"data/calculator@data.{part}.calculator=cp2k" for part in ("structure", "phonons")]
    versions = [f"data.{part}.calculator.version={_PBESOL}" for part in ("structure", "phonons")]
    return [
        "experiment=phonon_hamiltonian_levels",
        "run.experiment=phonon_hamiltonian",  # whose recipe it has
        *parts,
        *versions,
        "data.shipped_labels=antiperovskite_pbesol.jsonl",
        "data.phonons.distance=0.06",
        "data.phonons.instabilities.floor=1.0",
        "data.phonons.instabilities.min_frequency=1.0",
    ]


def database(name: str, crystals: list[str], snapshots: int) -> list[str]:
    """Overrides for a number of snapshots of each crystal and temperature."""
    path = Path.cwd() / "data" / f"{'-'.join(crystals)}_{name}_{snapshots}.db"
    return [
        f"data.structure.names=[{','.join(crystals)}]",
        f"data.ensemble.n_snapshots={snapshots}",
        f"data.datapath={path}",
        "data.splitting._target_=schnetpack_phonon.data.NestedSplit",
    ]


def fitted(
    seed: int,
    overrides: list[str],
    levels: bool = True,
    start: NeuralNetworkPotential | None = None,
) -> tuple[dict[str, float], NeuralNetworkPotential]:
    """Test errors in eV, and the model."""
    with tempfile.TemporaryDirectory() as work:
        config = composed(seed, Path(work), *overrides)
        if not levels:
            config.model.output_modules[0].n_levels = 0
            config.task.outputs = config.task.outputs[:3]
        pl.seed_everything(seed)
        model = learned_hamiltonian(config, 0)
        if start is not None:
            start_from(model, start)
        return trained(config, model, seed, Path(work)), model


def trainings(
    crystals: list[str],
    snapshots: int,
    labels: list[int],
    seeds: int,
    epochs: list[int],
    test: float,
    only: str,
) -> Iterator[dict[str, Any]]:
    """One row a training."""
    xtb = {} if only == "PBEsol" else {"xTB, levels": True, "xTB": False}
    for seed in range(1, seeds + 1):
        start = {}
        for n, n_epochs in sorted(zip(labels, epochs, strict=True), reverse=True):
            sizes = [f"data.num_train={n}", f"data.num_test={test}"]
            own = [*sizes, f"trainer.max_epochs={n_epochs}"]
            low = [*xtb_labels(), *database("xtb_levels", crystals, snapshots), *own]
            high = ["experiment=phonon_hamiltonian", *database("pbesol", crystals, snapshots), *own]
            for name, levels in xtb.items():
                found, model = fitted(seed, low, levels)
                start.setdefault(name, copy.deepcopy(model))
                yield {"labels": n, "model": name, "seed": seed} | found
            others = {f"PBEsol from {name}": model for name, model in start.items()}
            for name, before in ({} if only == "xTB" else {"PBEsol": None} | others).items():
                found, _ = fitted(seed, high, start=before)
                yield {"labels": n, "model": name, "seed": seed} | found


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--crystals", nargs="+", default=CRYSTALS)
    parser.add_argument("--snapshots", type=int, default=25, help="a crystal and temperature")
    parser.add_argument("--labels", type=int, nargs="+", default=[24, 96, 280])
    parser.add_argument("--epochs", type=int, nargs="+", default=[200, 80, 40], help="of each")
    parser.add_argument("--test", type=float, default=0.2, help="share of structures")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--only", default="", help="xTB or PBEsol: without the other labels")
    rows = printed(trainings(**vars(parser.parse_args(arguments))))
    results = pd.DataFrame(rows).groupby(["labels", "model"], sort=False)
    table = 1e3 * results[[key for key in (*EDGES, "eigenvalues") if key in rows[0]]].mean()
    print("\ntest MAE (meV), mean over seeds")
    print(table.round(1).assign(seeds=results.size()).to_string())


if __name__ == "__main__":
    main()
