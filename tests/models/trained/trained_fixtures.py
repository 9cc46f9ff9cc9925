"""Models as configurations of Hydra describe them."""

from __future__ import annotations

from typing import Any

from tests.models.model_fixtures import CUTOFF


def model_config(*heads: dict[str, Any], representation: str = "PaiNN") -> dict[str, Any]:
    """A model of SchNetPack with 16 features, as plain values."""
    config: dict[str, Any] = {
        "_target_": f"schnetpack.representation.{representation}",
        "n_atom_basis": 16,
        "n_interactions": 2,
        "radial_basis": {"_target_": "schnetpack.nn.GaussianRBF", "n_rbf": 10, "cutoff": CUTOFF},
        "cutoff_fn": {"_target_": "schnetpack.nn.cutoff.CosineCutoff", "cutoff": CUTOFF},
    }
    if representation == "SO3net":
        config["lmax"] = 2
    return {
        "_target_": "schnetpack.model.NeuralNetworkPotential",
        "representation": config,
        "input_modules": [{"_target_": "schnetpack.atomistic.PairwiseDistances"}],
        "output_modules": list(heads),
    }


def head(name: str, **arguments: Any) -> dict[str, Any]:
    return {"_target_": f"schnetpack_phonon.models.{name}", "n_in": 16, **arguments}
