"""Units of trained models: of SchNetPack's models, which may be trained in any unit."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from contextlib import suppress
from pathlib import Path

import ase.db
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException
from schnetpack.atomistic import Forces
from schnetpack.data import AtomsDataModule
from schnetpack.model import AtomisticModel
from schnetpack.task import ModelOutput
from torch import nn

from schnetpack_phonon.common.errors import UnitError
from schnetpack_phonon.common.properties import (
    DISTANCE,
    DISTANCE_UNIT,
    PROPERTIES,
    expected,
    factor,
)
from schnetpack_phonon.models.elastic_response import ElasticResponse
from schnetpack_phonon.models.elastic_tensor import ElasticModuli
from schnetpack_phonon.models.stress import StressTrace

Units = dict[str, str]  #: of outputs by key, and of lengths under ``distance``


def units_of(
    model: AtomisticModel,
    run: Path | None = None,
    given: Mapping[str, str] | None = None,
    outputs: Iterable[str] | None = None,
) -> Units:
    """Units of the outputs of a trained model.

    In this order: what :class:`.ScaledTask` recorded in the model, what heads of this package were
    trained in (they refuse other units), the training database of its run, ``given``. Forces and
    stress have the unit of the energy, divided by that of lengths.

    Args:
        model: of SchNetPack.
        run: folder of its run, with SchNetPack's ``config.yaml``.
        given: units of a model that has none of these; also of ``distance`` (Ang by default).
        outputs: whose units are needed; all by default.

    Returns:
        Units of ``distance`` and of all outputs that have one.

    Raises:
        UnitError: if the unit of an output with one of our keys is not known, is none, or is given
            and differs.
    """
    given, needed = given or {}, [key for key in outputs or model.model_outputs if _has_unit(key)]
    known = _derived(model, getattr(model, "training_units", {}))
    if run is not None and not known.keys() >= {*needed}:
        known = _derived(model, {**_of_run(run), **known})
    for key, unit in given.items():
        if key in known and not math.isclose(factor(unit, known[key]), 1.0, rel_tol=1e-6):
            raise UnitError(
                f"{key!r} is said to be in {unit}; the model was trained in {known[key]}"
            )
    found = {DISTANCE: DISTANCE_UNIT, **_derived(model, {**given, **known})}
    missing = [key for key in needed if key not in found]
    if missing:
        raise UnitError(
            f"the model does not tell the unit of {', '.join(sorted(missing))}, and its training "
            "database was not found: give it, such as units={'energy': 'kcal/mol'} (--unit of "
            "spkphonon attribute)"
        )
    return found


def units_of_data(datamodule: AtomsDataModule, outputs: Iterable[ModelOutput]) -> Units:
    """Units of outputs that are trained on a data module, as far as its database has them."""
    dataset = datamodule.dataset
    units = {one.name: dataset.units.get(one.target_property) for one in outputs}
    return {
        DISTANCE: str(dataset.distance_unit),
        **{key: str(unit) for key, unit in units.items() if unit},
    }


def _has_unit(key: str) -> bool:
    return key in PROPERTIES and bool(PROPERTIES[key].unit)


def _derived(model: AtomisticModel, known: Mapping[str, str]) -> Units:
    """Units with those of our heads, and of outputs that are derivatives of others."""
    found, length = dict(known), known.get(DISTANCE, DISTANCE_UNIT)
    for module in getattr(model, "output_modules", ()):
        more: Units = {}
        if isinstance(module, Forces) and (unit := found.get(module.energy_key)):
            more = {module.force_key: f"{unit}/{length}"}
            more[module.stress_key] = f"{unit}/{length}/{length}/{length}"
        elif isinstance(module, StressTrace) and module.stress_key in found:
            more = {module.output_key: found[module.stress_key]}
        elif _ours(module) and _in_our_units(module, found):
            more = {key: expected(key) for key in module.model_outputs if _has_unit(key)}
        found = {**more, **found}
    return found


def _ours(module: nn.Module) -> bool:
    package = f"{__package__.rpartition('.')[0]}."
    return any(base.__module__.startswith(package) for base in type(module).__mro__)


def _in_our_units(module: nn.Module, found: Units) -> bool:
    """Whether what a module computes its outputs from is in our units: features have none."""
    source = None
    if isinstance(module, ElasticResponse):
        source = module.energy_key
    elif isinstance(module, ElasticModuli):
        source = module.elastic_tensor_key
    elif isinstance(module, Forces | StressTrace):
        return False
    return source is None or (source in found and found[source] == expected(source))


def _of_run(run: Path) -> Units:
    """Units of the training database of a run of SchNetPack; empty if it is not found."""
    if not (run / "config.yaml").is_file():
        return {}
    config = OmegaConf.load(run / "config.yaml")
    for parent in run.resolve().parents[:4]:  # the folder in which the command was run
        OmegaConf.update(config, "run.work_dir", str(parent), force_add=True)
        with suppress(OmegaConfBaseException, AttributeError):
            database, data = parent / config.data.datapath, config.data
            if database.is_file():
                with ase.db.connect(str(database), use_lock_file=False) as connection:
                    there = connection.metadata
                units = {**there["_property_unit_dict"], **(data.get("property_units") or {})}
                distance = data.get("distance_unit") or there["_distance_unit"]
                targets = {
                    one.name: one.get("target_property") or one.name for one in config.task.outputs
                }
                found = {k: units[label] for k, label in targets.items() if units.get(label)}
                return {DISTANCE: distance, **found}
    return {}
