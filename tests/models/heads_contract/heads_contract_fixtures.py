"""The heads, each a line; a new one joins in ``SCALARS``, ``LEVELS`` or ``TENSORS``."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import pytest
from torch import nn

from schnetpack_phonon.models.band_edges import BandEdges
from schnetpack_phonon.models.elastic_tensor import ElasticTensor
from schnetpack_phonon.models.hamiltonian.head import HamiltonianEdges
from schnetpack_phonon.models.heads import BandGap, Intensive
from schnetpack_phonon.models.stress import HydrostaticStress, StressTensor
from tests.models.model_fixtures import CUTOFF, thermal


class Head(NamedTuple):
    """Makes a head for 16 features, and names the representation that it goes with."""

    make: Callable[[], nn.Module]
    representation: str = "PaiNN"


SCALARS = {
    "Intensive": Head(lambda: Intensive(16, "vbm")),
    "Intensive-SO3net": Head(lambda: Intensive(16, "vbm"), "SO3net"),
    "HydrostaticStress": Head(lambda: HydrostaticStress(16)),
    "BandGap": Head(lambda: BandGap(16, "band_gap")),
    "BandEdges": Head(lambda: BandEdges(16, levels_key="levels")),
    "BandEdges-SchNet": Head(lambda: BandEdges(16), "SchNet"),
}


ELEMENTS = ["Ag", "S", "Se", "Br", "I"]


LEVELS = {  # their gaps are no sums over atoms and have no offsets
    "HamiltonianEdges": Head(
        lambda: HamiltonianEdges(ELEMENTS, CUTOFF, kpoint_length=8.0), "NoFeatures"
    ),
    "HamiltonianEdges-PaiNN": Head(
        lambda: HamiltonianEdges(ELEMENTS, CUTOFF, kpoint_length=8.0, n_in=16)
    ),
}


TENSORS: dict[str, Head] = {
    "StressTensor": Head(lambda: StressTensor(16, CUTOFF, bonds_key="bonds")),
    "ElasticTensor": Head(lambda: ElasticTensor(16, CUTOFF, bonds_key="bonds")),
    "ElasticTensor-SchNet": Head(lambda: ElasticTensor(16, CUTOFF), "SchNet"),
    "ElasticTensor-SO3net": Head(lambda: ElasticTensor(16, CUTOFF), "SO3net"),
    "ElasticTensor-positive": Head(lambda: ElasticTensor(16, CUTOFF, positive=True)),
}


HEADS = SCALARS | LEVELS | TENSORS


heads = pytest.mark.parametrize("head", HEADS.values(), ids=HEADS)


FORMULAS = ["Ag3SBr", "Ag3SI", "Ag3SeBr", "Ag3SeI"] * 3


STRUCTURES = [thermal(k, formula, strain=0.02)[1] for k, formula in enumerate(FORMULAS)]
