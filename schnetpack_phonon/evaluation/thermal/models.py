"""Several models of one kind, asked for the same structures."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from ase import Atoms

from schnetpack_phonon.common.errors import RunError
from schnetpack_phonon.common.properties import elastic_tensor, property_of
from schnetpack_phonon.evaluation.runs import Run
from schnetpack_phonon.models.predict import Predictor


class Models:
    """Predicts the scalar outputs that all models have, and their elastic tensors.

    Attributes:
        keys: of the scalar outputs.
        tensors: of the elastic tensors.

    Raises:
        RunError: if there is no scalar output that all have.
    """

    def __init__(self, runs: Sequence[Run]):
        self._predictors = {
            str(run.folder): Predictor(run.model, batch_size=16, trust=run.trust) for run in runs
        }
        shared = set.intersection(*(set(one.outputs) for one in self._predictors.values()))
        self.keys = sorted(key for key in shared if not property_of(key).shape)
        self.tensors = [key for key in (elastic_tensor,) if key in shared]
        if not self.keys:
            raise RunError(f"the models of {', '.join(self._predictors)} share no scalar output")

    def __call__(self, structures: Sequence[Atoms]) -> dict[str, np.ndarray]:
        """Output -> shape=(n_models, n_structures, ...).

        Raises:
            RunError: for predictions that are NaN or infinite, whose averages mean nothing.
        """
        found = {run: one(structures) for run, one in self._predictors.items()}
        values = {}
        for key in [*self.keys, *self.tensors]:
            own = {run: np.array([row[key] for row in rows], float) for run, rows in found.items()}
            for run, one in own.items():
                invalid = (~np.isfinite(one)).reshape(len(one), -1).any(axis=1)
                if invalid.any():
                    raise RunError(
                        f"the model of {run} predicts {key} that is NaN or infinite for "
                        f"{invalid.sum()} of {len(one)} structures of "
                        f"{structures[0].get_chemical_formula()}: no average of it means anything"
                    )
            values[key] = np.stack([*own.values()])
        return values
