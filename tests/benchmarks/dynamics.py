"""Speed of molecular dynamics with a trained PaiNN beside ASE's own with SchNetPack's calculator.

Steps in a second of CPU time of one thread, of 40 atoms with bonds up to 6 Ang, energy and forces;
in one process and in turn, the fastest of several. ``SpkCalculator`` has the neighbour lists of the
host's own examples, and those of matscipy that it can be given. The last line is of four replicas
in one batch.

    OMP_NUM_THREADS=1 python -m tests.benchmarks.dynamics    # 1 minute
"""

import time
from collections.abc import Callable
from tempfile import TemporaryDirectory

import numpy as np
import schnetpack as spk
import torch
from ase import Atoms, units
from ase.md.langevin import Langevin as AseLangevin
from schnetpack.atomistic import Atomwise, Forces, PairwiseDistances
from schnetpack.interfaces import SpkCalculator
from schnetpack.model import NeuralNetworkPotential
from schnetpack.transform import ASENeighborList, MatScipyNeighborList

from schnetpack_phonon.ensembles.dynamics.langevin import Langevin, advance, initial_state
from schnetpack_phonon.models.predict import ModelCalculator, Predictor
from tests.benchmarks.hamiltonian import CUTOFF, crystal

N_ROUNDS, TEMPERATURE, STEP, FRICTION = 3, 300.0, 2.0, 5.0  # K, fs, 1/ps


def potential(width: int = 32, n_layers: int = 2) -> NeuralNetworkPotential:
    torch.manual_seed(0)
    radial, cutoff = spk.nn.GaussianRBF(20, CUTOFF), spk.nn.CosineCutoff(CUTOFF)
    network = spk.representation.PaiNN(width, n_layers, radial, cutoff)
    heads = [Atomwise(width, output_key="energy"), Forces(calc_forces=True)]
    return NeuralNetworkPotential(network, [PairwiseDistances()], heads)


def ours(model: NeuralNetworkPotential) -> Callable[[], int]:
    atoms = crystal(2)
    dynamics = Langevin(TEMPERATURE, STEP, FRICTION)
    calculator = ModelCalculator(model, {"energy": "eV", "forces": "eV/Ang", "distance": "Ang"})
    stream = np.random.default_rng(0)
    state = initial_state(atoms, TEMPERATURE, stream)

    def run() -> int:
        advance(atoms, calculator, dynamics, state, stream)
        return dynamics.every * dynamics.n_records

    return run


def of_ase(model: NeuralNetworkPotential, folder: str, neighbours: object) -> Callable[[], int]:
    torch.save(model, f"{folder}/best_model")
    atoms = crystal(2)
    atoms.calc = SpkCalculator(
        f"{folder}/best_model", neighbours, energy_unit="eV", position_unit="Ang"
    )
    rng = np.random.default_rng(0)
    own = {"temperature_K": TEMPERATURE, "friction": FRICTION / (1e3 * units.fs), "rng": rng}
    dynamics = AseLangevin(atoms, STEP * units.fs, **own)

    def run() -> int:
        dynamics.run(50)
        return 50

    return run


def replicas(model: NeuralNetworkPotential, n: int = 4) -> Callable[[], int]:
    predictor = Predictor(
        model, units={"energy": "eV", "forces": "eV/Ang", "distance": "Ang"}, batch_size=n
    )
    batch: list[Atoms] = [crystal(2, seed) for seed in range(n)]

    def run() -> int:
        for _ in range(10):
            predictor(batch)
        return 10 * n

    return run


def main() -> None:
    torch.set_num_threads(1)
    model = potential()
    with TemporaryDirectory() as folder:
        runs = {
            "ours": ours(model),
            "ASE, SpkCalculator, ASE's neighbour lists": of_ase(
                model, folder, ASENeighborList(CUTOFF)
            ),
            "ASE, SpkCalculator, matscipy's": of_ase(model, folder, MatScipyNeighborList(CUTOFF)),
            "forces of four replicas in a batch": replicas(model),
        }
        best = dict.fromkeys(runs, 0.0)
        for _ in range(N_ROUNDS):
            for name, run in runs.items():
                start = time.process_time()
                n_steps = run()
                best[name] = max(best[name], n_steps / (time.process_time() - start))
    for name, rate in best.items():
        print(f"{name:45} {rate:6.0f} steps/s {best['ours'] / rate:6.2f}")


if __name__ == "__main__":
    main()
