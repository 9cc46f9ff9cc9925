"""Databases with random labels, small or large, and data modules on them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
import torch
from ase import Atoms
from schnetpack.atomistic import Atomwise
from schnetpack.data import AtomsDataModule
from schnetpack.task import AtomisticTask, ModelOutput
from schnetpack.transform import CastTo32, MatScipyNeighborList
from torch import nn

from schnetpack_phonon.data.database import Row, write_db
from schnetpack_phonon.data.datamodule import EnsembleData
from schnetpack_phonon.data.loading.loaders import GraphLoading
from schnetpack_phonon.structures.crystals import antiperovskite
from tests.data.data_fixtures import ensemble_data
from tests.models.model_fixtures import potential

LABELS = ("band_gap", "energy")


def displaced(n: int, *supercells: tuple[int, int, int], seed: int = 0) -> Iterator[Atoms]:
    """Ag3SBr with random displacements; cells of all sizes, one after the other."""
    rng = np.random.default_rng(seed)
    ideals = [antiperovskite("Ag3SBr", 4.8).repeat(cell) for cell in supercells]
    for k in range(n):
        atoms = ideals[k % len(ideals)].copy()
        atoms.positions += rng.normal(0, 0.1, atoms.positions.shape)
        yield atoms


def fake_database(path: Path, crystals: Iterable[Atoms], seed: int = 0) -> Path:
    """Random scalars and forces, in one transaction."""
    rng = np.random.default_rng(seed)
    rows = (
        Row(
            atoms,
            {key: rng.normal(2, 1, size=1) for key in LABELS}
            | {"forces": rng.normal(size=(len(atoms), 3))},
            {"parent": f"p{number}"},
        )
        for number, atoms in enumerate(crystals)
    )
    write_db(path, rows, {})
    return path


def small_database(path: Path, seed: int = 0) -> Path:
    """Cells of 5 and 10 atoms, and an atom without neighbours: 23 structures."""
    crystals = list(displaced(22, (1, 1, 1), (2, 1, 1), seed=seed))
    crystals.insert(3, Atoms("Ag", cell=[20.0] * 3, pbc=True))
    return fake_database(path, crystals, seed)


def transforms() -> list[nn.Module]:
    return [MatScipyNeighborList(cutoff=4.0), CastTo32()]


def arguments(path: Path, **kwargs: object) -> dict:
    parts = {"num_train": 13, "num_val": 4, "num_test": 6, "split_file": None, "splitting": None}
    loaders = {"batch_size": 3, "val_batch_size": 2, "num_workers": 0}
    return {"datapath": str(path), **parts, **loaders, "transforms": transforms()} | kwargs


def on_graphs(
    path: Path, cache: Path, memory_budget: float = 1.0, on_device: bool = False, **kwargs: object
) -> EnsembleData:
    """Our data module on a database, set up; the split is that of ``torch.manual_seed(0)``."""
    loading = GraphLoading(str(cache), memory_budget, on_device, n_workers=0)
    data = ensemble_data(path.parent, loading=loading, **arguments(path, **kwargs))
    data.prepare_data = lambda: None  # the database is there
    return _set_up(data)


def on_host(path: Path, **kwargs: object) -> AtomsDataModule:
    """The same of SchNetPack."""
    return _set_up(AtomsDataModule(**arguments(path, **kwargs)))


def energy_task(model: nn.Module | None = None) -> AtomisticTask:
    """A model of SchNetPack for the energy, a small one by default, with its optimiser."""
    outputs = [ModelOutput("energy", nn.MSELoss(), loss_weight=1.0, metrics={})]
    model = (model or potential(Atomwise(16, output_key="energy"))).train()
    return AtomisticTask(model, outputs, torch.optim.AdamW, {"lr": 1e-2})


def _set_up(data: AtomsDataModule) -> AtomsDataModule:
    torch.manual_seed(0)
    data.setup()
    return data


def assert_same(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> None:
    """Equal to the last bit, shape and type."""
    assert one.keys() == other.keys()
    for key, value in one.items():
        torch.testing.assert_close(value, other[key], rtol=0, atol=0, equal_nan=True)
