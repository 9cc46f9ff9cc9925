"""Cost of a head: share of a training step of PaiNN 64x3, in one process.

Ten crystals of 40 atoms, forward, backward and AdamW, in CPU time of one thread. Steps with each
head and without, where the loss is on the features themselves, are taken in turn; the fastest of
each counts.

    OMP_NUM_THREADS=1 python -m tests.benchmarks.heads    # 1 minute
"""

import time
from collections.abc import Callable

import schnetpack as spk
import torch
from schnetpack.atomistic import Atomwise, PairwiseDistances
from schnetpack.model import NeuralNetworkPotential
from torch import nn

from schnetpack_phonon.band_edges import BandEdges
from schnetpack_phonon.elastic_tensor import ElasticTensor
from schnetpack_phonon.heads import BandGap, Intensive
from schnetpack_phonon.stress import HydrostaticStress, StressTensor
from schnetpack_phonon.structures import antiperovskite
from tests.model_fixtures import CUTOFF, batch

WIDTH, REPEATS = 64, 40


class Bare(nn.Module):
    """No head: the features are the output."""

    model_outputs = ("scalar_representation",)

    def forward(self, inputs):
        return inputs


HEADS: dict[str, Callable[[], nn.Module]] = {
    "Atomwise (SchNetPack's)": lambda: Atomwise(WIDTH, output_key="y", aggregation_mode="avg"),
    "Intensive": lambda: Intensive(WIDTH, "y"),
    "BandGap": lambda: BandGap(WIDTH, "band_gap"),
    "BandEdges": lambda: BandEdges(WIDTH),
    "HydrostaticStress": lambda: HydrostaticStress(WIDTH),
    "StressTensor": lambda: StressTensor(WIDTH, CUTOFF),
    "ElasticTensor": lambda: ElasticTensor(WIDTH, CUTOFF),
}


def training_step(head: nn.Module) -> Callable[[dict[str, torch.Tensor]], float]:
    """A function that takes one step and returns its seconds of CPU time."""
    torch.manual_seed(0)
    network = spk.representation.PaiNN(
        WIDTH, 3, spk.nn.GaussianRBF(20, CUTOFF), spk.nn.CosineCutoff(CUTOFF)
    )
    model = NeuralNetworkPotential(network, [PairwiseDistances()], [head]).train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4)

    def step(inputs: dict[str, torch.Tensor]) -> float:
        start = time.process_time()
        values = model(dict(inputs))
        loss = sum(value.square().mean() for value in values.values())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        return time.process_time() - start

    return step


def main() -> None:
    torch.set_num_threads(1)
    crystals = [antiperovskite("Ag3SBr").repeat(2) for _ in range(10)]
    for seed, atoms in enumerate(crystals):
        atoms.rattle(0.1, seed=seed)
    inputs = batch(crystals)
    steps = {name: training_step(make()) for name, make in {"none": Bare, **HEADS}.items()}
    seconds: dict[str, list[float]] = {name: [] for name in steps}
    for _ in range(REPEATS):
        for name, step in steps.items():
            seconds[name].append(step(inputs))
    bare = min(seconds.pop("none"))
    print("\nhead                      ms a step   share of the step")
    for name, own in seconds.items():
        print(f"{name:25s} {1e3 * min(own):9.1f} {1 - bare / min(own):18.1%}")


if __name__ == "__main__":
    main()
