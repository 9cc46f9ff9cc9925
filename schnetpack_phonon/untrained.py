"""The control of an attribution: the same model before it learnt anything."""

from __future__ import annotations

import copy
import warnings

import torch
from schnetpack.model import NeuralNetworkPotential


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
