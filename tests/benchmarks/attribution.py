"""Faithfulness and time of attributions of the band gap; speed against a plain Captum loop.

Faithfulness: 30 % of the bonds, at random, are put back to their ideal vectors; correlation, within
structures, of the sum of their attributions with the change of the prediction. CPU times are of one
thread and one process, in turns.

    spktrain experiment=phonon_antiperovskite_dft run.id=phonon seed=1
    OMP_NUM_THREADS=1 python -m tests.benchmarks.attribution \
        data/antiperovskite_pbesol_phonon.db runs/phonon

Without a run: speed alone, of an untrained PaiNN 64x3.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from captum.attr import IntegratedGradients
from schnetpack.atomistic import PairwiseDistances
from schnetpack.model import NeuralNetworkPotential
from schnetpack.nn import CosineCutoff, GaussianRBF
from schnetpack.representation import PaiNN
from schnetpack.utils import load_model

from schnetpack_phonon import trust
from schnetpack_phonon.attribution import Structure, attribute
from schnetpack_phonon.edges import Edges, cutoff_of
from schnetpack_phonon.heads import Intensive
from schnetpack_phonon.paths import straight_path
from schnetpack_phonon.properties import band_gap
from schnetpack_phonon.structure_pairs import read_structures
from schnetpack_phonon.structures import antiperovskite

CUTOFF = 5.0  # Ang
SKIN = 1.0  # Ang, as MD codes add it


def integrated(model, structure: Structure) -> np.ndarray:
    return attribute(model, [structure], band_gap, even=False)[0].attribution


def integrated_masks(model, structure: Structure) -> np.ndarray:
    (found,) = attribute(model, [structure], band_gap, "mask")
    path = straight_path(structure.ideal, structure.displaced, cutoff_of(model), mirrored=False)
    keys = [
        list(zip(p.idx_i[k], p.idx_j[k], *p.image[k].T, strict=True))
        for p in (found.path, path)
        for k in (p.first,)
    ]
    values = dict(zip(keys[0], found.attribution, strict=True))
    return np.array([values.get(key, 0.0) for key in keys[1]])


def freezing_one(model, structure: Structure) -> np.ndarray:
    (found,) = attribute(model, [structure], band_gap, method="FeatureAblation", even=False)
    return found.attribution


def gradient_displacement(model, structure: Structure) -> np.ndarray:
    path = straight_path(structure.ideal, structure.displaced, cutoff_of(model), mirrored=False)
    edges = Edges(model, [path], band_gap)
    with edges.frozen():
        start, end = edges.vectors(0.0), edges.vectors(1.0)
        x = end.clone().requires_grad_()
        (gradient,) = torch.autograd.grad(edges.displaced(x).sum(), x)
    values = (gradient * (end - start)).sum(dim=2)[0].double().numpy()
    return np.bincount(path.bond, values)


def explainer_masks(model, structure: Structure, epochs: int = 200, seed: int = 0) -> np.ndarray:
    """GNNExplainer for a regression: few bonds of large mask that keep the prediction.

    Ying et al., NeurIPS 2019: Adam on the logits of an edge mask, with the size and the entropy of
    the mask as penalties (their weights 0.005 and 1).
    """
    path = straight_path(structure.ideal, structure.displaced, cutoff_of(model), mirrored=False)
    edges = Edges(model, [path], band_gap)
    bond = torch.as_tensor(path.bond)
    generator = torch.Generator().manual_seed(seed)
    logits = (0.1 * torch.randn(int(bond.max()) + 1, generator=generator)).requires_grad_()
    optimizer = torch.optim.Adam([logits], lr=0.01)
    with edges.frozen():
        with torch.no_grad():
            target = edges.displaced(edges.vectors(1.0)).item()
        for _ in range(epochs):
            optimizer.zero_grad()
            mask = logits.sigmoid()
            entropy = torch.nn.functional.binary_cross_entropy(mask, mask)
            error = (edges.masked(mask[bond][None]) - target).pow(2).sum()
            (error + 0.005 * mask.sum() + entropy).backward()
            optimizer.step()
    return logits.detach().sigmoid().double().numpy()


def plain_loop(model, structure: Structure, n_steps: int = 16) -> float:
    """Captum as it comes: a graph at a time, parameters with gradients, a list with a skin."""
    path = straight_path(structure.ideal, structure.displaced, cutoff_of(model) + SKIN, False)
    edges = Edges(model, [path], band_gap)
    start, end = edges.vectors(0.0), edges.vectors(1.0)
    clock = time.process_time()
    IntegratedGradients(lambda x: edges.displaced(x).sum(dim=1)).attribute(
        end, start, n_steps=n_steps, internal_batch_size=1
    )
    return time.process_time() - clock


METHODS = {
    "integrated gradients, ideal to displaced": integrated,
    "freezing one bond at a time": freezing_one,
    "gradient x displacement": gradient_displacement,
    "integrated gradients of masks": integrated_masks,
    "GNNExplainer masks, 200 epochs": explainer_masks,
}


def untrained_model() -> NeuralNetworkPotential:
    representation = PaiNN(64, 3, GaussianRBF(20, CUTOFF), CosineCutoff(CUTOFF))
    return NeuralNetworkPotential(representation, [PairwiseDistances()], [Intensive(64, band_gap)])


def thermal_structures(number: int) -> list[Structure]:
    """40 atoms of Ag3SBr, displaced by 0.15 Ang (rms per component)."""
    ideal = antiperovskite("Ag3SBr").repeat(2)
    structures = []
    for index in range(number):
        displaced = ideal.copy()
        displaced.rattle(0.15, seed=index)
        structures.append(Structure(ideal, displaced, index))
    return structures


def speed(model: NeuralNetworkPotential, structures: Sequence[Structure]) -> None:
    ours, plain = [], []
    for structure in structures:
        clock = time.process_time()
        attribute(model, [structure], band_gap, even=False)
        ours.append(time.process_time() - clock)
        plain.append(plain_loop(model, structure))
    print(f"ours {np.median(ours):.3f} CPU s a structure ({min(ours):.3f} at best)")
    print(f"plain Captum loop {np.median(plain):.3f} CPU s ({min(plain):.3f} at best)")
    print(f"ratio {np.median(np.divide(plain, ours)):.2f}")


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", nargs="?")
    parser.add_argument("run", nargs="?", type=Path, help="folder of the trained model")
    parser.add_argument("--structures", type=int, default=6)
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    print("\nbonds of 40-atom structures")
    if options.run is None:
        speed(untrained_model(), thermal_structures(options.structures))
        return
    model = load_model(str(options.run / "best_model"), device="cpu")
    test = np.load(options.run / "split.npz")["test_idx"][: options.structures]
    structures = read_structures(options.data, test)
    speed(model, structures)

    rows = []
    for name, method in METHODS.items():
        tables, seconds, missed = [], [], []
        for structure in structures:
            clock = time.process_time()
            values = method(model, structure)
            seconds.append(time.process_time() - clock)
            (one,) = attribute(model, [structure], band_gap, even=False, n_steps=2, tolerance=9)
            subsets = trust.random_subsets(len(values), 32, trust.FROZEN_SHARE, 1, structure.index)
            actual = trust.frozen_changes(model, one, subsets)
            own = {"index": structure.index, "predicted": subsets @ values, "actual": actual}
            tables.append(pd.DataFrame(own))
            missed.append(abs(values.sum() - one.change) / abs(one.change))
        r = trust.correlation(pd.concat(tables))
        rows.append([name, f"{r:.2f}", f"{np.mean(missed):.1%}", f"{np.median(seconds):.2f}"])
    head = ["attribution", "faithfulness r", "sum misses the change by", "CPU s a structure"]
    print(pd.DataFrame(rows, columns=head).to_string(index=False))


if __name__ == "__main__":
    main()
