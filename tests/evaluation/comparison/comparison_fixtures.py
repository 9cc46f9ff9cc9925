"""Small finished runs and predictions with known errors, for what compares runs."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pandas as pd
import torch
import yaml
from torch import nn

from schnetpack_phonon.ensembles.independent import RandomEnsemble
from schnetpack_phonon.ensembles.thermal import PhononEnsemble
from schnetpack_phonon.models.hamiltonian.head import HamiltonianEdges
from schnetpack_phonon.models.heads import Energy, Intensive
from schnetpack_phonon.models.trained.weights import write_weights
from tests.data.data_fixtures import ensemble_data
from tests.models.model_fixtures import potential
from tests.models.trained.trained_fixtures import model_config

ENERGY, STRESS = "energy_per_atom", "hydrostatic_stress"


def databases(folder: Path) -> dict[str, Path]:
    """A phonon and a random database of two alloys with EMT labels, 16 structures each."""
    shutil.copytree(Path(_databases().name, "data"), folder / "data", dirs_exist_ok=True)
    return {name: folder / "data" / f"{name}.db" for name in ("phonon", "random")}


@cache
def _databases() -> TemporaryDirectory:
    """Those of :func:`databases`, computed once."""
    folder = TemporaryDirectory()
    ensembles = {
        "phonon": PhononEnsemble([100, 300], n_snapshots=4, seed=1),
        "random": RandomEnsemble([0.2, 0.4], n_snapshots=4, seed=1),
    }
    for name, ensemble in ensembles.items():
        path = Path(folder.name, "data", f"{name}.db")
        ensemble_data(Path(folder.name), ensemble, datapath=str(path)).prepare_data()
    return folder


def write_run(
    folder: Path,
    datapath: Path,
    seed: int,
    train: Sequence[int],
    val: Sequence[int] = (0,),
    config: Mapping[str, object] | None = None,
    heads: Sequence[nn.Module] = (),
    test: Sequence[int] = (),
) -> Path:
    """A run as our task leaves it, with random weights, tested on all other rows by default.

    Heads that are not of this package, and Hamiltonians, are in the pickle only.
    """
    folder.mkdir(parents=True)
    heads = heads or [Intensive(16, key) for key in (ENERGY, STRESS)]
    model = potential(*heads, seed=seed)
    torch.save(model, folder / "best_model")
    torch.save({}, folder / "best_model.task")
    ours = [type(one).__module__.startswith("schnetpack_phonon.") for one in heads]
    if all(ours) and not any(isinstance(one, HamiltonianEdges) for one in heads):
        write_weights(model, folder / "best_model", model_config(*map(_described, heads)))
    everything = set(range(16)) - {*train, *val}
    np.savez(
        folder / "split.npz", train_idx=train, val_idx=val, test_idx=test or sorted(everything)
    )
    content = {
        "globals": {"model_path": "best_model", "lr": 1e-3},
        "seed": seed,
        "run": {"work_dir": "${hydra:runtime.cwd}"},
        "data": {
            "datapath": "${run.work_dir}/data/" + datapath.name,
            "transforms": [
                {"_target_": "schnetpack.transform.MatScipyNeighborList", "cutoff": 5.0},
                {"_target_": "schnetpack.transform.CastTo32"},
            ],
        },
        "task": {
            "outputs": [
                {"name": key, "target_property": key} for h in heads for key in h.model_outputs
            ]
        },
        **(config or {}),
    }
    (folder / "config.yaml").write_text(yaml.safe_dump(content))
    return folder


def _described(head: nn.Module) -> dict[str, object]:
    """As a configuration names a head."""
    key = {} if isinstance(head, Energy) else {"output_key": head.output_key}
    return {"_target_": f"{type(head).__module__}.{type(head).__name__}", "n_in": 16, **key}


def change(folder: Path, name: str, **values: object) -> None:
    """Overwrites entries of a JSON file of a run."""
    path = folder / name
    path.write_text(json.dumps(json.loads(path.read_text()) | values))


def runs_table(models: Mapping[str, int], n_seeds: int = 2, n_train: int = 10) -> pd.DataFrame:
    """A row a run of each ensemble in ``models``: ensemble -> number of training structures."""
    rows = [
        {
            "run": f"{ensemble}_{n}_{seed}",
            "model": f"{ensemble}, N = {n}",
            "ensemble": ensemble,
            "n_train": n,
            "settings": "",
            "own_splits": False,
            "seed": seed,
        }
        for ensemble, n in models.items()
        for seed in range(n_seeds)
    ]
    return pd.DataFrame(rows)


def errors_table(
    runs: pd.DataFrame,
    error: Mapping[str, float],
    n: int = 40,
    test_sets: Sequence[str] = ("thermal",),
    noise: float = 0.0,
    n_components: int = 1,
) -> pd.DataFrame:
    """Errors that have the size that ``error`` says for each run or ensemble."""
    rng = np.random.default_rng(0)
    tables = []
    for test_set in test_sets:
        label = rng.normal(size=(n, n_components))
        for run in runs.to_dict("records"):
            size = error.get(run["run"], error.get(run["ensemble"]))
            wrong = np.abs(size * (1 + noise * rng.normal(size=(n, n_components))))
            tables.append(
                pd.DataFrame(
                    {
                        "run": run["run"],
                        "test_set": test_set,
                        "group": np.where(np.arange(n) % 2, "300 K", "100 K"),
                        "parameter": np.where(np.arange(n) % 2, 300.0, 100.0),
                        "structure": np.where(np.arange(n) % 4 < 2, "A", "B"),
                        "digest": [f"{test_set}{k}" for k in range(n)],
                        "property": "band_gap",
                        "label": list(label[:, None]),
                        "n_values": n_components,
                        "mae": wrong.mean(axis=1),
                        "mse": (wrong**2).mean(axis=1),
                        "max_error": wrong.max(axis=1),
                        "mae_mean": np.abs(label).mean(axis=1),
                    }
                )
            )
    return pd.concat(tables, ignore_index=True)
