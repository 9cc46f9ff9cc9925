"""What the tests of this folder share."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from schnetpack.model import NeuralNetworkPotential
from torch import nn

from tests.models.heads_contract.heads_contract_fixtures import FORMULAS, STRUCTURES, Head
from tests.models.model_fixtures import data_module, potential


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Labels of all properties, so that offsets and scales of all heads are not trivial."""
    rng = np.random.default_rng(0)
    vbm = [0.1 * k % 4 + rng.normal(3, 0.1) for k in range(len(FORMULAS))]
    gap = rng.uniform(0.3, 0.9, len(FORMULAS))
    stress = rng.normal(0, 0.02, (len(FORMULAS), 3, 3))
    elastic = rng.normal(0, 10, (len(FORMULAS), 6, 6))
    labels = {"band_gap": gap, "vbm": vbm, "cbm": vbm + gap}
    labels |= {"hydrostatic_stress": rng.normal(0, 0.02, len(FORMULAS))}
    labels |= {"stress": stress + stress.mT, "elastic_tensor": elastic + elastic.mT}
    path = tmp_path_factory.mktemp("contract") / "labels.db"
    return data_module(path, STRUCTURES, range(10), **labels)


@pytest.fixture
def fitted(data):
    """Head -> a PaiNN with it, with offsets and scales of the training set."""

    def make(head: Head, *others: nn.Module, dtype=torch.float32) -> NeuralNetworkPotential:
        model = potential(head.make(), *others, representation=head.representation, dtype=dtype)
        model.initialize_transforms(data)  # SchNetPack's call before a fit
        return model

    return make
