"""Faithfulness: effects of bonds as attributions predict them, and as the model gives them."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Mapping

import numpy as np
import pandas as pd
import torch
from schnetpack.model import NeuralNetworkPotential

from schnetpack_phonon.attribution.checks import SUBSET_SHARE
from schnetpack_phonon.attribution.edges import Edges
from schnetpack_phonon.attribution.results import BondAttribution


def subset_effects(
    model: NeuralNetworkPotential,
    found: BondAttribution,
    n_subsets: int = 16,
    share: float = SUBSET_SHARE,
    seed: int = 0,
    inputs: Mapping[str, torch.Tensor] | None = None,
) -> pd.DataFrame:
    """Predicted and actual effects of random subsets of bonds.

    An attribution belongs to the whole path, and weighs both ends alike. Resetting bonds of the
    displaced crystal to their ideal vectors tests one end; the same bonds are therefore displaced
    in the ideal crystal, too.

    Args:
        model: the one that was attributed.
        found: its displacement attribution of a structure.
        n_subsets: random subsets.
        share: of the bonds in each subset.
        seed: of the subsets, together with the structure's index.
        inputs: other inputs of the model.

    Returns:
        One row for each subset: ``index``, ``structure``, ``predicted`` (sum of the attributions of
        its bonds), ``actual`` (f(displaced) - f(with its bonds reset)) and ``displaced`` (f(ideal
        with its bonds displaced) - f(ideal)), in the unit of the property.
    """
    subsets = random_subsets(len(found.attribution), n_subsets, share, seed, found.index)
    reset, displaced = exchanged_changes(model, found, subsets, inputs)
    return pd.DataFrame(
        {
            "index": found.index,
            "structure": found.structure,
            "predicted": subsets @ found.attribution,
            "actual": reset,
            "displaced": displaced,
        }
    )


def random_subsets(
    n_bonds: int, n_subsets: int, share: float, seed: int, index: int = 0
) -> np.ndarray:
    """Subsets of equal size, bool, shape=(n_subsets, n_bonds)."""
    rng = np.random.default_rng([seed, index])
    order = rng.random((n_subsets, n_bonds)).argsort(axis=1)
    return order.argsort(axis=1) < round(share * n_bonds)


def exchanged_changes(
    model: NeuralNetworkPotential,
    found: BondAttribution,
    subsets: np.ndarray,
    inputs: Mapping[str, torch.Tensor] | None = None,
) -> np.ndarray:
    """Effects of subsets of bonds at both ends of the path, shape=(2, n_subsets).

    f(displaced) - f(subset reset to ideal), and f(ideal with the subset displaced) - f(ideal).
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
    """A copy of the model with new random weights: the control for the effect of training.

    Offsets and scales of the heads (buffers) are kept. A module that has parameters of its own and
    no ``reset_parameters`` keeps them too, with a warning.
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
