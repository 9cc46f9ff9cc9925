"""Training on two processes, averaged weights, and ASE's calculator, as any model of SchNetPack."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.distributed as dist
from ase import Atoms
from pytorch_lightning import Callback
from schnetpack.atomistic import Forces
from schnetpack.interfaces import SpkCalculator
from schnetpack.train import ExponentialMovingAverage
from schnetpack.transform import MatScipyNeighborList
from torch import nn
from torch.multiprocessing import start_processes
from torch.nn.parallel import DistributedDataParallel

from schnetpack_phonon.models.hamiltonian.head import HamiltonianEdges
from schnetpack_phonon.models.task import ScaledOutput, ScaledTask
from tests.models.model_fixtures import (
    CUTOFF,
    batch,
    data_module,
    potential,
    quiet_trainer,
    thermal,
)

CELLS = [thermal(k, formula)[1] for k, formula in enumerate(["Ag3SBr", "Ag3SI"] * 4)]
SIZES = [CELLS[0], CELLS[1].repeat((2, 1, 1)), CELLS[2].repeat((1, 2, 1)), CELLS[3]]
KEYS = ("band_gap", "vbm", "cbm")


def made(*others: nn.Module, elements=("Ag", "S", "Br", "I"), dtype=torch.float64, **options):
    head = HamiltonianEdges(elements, CUTOFF, **options)
    representation = "PaiNN" if "n_in" in options else "NoFeatures"
    return potential(head, *others, representation=representation, dtype=dtype)


def step(model: nn.Module, structures: list[Atoms]) -> list[np.ndarray]:
    """Weights after a step of learning that the mean of the squares of all outputs be zero."""
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    results = model(batch(structures, torch.float64))
    sum(results[key].square().mean() for key in KEYS).backward()
    optimizer.step()
    return [parameter.detach().numpy() for parameter in model.parameters()]


def share(rank: int, folder: str, options: dict) -> None:
    """One of two processes, with two of four structures."""
    torch.set_num_threads(1)
    dist.init_process_group("gloo", f"file://{folder}/store", rank=rank, world_size=2)
    weights = step(DistributedDataParallel(made(**options).train()), SIZES[2 * rank :][:2])
    np.savez(f"{folder}/{rank}.npz", *weights)
    dist.destroy_process_group()


@pytest.mark.parametrize("options", [{}, {"n_in": 16}], ids=["pairs", "features"])
@pytest.mark.filterwarnings("ignore:This process.*is multi-threaded:DeprecationWarning")
def test_two_processes_step_as_one(options, tmp_path):
    """With structures of different sizes on each."""
    start_processes(share, (str(tmp_path), options), nprocs=2, start_method="fork")
    start = [parameter.detach().numpy() for parameter in made(**options).parameters()]
    together = step(made(**options).train(), SIZES)
    assert all(np.ptp(new - old) > 0 for new, old in zip(together, start, strict=True))
    for rank in range(2):
        with np.load(tmp_path / f"{rank}.npz") as found:
            for own, expected in zip(found.values(), together, strict=True):
                np.testing.assert_allclose(own, expected, atol=1e-10)


class Diary(Callback):
    """Weights after each step."""

    def __init__(self):
        self.weights = []

    def on_train_batch_end(self, trainer, task, *args):
        self.weights.append([parameter.detach().clone() for parameter in task.model.parameters()])


def test_averaged_weights_are_those_of_validation(tmp_path):
    """Of a Hamiltonian that is made only when the training set is known, too."""
    labels = {"band_gap": np.linspace(0.5, 1.0, 8)}
    data = data_module(tmp_path / "labels.db", CELLS, range(7), **labels)
    outputs = [ScaledOutput("band_gap", nn.MSELoss(), metrics={})]
    model = made(elements=None, dtype=torch.float32).train()
    task = ScaledTask(model, outputs, optimizer_args={"lr": 1e-2})
    diary = Diary()
    trainer = quiet_trainer(callbacks=[diary, ExponentialMovingAverage(0.5)])
    trainer.fit(task, datamodule=data)
    assert len(diary.weights) == 2
    for mine, *steps in zip(model.parameters(), *diary.weights, strict=True):
        average = torch.zeros_like(mine)  # a fresh Hamiltonian has zeros
        for n, own in enumerate(steps):
            decay = min(0.5, (2 + n) / (11 + n))
            average = decay * average + (1 - decay) * own
        torch.testing.assert_close(mine.detach(), average)
        assert average.any()


@pytest.mark.filterwarnings("ignore:You are using `torch.load`:FutureWarning")
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_calculator_of_ase(dtype, tmp_path):
    """The gap as an energy, and its slopes as forces, against finite differences."""
    model = made(Forces(energy_key="band_gap"))
    torch.save(model, tmp_path / "best_model")
    atoms = CELLS[0].copy()
    atoms.calc = SpkCalculator(
        str(tmp_path / "best_model"),
        MatScipyNeighborList(cutoff=CUTOFF),
        energy_key="band_gap",
        energy_unit="eV",
        position_unit="Ang",
        dtype=dtype,
    )
    exact = dtype == torch.float64
    gap = model(batch([atoms], torch.float64))["band_gap"].item()
    assert atoms.get_potential_energy() == pytest.approx(gap, abs=1e-10 if exact else 1e-5)
    forces = atoms.get_forces()
    direction = np.random.default_rng(0).normal(size=forces.shape)
    step = 1e-4 if exact else 1e-2
    energies = []
    for sign in (-1, 1):
        atoms.positions = CELLS[0].positions + sign * step * direction
        energies.append(atoms.get_potential_energy())
    slope = (energies[1] - energies[0]) / (2 * step)
    assert abs(slope) > 0.01
    assert -(forces * direction).sum() == pytest.approx(slope, rel=1e-5 if exact else 2e-2)
