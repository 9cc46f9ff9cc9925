"""Bonds exchanged between two crystals: whether attributions foretell what that does."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Mapping

import numpy as np
import pandas as pd
import torch
from schnetpack.model import NeuralNetworkPotential

from schnetpack_phonon.attribution.edges import Edges
from schnetpack_phonon.attribution.results import FROZEN_SHARE, BondAttribution


def freezing(
    model: NeuralNetworkPotential,
    found: BondAttribution,
    n_subsets: int = 16,
    share: float = FROZEN_SHARE,
    seed: int = 0,
    inputs: Mapping[str, torch.Tensor] | None = None,
) -> pd.DataFrame:
    """Freezes random bonds at their ideal vectors: what the bonds predict, and what happens.

    The sum of an attribution is that of the whole way between two crystals, and weighs its ends
    alike; freezing bonds of the displaced crystal asks about that end. The same bonds are therefore
    displaced in the ideal crystal, too.

    Args:
        model: the one that was attributed.
        found: its displacement attribution of a structure.
        n_subsets: random subsets.
        share: of the bonds in each.
        seed: of the subsets, together with the structure's index.
        inputs: what else the model reads.

    Returns:
        One row a subset: ``index``, ``structure``, ``predicted`` (sum of the attributions of these
        bonds), ``actual`` (f(displaced) - f(with them frozen)) and ``displaced`` (f(ideal with them
        displaced) - f(ideal)), in the property's unit.
    """
    subsets = random_subsets(len(found.attribution), n_subsets, share, seed, found.index)
    frozen, displaced = exchanged_changes(model, found, subsets, inputs)
    return pd.DataFrame(
        {
            "index": found.index,
            "structure": found.structure,
            "predicted": subsets @ found.attribution,
            "actual": frozen,
            "displaced": displaced,
        }
    )


def random_subsets(
    n_bonds: int, n_subsets: int, share: float, seed: int, index: int = 0
) -> np.ndarray:
    """Subsets of one size, bool, shape=(n_subsets, n_bonds)."""
    rng = np.random.default_rng([seed, index])
    order = rng.random((n_subsets, n_bonds)).argsort(axis=1)
    return order.argsort(axis=1) < round(share * n_bonds)


def exchanged_changes(
    model: NeuralNetworkPotential,
    found: BondAttribution,
    subsets: np.ndarray,
    inputs: Mapping[str, torch.Tensor] | None = None,
) -> np.ndarray:
    """What subsets of bonds do at either end of the path, shape=(2, n_subsets).

    f(displaced) - f(with a subset at its ideal vectors), and f(ideal with it displaced) - f(ideal).
    """
    edges = Edges(model, [found.path], found.output, inputs)
    ends = edges.vectors(1.0), edges.vectors(0.0)
    chosen = torch.as_tensor(subsets[:, found.path.bond], device=ends[0].device)[..., None]
    changes = []
    with edges.frozen(), torch.no_grad():
        for sign, here, there in ((1, *ends), (-1, *ends[::-1])):
            parts = chosen.split(edges.copies_per_pass())
            values = [edges.displaced(torch.where(part, there, here))[:, 0] for part in parts]
            changes.append(sign * (edges.displaced(here)[0] - torch.cat(values)))
    return torch.stack(changes).double().cpu().numpy()


def untrained(model: NeuralNetworkPotential, seed: int) -> NeuralNetworkPotential:
    """A copy of the model with fresh weights: the control for what training taught.

    Offsets and scales of the heads (buffers) are kept. A module that has parameters of its own and
    cannot reset them keeps them too, with a warning.
    """
    fresh = copy.deepcopy(model)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        for name, module in fresh.named_modules():
            if hasattr(module, "reset_parameters"):
                module.reset_parameters()
            elif next(module.parameters(recurse=False), None) is not None:
                warnings.warn(f"the untrained control keeps the trained {name}", stacklevel=2)
    return fresh
