"""Lightning callback of active learning."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

from pytorch_lightning import Callback, LightningModule, Trainer

from schnetpack_phonon.common.errors import TrainingError
from schnetpack_phonon.common.properties import forces
from schnetpack_phonon.data.reading import read_rows
from schnetpack_phonon.ensembles.active.ensemble import ActiveEnsemble
from schnetpack_phonon.evaluation.active.rounds import ALL, errors_of_round, write_round
from schnetpack_phonon.models.trained.start_from import start_from
from schnetpack_phonon.models.trained.weights import load_trained

log = logging.getLogger(__name__)


class ActiveLearning(Callback):
    """Before a round is trained: errors of the potential of the round before, and its weights.

    The errors are of the structures that are new in this round, which the potential has not been
    trained on. Training starts from its weights.

    Args:
        force_error: at which the sweep of the rounds ends, root of the mean squared error over the
            root mean square of the forces.
        folder: of the record.

    Raises:
        ValueError: for data of another ensemble, or a model without forces.
        TrainingError: for a round without new structures.
    """

    def __init__(self, force_error: float, folder: str | Path = "."):
        if not 0 <= force_error < 1:
            raise ValueError(f"callbacks.active.force_error is {force_error:g}; expected 0 to 1")
        self.force_error, self.folder = force_error, Path(folder)
        self._done = False

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        if stage != "fit" or self._done:
            return
        self._done = True
        recipe = trainer.datamodule.generation.recipe
        ensemble = recipe.ensemble
        if not isinstance(ensemble, ActiveEnsemble):
            raise ValueError(
                f"callbacks.active is for data/ensemble=active; this is {type(ensemble).__name__}"
            )
        if forces not in (outputs := pl_module.model.model_outputs):
            raise ValueError(
                f"the model predicts {', '.join(outputs)}; dynamics needs energy and forces: set "
                "heads=forces"
            )
        n_each = ensemble.of_each_round(recipe.structure.crystals)
        number, errors = ensemble.number, {}
        if number:
            potential: Any = ensemble.rounds[-1].dynamics.calculator
            if trainer.is_global_zero:
                rows = [r for r in read_rows(trainer.datamodule.datapath) if _is_of(r, number)]
                if not rows:
                    raise TrainingError(
                        f"round {number} has no new structure: every replica left what the "
                        f"potential of round {number - 1} knows within half a picosecond. Give it "
                        "more to start from (data.ensemble.start), or lower "
                        "data.ensemble.dynamics.temperatures, and delete the runs from round "
                        f"{number - 1} on"
                    )
                errors = errors_of_round(rows, potential)
                self._say(number, errors, number * n_each, ensemble.budget)
            start_from(pl_module.model, load_trained(potential.folder))
        if trainer.is_global_zero:
            write_round(self.folder.absolute(), number, number * n_each, n_each, errors)

    def _say(self, number: int, errors: dict, n_labels: int, budget: int) -> None:
        found = errors[ALL]
        relative = {name: e.relative for name, e in errors.items() if name != ALL}
        each = ", ".join(f"{name} {100 * error:.0f} %" for name, error in relative.items())
        log.info(
            "round %d: %d new structures, %d of %d labels. On them the potential of round %d is "
            "off by %.0f %% of the forces (rms, %.0f of %.0f meV/Ang; %s), %g %% is asked for, "
            "and by %.1f meV/atom in the energy; %d of %d replicas left what it knows",
            number,
            found.n,
            n_labels,
            budget,
            number - 1,
            100 * found.relative,
            found.force,
            found.force_rms,
            each,
            100 * self.force_error,
            found.energy,
            found.n_ended,
            found.n_replicas,
        )


def _is_of(row: Any, number: int) -> bool:
    facts = row.key_value_pairs
    return facts.get("kind") == "active" and facts.get("round") == number
