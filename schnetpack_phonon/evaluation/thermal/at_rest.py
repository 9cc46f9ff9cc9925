"""Crystals at rest, from which changes with temperature count: their labels and predictions."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from schnetpack_phonon.evaluation.thermal.models import Models
from schnetpack_phonon.structures.crystals import Crystal

LABELLED, PREDICTED = "labelled", "predicted"


@dataclass(frozen=True)
class AtRest:
    """Properties of a crystal whose atoms are on their sites, in database units.

    Attributes:
        predicted: property -> prediction of each model, shape=(n_models,).
        labelled: property -> label, of those that have one.
    """

    predicted: dict[str, np.ndarray]
    labelled: dict[str, float]

    def rows(self) -> list[dict[str, Any]]:
        """A row for each property and for each of its labels."""
        rows = []
        for key, values in self.predicted.items():
            own = {"property": key, "at_rest": PREDICTED, "value": values.mean()}
            rows.append({**own, "seed_sd": pd.Series(values).std()})
            if key in self.labelled:
                rows.append({**own, "at_rest": LABELLED, "value": self.labelled[key]})
        return rows

    def source(self, key: str) -> str:
        """What changes of a property count from."""
        return LABELLED if key in self.labelled else PREDICTED

    def zero(self, key: str) -> np.ndarray:
        """What changes of a property count from, for each model; shape=(n_models,)."""
        predicted = self.predicted[key]
        return np.full_like(predicted, self.labelled[key]) if key in self.labelled else predicted


def crystal_at_rest(models: Models, crystal: Crystal, labels: Mapping[str, Any]) -> AtRest:
    """Of the scalar properties that the models predict.

    Args:
        models: all of one kind.
        crystal: whose supercell is predicted.
        labels: of this supercell as the metadata of a database hold them; none if empty.
    """
    found = models([crystal.supercell])
    known = {key: float(np.ravel(labels[key])[0]) for key in models.keys if key in labels}
    return AtRest(
        {key: found[key][:, 0] for key in models.keys},
        {key: value for key, value in known.items() if np.isfinite(value)},
    )
