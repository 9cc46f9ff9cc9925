"""Harmonic models of the crystals of a run, from its label store."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

from schnetpack_phonon.calculators.external_code import ExternalCode
from schnetpack_phonon.common.errors import LabellingError, MissingLabelsError, RunError
from schnetpack_phonon.common.files import DATASETS
from schnetpack_phonon.data.database import read_metadata
from schnetpack_phonon.data.preparation import Recipe, prepare
from schnetpack_phonon.ensembles.base import Ensemble
from schnetpack_phonon.evaluation.runs import Run
from schnetpack_phonon.labels.labelling import Planner
from schnetpack_phonon.labels.store import LabelStore
from schnetpack_phonon.models.trained.targets import build
from schnetpack_phonon.phonons.force_constants import Models
from schnetpack_phonon.phonons.instabilities import Instabilities
from schnetpack_phonon.phonons.renormalization import Renormalised
from schnetpack_phonon.structures.crystals import Crystal

_OF_VERSION_0_1 = "schnetpack_phonon.instabilities.Instabilities"


def policy(run: Run) -> Instabilities:
    """Of a run for imaginary modes; its renormalised force constants have no other low modes."""
    phonons = build(run.resolved("data.phonons"), run.trust)
    if isinstance(phonons, Renormalised):
        return replace(phonons.start, min_frequency=0.0)
    return phonons.instabilities


def vibrations(run: Run, ensemble: Ensemble) -> tuple[list[Crystal], Models]:
    """Relaxed crystals and their models at the temperatures of an ensemble; computes no labels.

    Args:
        run: of this package, with any ensemble.
        ensemble: of the temperatures that are needed.

    Raises:
        RunError: if the run is not of this package, or forces or lattices are not in its label
            store.
    """
    data = run.config.data
    if "phonons" not in data:
        raise RunError(f"{run.folder} was not trained on data of schnetpack_phonon")
    shipped = data.get("shipped_labels")
    path = Path(run.resolved("run.work_dir"), run.resolved("data.label_store"))
    parts = {part: run.resolved(f"data.{part}") for part in ("structure", "phonons", "calculator")}
    own = parts["phonons"].get("instabilities", {})
    if own.get("_target_") == _OF_VERSION_0_1 and own.get("policy") == "floor":
        own["min_frequency"] = own["floor"]  # that floor raised real modes too
    try:
        structure, phonons, calculator = (build(part, run.trust) for part in parts.values())
        if isinstance(calculator, ExternalCode) and calculator.version is None:
            # Of the labels; the installed one would be asked by a command of the configuration.
            code = read_metadata(run.datapath)["versions"]["calculator"]
            calculator.version = code.removeprefix(f"{calculator.name} ")
        recipe = Recipe(structure, phonons, ensemble, calculator)
        planner = Planner(LabelStore(path, DATASETS / shipped if shipped else None))
        with TemporaryDirectory() as folder:
            return prepare(recipe, planner, Path(folder))
    except MissingLabelsError as error:
        missing = sum(map(len, planner.missing.values()))
        raise RunError(
            f"{missing} calculations for the phonons of {run.folder} are not in "
            f"{path}: run spkphonon generate --dry-run with data/ensemble=phonon "
            "and the other options of the run first"
        ) from error
    except (LabellingError, ValueError) as error:
        raise RunError(f"no phonons for {run.folder}: {error}") from error
