"""Faithfulness and time of attributions of the band gap; speed against a plain Captum loop.

Faithfulness: 30 % of the bonds, at random, are reset to their ideal vectors; correlation, within
structures, of the sum of their attributions with the change of the prediction, and with the mean of
that and of what the same bonds do when they alone are displaced. CPU times are of one
thread and one process, in turns.

    spktrain experiment=phonon_antiperovskite run.id=phonon seed=1
    OMP_NUM_THREADS=1 python -m tests.benchmarks.attribution \
        data/antiperovskite_pbesol_phonon.db runs/phonon

Without a run: speed alone, of an untrained PaiNN 64x3.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from captum.attr import IntegratedGradients
from schnetpack import properties as host
from schnetpack.atomistic import PairwiseDistances
from schnetpack.model import NeuralNetworkPotential
from schnetpack.nn import CosineCutoff, GaussianRBF
from schnetpack.representation import PaiNN
from scipy.stats import spearmanr

from schnetpack_phonon.attribution.bond_attribution import attribute
from schnetpack_phonon.attribution.checks import SUBSET_SHARE, correlation
from schnetpack_phonon.attribution.edges import Edges
from schnetpack_phonon.attribution.faithfulness import exchanged_changes, random_subsets
from schnetpack_phonon.attribution.paths import straight_path
from schnetpack_phonon.common.properties import band_gap
from schnetpack_phonon.data.reading import Structure, read_structures
from schnetpack_phonon.models.cutoffs import cutoff_of
from schnetpack_phonon.models.heads import Intensive
from schnetpack_phonon.models.trained.weights import load_trained
from schnetpack_phonon.structures.crystals import antiperovskite

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


def resetting_one(model, structure: Structure) -> np.ndarray:
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


def plain_function(model, structure: Structure):
    """The gap by edge vectors as one writes it for Captum, and the ends of its path.

    A neighbour list with a skin, since that of either end alone lacks bonds of the other.
    """
    path = straight_path(structure.ideal, structure.displaced, cutoff_of(model) + SKIN, False)
    start, end = (torch.as_tensor(path.vectors(u), dtype=torch.float32)[None] for u in (0, 1))
    numbers, i, j = (torch.as_tensor(x) for x in (path.ideal.numbers, path.idx_i, path.idx_j))

    def function(vectors: torch.Tensor) -> torch.Tensor:
        copies, n_atoms = len(vectors), len(numbers)
        shift = n_atoms * torch.arange(copies)[:, None]
        inputs = {
            host.Z: numbers.repeat(copies),
            host.n_atoms: torch.full((copies,), n_atoms),
            host.idx_m: torch.arange(copies).repeat_interleave(n_atoms),
            host.idx_i: (i + shift).reshape(-1),
            host.idx_j: (j + shift).reshape(-1),
            host.Rij: vectors.reshape(-1, 3),
        }
        for module in (model.representation, *model.output_modules):
            inputs = module(inputs)
        return inputs[band_gap]

    return function, start, end


#: Function, and whether its bonds are meant to add up to the change.
METHODS = {
    "integrated gradients, ideal to displaced": (integrated, True),
    "resetting one bond at a time": (resetting_one, True),
    "gradient x displacement": (gradient_displacement, True),
    "integrated gradients of masks": (integrated_masks, False),
    "GNNExplainer masks, 200 epochs": (explainer_masks, False),
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
    """CPU time a structure: ours, and Captum's integrated gradients called on each structure."""
    plain = "plain Captum loop, 16 nodes, "
    seconds: dict[str, list[float]] = {}

    def clocked(name: str, function: Callable[[], object]) -> None:
        function()  # gets back the memory that the one before gave to the system
        clock = time.process_time()
        function()
        seconds.setdefault(name, []).append(time.process_time() - clock)

    for structure in structures:
        for n in (16, 8):
            task = partial(attribute, model, [structure], band_gap, n_steps=n, even=False)
            clocked(f"ours, {n} nodes", task)
        function, start, end = plain_function(model, structure)
        method = IntegratedGradients(function)
        for size in (1, None):
            task = partial(method.attribute, end, start, n_steps=16, internal_batch_size=size)
            clocked(plain + ("one node a pass" if size else "all nodes in a pass"), task)
    ours = np.array(seconds["ours, 16 nodes"])
    print("                                                CPU s a structure: median, best; / ours")
    for name, values in seconds.items():
        ratio = np.median(np.array(values) / ours)
        print(f"{name:48s} {np.median(values):17.3f} {min(values):7.3f} {ratio:7.2f}")


def faithfulness(
    model: NeuralNetworkPotential, structures: Sequence[Structure], n_subsets: int = 32
) -> pd.DataFrame:
    """One row a method."""
    cases = []
    for structure in structures:
        (one,) = attribute(model, [structure], band_gap, even=False)
        n = len(one.attribution)
        subsets = random_subsets(n, n_subsets, SUBSET_SHARE, 1, structure.index)
        cases.append((structure, one, subsets, exchanged_changes(model, one, subsets)))
    rows = []
    for name, (method, adds_up) in METHODS.items():
        tables, seconds, missed = [], [], []
        for structure, one, subsets, (reset, displaced) in cases:
            clock = time.process_time()
            values = method(model, structure)
            seconds.append(time.process_time() - clock)
            own = {"index": structure.index, "predicted": subsets @ values}
            tables.append(pd.DataFrame(own | {"actual": reset, "displaced": displaced}))
            missed.append(abs(values.sum() - one.change) / abs(one.change))
        each, whole = [correlation(table) for table in tables], pd.concat(tables)
        rows.append(
            {
                "attribution": name,
                "faithfulness r": f"{correlation(whole):.2f}",
                "of both ends": f"{correlation(whole, both_ends=True):.2f}",
                "r of single structures": f"{np.min(each):.2f} to {np.max(each):.2f}",
                "sum misses the change by": f"{np.median(missed):.0%}" if adds_up else "-",
                "CPU s a structure": f"{np.median(seconds):.2f}",
            }
        )
    return pd.DataFrame(rows)


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", nargs="?")
    parser.add_argument("run", nargs="?", type=Path, help="folder of the trained model")
    parser.add_argument("--structures", type=int, default=16)
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    print("\nbonds of 40-atom structures")
    if options.run is None:
        speed(untrained_model(), thermal_structures(options.structures))
        return
    model = load_trained(options.run)
    test = np.load(options.run / "split.npz")["test_idx"][: options.structures]
    structures = read_structures(options.data, test)
    speed(model, structures)
    print(f"\nfaithfulness, {len(structures)} structures")
    print(faithfulness(model, structures).to_string(index=False))
    seeds = [[explainer_masks(model, s, seed=seed) for s in structures[:4]] for seed in (0, 1)]
    r = np.mean([spearmanr(*pair).statistic for pair in zip(*seeds, strict=True)])
    print(f"GNNExplainer masks of two seeds: rank correlation of bonds {r:.2f}")


if __name__ == "__main__":
    main()
