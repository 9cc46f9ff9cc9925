"""Cost of the learned Hamiltonian in units of PaiNN 64x3, in one process and in turn.

CPU time of one thread for a training step (forward, backward, AdamW; per structure, of four with
40 atoms) and for the prediction of one structure without gradients; the fastest of each. Neighbour
lists are a column of their own: all models need them. Both have bonds up to 6 Ang.

    OMP_NUM_THREADS=1 python -m tests.benchmarks.hamiltonian    # 2 minutes
"""

import time
from collections.abc import Callable

import schnetpack as spk
import torch
from ase import Atoms
from schnetpack.atomistic import PairwiseDistances
from schnetpack.interfaces import AtomsConverter
from schnetpack.model import NeuralNetworkPotential
from schnetpack.transform import MatScipyNeighborList

from schnetpack_phonon.models.band_edges import BandEdges
from schnetpack_phonon.models.hamiltonian.environment import NoFeatures
from schnetpack_phonon.models.hamiltonian.head import HamiltonianEdges
from schnetpack_phonon.structures.crystals import antiperovskite

CUTOFF, WIDTH = 6.0, 64
EDGES = ("band_gap", "vbm", "cbm")


def models() -> dict[str, NeuralNetworkPotential]:
    torch.manual_seed(0)
    network = spk.representation.PaiNN(
        WIDTH, 3, spk.nn.GaussianRBF(20, CUTOFF), spk.nn.CosineCutoff(CUTOFF)
    )
    levels = HamiltonianEdges(["Ag", "S", "Se", "Br", "I"], CUTOFF)
    parts = {
        "PaiNN": (network, BandEdges(WIDTH)),
        "Hamiltonian": (NoFeatures(CUTOFF), levels),
    }
    return {
        name: NeuralNetworkPotential(representation, [PairwiseDistances()], [head])
        for name, (representation, head) in parts.items()
    }


def crystal(repeats: int, seed: int = 0) -> Atoms:
    atoms = antiperovskite("Ag3SBr").repeat(repeats)
    atoms.rattle(0.1, seed=seed)
    return atoms


def training_step(model: NeuralNetworkPotential, inputs: dict[str, torch.Tensor]) -> Callable:
    optimizer = torch.optim.AdamW(model.train().parameters(), lr=1e-4)

    def step() -> None:
        optimizer.zero_grad()
        values = model(dict(inputs))
        sum(values[key].square().mean() for key in EDGES).backward()
        optimizer.step()

    return step


def prediction(model: NeuralNetworkPotential, inputs: dict[str, torch.Tensor]) -> Callable:
    def predict() -> None:
        with torch.no_grad():
            model.eval()(dict(inputs))

    return predict


def fastest(jobs: dict[str, Callable], repeats: int) -> dict[str, float]:
    """CPU time of each in ms."""
    found: dict[str, list[float]] = {name: [] for name in jobs}
    for _ in range(repeats):
        for name, job in jobs.items():
            start = time.process_time()
            job()
            found[name].append(1e3 * (time.process_time() - start))
    return {name: min(each) for name, each in found.items()}


def main() -> None:
    torch.set_num_threads(1)
    convert = AtomsConverter(MatScipyNeighborList(cutoff=CUTOFF), dtype=torch.float32)
    print("\nms a structure         neighbours    PaiNN  Hamiltonian   ratio")
    for name, make, sizes, n, repeats in (
        ("training step", training_step, (2,), 4, 20),
        ("prediction", prediction, (2, 4, 6), 1, 40),
    ):
        for size in sizes:
            crystals = [crystal(size, seed) for seed in range(n)]
            inputs = convert(crystals)
            jobs = {"neighbours": lambda crystals=crystals: convert(crystals)}
            jobs |= {key: make(model, inputs) for key, model in models().items()}
            found = fastest(jobs, max(repeats * 8 // size**3, 2))
            neighbours, painn, ours = (found[key] / n for key in jobs)
            label = f"{name}, {len(crystals[0])} atoms"
            print(
                f"{label:26s} {neighbours:6.1f} {painn:8.1f} {ours:12.1f} {ours / painn:7.1f}",
                flush=True,
            )


if __name__ == "__main__":
    main()
