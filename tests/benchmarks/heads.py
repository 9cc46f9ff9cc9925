"""Cost of a head: its share of a training step of PaiNN 64x3, in one process.

Ten crystals of 40 atoms. CPU time of one thread for forward and backward of the head on given
features, against that of the whole step (forward, backward, AdamW), in turn; the fastest of each.

    OMP_NUM_THREADS=1 python -m tests.benchmarks.heads    # 1 minute
"""

import time
from collections.abc import Callable

import schnetpack as spk
import torch
from schnetpack.atomistic import Atomwise, PairwiseDistances
from schnetpack.model import NeuralNetworkPotential
from torch import nn

from schnetpack_phonon.models.band_edges import BandEdges
from schnetpack_phonon.models.elastic_tensor import ElasticTensor
from schnetpack_phonon.models.heads import BandGap, Intensive
from schnetpack_phonon.models.stress import HydrostaticStress, StressTensor
from schnetpack_phonon.structures.crystals import antiperovskite
from tests.models.model_fixtures import CUTOFF, batch

WIDTH, REPEATS = 64, 30
FEATURES = ("scalar_representation", "vector_representation")

HEADS: dict[str, Callable[[], nn.Module]] = {
    "Atomwise (SchNetPack's)": lambda: Atomwise(WIDTH, output_key="y", aggregation_mode="avg"),
    "Intensive": lambda: Intensive(WIDTH, "y"),
    "BandGap": lambda: BandGap(WIDTH, "band_gap"),
    "BandEdges": lambda: BandEdges(WIDTH),
    "HydrostaticStress": lambda: HydrostaticStress(WIDTH),
    "StressTensor": lambda: StressTensor(WIDTH, CUTOFF),
    "ElasticTensor": lambda: ElasticTensor(WIDTH, CUTOFF),
}


def seconds(model: nn.Module, keys: list[str], inputs: dict[str, torch.Tensor]) -> float:
    """CPU time of forward and backward."""
    start = time.process_time()
    values = model(dict(inputs))
    sum(values[key].square().mean() for key in keys).backward()
    return time.process_time() - start


def main() -> None:
    torch.set_num_threads(1)
    crystals = [antiperovskite("Ag3SBr").repeat(2) for _ in range(10)]
    for seed, atoms in enumerate(crystals):
        atoms.rattle(0.1, seed=seed)
    inputs = batch(crystals)
    print("\nhead                      ms    ms of the step   share")
    for name, make in HEADS.items():
        torch.manual_seed(0)
        network = spk.representation.PaiNN(
            WIDTH, 3, spk.nn.GaussianRBF(20, CUTOFF), spk.nn.CosineCutoff(CUTOFF)
        )
        head = make().train()
        model = NeuralNetworkPotential(network, [PairwiseDistances()], [head]).train()
        optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4)
        given = dict(inputs)
        model(given)
        given |= {key: given[key].detach().requires_grad_() for key in FEATURES}
        own, whole = [], []
        for _ in range(REPEATS):
            own.append(seconds(head, head.model_outputs, given))
            optimizer.zero_grad()
            step = seconds(model, head.model_outputs, inputs)
            start = time.process_time()
            optimizer.step()
            whole.append(step + time.process_time() - start)
        share = min(own) / min(whole)
        print(f"{name:22s} {1e3 * min(own):6.2f} {1e3 * min(whole):16.1f} {share:8.1%}", flush=True)


if __name__ == "__main__":
    main()
