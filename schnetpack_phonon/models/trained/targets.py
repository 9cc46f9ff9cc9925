"""Objects that a file describes: what it may name, and how they are made.

Hydra makes whatever ``_target_`` names. That is right for a configuration that a user types, and
wrong for one that travels with data: there ``_target_`` may name classes of a list only.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from functools import partial
from importlib import import_module
from typing import Any

from ase.calculators.calculator import BaseCalculator
from torch import nn

from schnetpack_phonon.common.files import UNTRUSTED, Trust

# Beginnings of the modules whose classes may be made, and what these must be subclasses of.
_CLASSES: dict[str, type] = {
    "schnetpack.atomistic.": nn.Module,
    "schnetpack.model.": nn.Module,
    "schnetpack.nn.": nn.Module,
    "schnetpack.representation.": nn.Module,
    "schnetpack.transform.": nn.Module,
    "torch.nn.modules.": nn.Module,
    "schnetpack_phonon.models.": nn.Module,
    "schnetpack_phonon.structures.": object,
    "schnetpack_phonon.phonons.": object,
    "schnetpack_phonon.calculators.": object,
}
_REFUSED = ("CachedNeighborList",)  # opens pickles
_FACTORIES = "ase.calculators."  # named by AseCalculator; made where labels are computed only
_FUNCTIONS = ("schnetpack.nn.activations", "torch.nn.functional")
_PACKAGES = ("schnetpack.", "schnetpack_phonon.", "torch.nn.", _FACTORIES)


def build(description: Any, trust: Trust = UNTRUSTED) -> Any:
    """The object that plain values describe, as Hydra would make it.

    Args:
        description: lists, dictionaries and plain values, without interpolations. A dictionary with
            ``_target_`` becomes an object; its other entries are the arguments.
        trust: beside the classes of SchNetPack and of this package of which models, structures,
            phonons and calculators are made, and activation functions.

    Raises:
        ValueError: for a ``_target_`` that is not allowed or is not there, and for arguments that
            it does not take.
    """
    if isinstance(description, list):
        return [build(one, trust) for one in description]
    if not isinstance(description, Mapping):
        return description
    values = {key: build(value, trust) for key, value in description.items()}
    if "_target_" not in values:
        return values
    name, only_named = values.pop("_target_"), bool(values.pop("_partial_", False))
    arguments = values.pop("_args_", [])
    if values.pop("_recursive_", True) is not True:
        raise ValueError(f"{name!r} has _recursive_: false, which is not supported here")
    values.pop("_convert_", None)
    if name in ("hydra.utils.get_class", "hydra.utils.get_method"):
        return _find(str(values.get("path")), trust, True)
    made = _find(str(name), trust, only_named)
    if only_named:
        return partial(made, *arguments, **values)
    try:
        return made(*arguments, **values)
    except Exception as error:  # whatever a constructor raises for wrong arguments
        raise ValueError(f"{name} cannot be made: {error}") from error


def _find(name: str, trust: Trust, only_named: bool) -> Callable[..., Any]:
    """A class or function by its name, if it is allowed."""
    packages = tuple(f"{package}." for package in trust.packages)
    module, _, own = name.rpartition(".")
    if not (trust.everything or name.startswith((*_PACKAGES, *packages))):
        raise ValueError(_refused(name))  # importing it would run its module
    try:
        found = getattr(import_module(module), own)
    except (ImportError, AttributeError, ValueError) as error:
        raise ValueError(f"_target_ {name!r} is not there: {error}") from error
    if trust.everything:
        return found
    # Where it is defined: modules also hold what they import.
    home = f"{getattr(found, '__module__', '')}."
    allowed = callable(found) and home.startswith(packages) if packages else False
    if inspect.isclass(found):
        for place, base in _CLASSES.items():
            allowed |= home.startswith(place) and issubclass(found, base)
        allowed &= found.__name__ not in _REFUSED
        if only_named:
            allowed |= home.startswith(_FACTORIES) and issubclass(found, BaseCalculator)
    elif only_named and module in _FUNCTIONS:
        allowed |= inspect.isroutine(found) and home.startswith(("schnetpack.nn.", "torch."))
    if not allowed:
        raise ValueError(_refused(name))
    return found


def _refused(name: str) -> str:
    return (
        f"_target_ {name!r} is not among the classes that a file may name (modules of SchNetPack, "
        "torch.nn and this package): give --allow PACKAGE (in Python Trust(packages=...)) for a "
        "package of yours, or --trust if you made the file or trust its maker"
    )
