"""Several ensembles in one database."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from schnetpack_phonon.ensembles.base import Ensemble, SimpleEnsemble


class MixtureEnsemble(Ensemble):
    """Several ensembles in one database.

    Args:
        ensembles: by name.
        fractions: of the snapshots of a crystal, by the same names; they sum to one.
        n_snapshots: per crystal, over all ensembles and parameters. Each ensemble gets at least
            one per parameter.
    """

    def __init__(
        self,
        ensembles: Mapping[str, SimpleEnsemble],
        fractions: Mapping[str, float],
        n_snapshots: int,
    ):
        if set(ensembles) != set(fractions):
            raise ValueError(
                f"data.ensemble.fractions names {sorted(fractions)}; "
                f"data.ensemble.ensembles {sorted(ensembles)}: expected the same"
            )
        if min(fractions.values(), default=0) <= 0 or abs(sum(fractions.values()) - 1) > 1e-6:
            raise ValueError(
                f"data.ensemble.fractions are {dict(fractions)}; expected positive ones of sum 1"
            )
        if not all(isinstance(ensemble, SimpleEnsemble) for ensemble in ensembles.values()):
            raise ValueError("data.ensemble.ensembles has a mixture in it; expected its members")
        self.fractions = {name: float(f) for name, f in fractions.items()}
        self.n_snapshots = n_snapshots
        self.ensembles = dict(ensembles)
        for name, ensemble in ensembles.items():
            n = n_snapshots * self.fractions[name] / len(ensemble.parameters)
            ensemble.n_snapshots = max(round(n), 1)

    @property
    def members(self) -> list[SimpleEnsemble]:
        return list(self.ensembles.values())

    @property
    def settings(self) -> dict[str, Any]:
        return {
            "kind": "mixture",
            "ensembles": {name: e.settings for name, e in self.ensembles.items()},
        }
