"""Which preprocessing transforms give the same result every time, and a digest of their settings.

Only such results may be kept. A transform counts as repeatable if :func:`settings_of` knows its
settings, if using it changes neither them nor a global random state, and if it gives the same bits
twice for each of some structures.
"""

from __future__ import annotations

import copy
import inspect
import random
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from enum import Enum
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import torch
from torch import nn

from schnetpack_phonon.common.digests import hash_of

Item = dict[str, torch.Tensor]


class UnknownSettingsError(TypeError):
    """A transform holds an object whose settings are not known."""


def settings_of(thing: object) -> str:
    """A text that is the same, in any process, for things with the same settings.

    For modules it covers their class, the source files of that class and of its base classes, and
    all attributes, buffers and submodules.

    Raises:
        UnknownSettingsError: for anything but modules, functions, classes, numbers, text, tensors
            and containers of these, such as a random generator.
    """
    match thing:
        case None | bool() | int() | float() | complex() | str() | bytes() | Path() | Enum():
            return f"{type(thing).__name__}:{thing!r}"
        case torch.dtype() | torch.device() | np.dtype():
            return str(thing)
        case np.generic() | np.ndarray():
            array = np.ascontiguousarray(thing)
            if array.dtype.hasobject:
                raise UnknownSettingsError("an array of objects")
            return f"{array.dtype}{array.shape}:{hash_of(array)}"
        case torch.Tensor():
            return settings_of(thing.detach().cpu().numpy())
        case list() | tuple():
            return f"{type(thing).__name__}({','.join(map(settings_of, thing))})"
        case set() | frozenset():
            return f"set({','.join(sorted(map(settings_of, thing)))})"
        case dict():
            pairs = (f"{settings_of(key)}={settings_of(value)}" for key, value in thing.items())
            return f"dict({','.join(sorted(pairs))})"
        case nn.Module():
            return f"{_code(type(thing))}({settings_of(vars(thing))})"
        case type():
            return _code(thing)
    if inspect.isfunction(thing) and thing.__closure__ is None:
        return f"{_code(thing)}({settings_of(thing.__defaults__)})"
    if inspect.isbuiltin(thing) and isinstance(thing.__self__, ModuleType):
        return f"{thing.__module__}.{thing.__qualname__}"
    raise UnknownSettingsError(f"{type(thing).__module__}.{type(thing).__qualname__}")


def repeatable_prefix(
    transforms: Sequence[nn.Module], items: Sequence[Item]
) -> tuple[int, list[Item], str]:
    """How many of the first transforms are repeatable.

    Args:
        transforms: in the order in which they are applied.
        items: some structures; they are not changed, nor are transforms and random states.

    Returns:
        The number, the items after these transforms, and why the next transform is not repeatable
        ("" if there is none).
    """
    items = [_copy(item) for item in items]
    for number, transform in enumerate(transforms):
        try:
            before = settings_of(transform)
            tried = copy.deepcopy(transform)
            with random_states() as changed:
                results = [[tried(_copy(item)) for item in items] for _ in "ab"]
                drew = changed()
            after = settings_of(tried)
        except UnknownSettingsError as error:
            return number, items, f"{type(transform).__name__} holds {error}"
        if drew:
            return number, items, f"{type(transform).__name__} draws random numbers"
        if before != after:
            return number, items, f"{type(transform).__name__} changes when it is used"
        if not all(same_items(one, other) for one, other in zip(*results, strict=True)):
            return number, items, f"{type(transform).__name__} gives another result each time"
        items = results[0]
    return len(transforms), items, ""


@contextmanager
def random_states() -> Iterator[Any]:
    """Restores the global random states of torch, NumPy and Python at the end.

    Yields a function that tells whether any of them has changed since.
    """
    states = _random_states()
    try:
        yield lambda: settings_of(_random_states()) != settings_of(states)
    finally:
        torch.set_rng_state(states[0])
        np.random.set_state(states[1])  # noqa: NPY002  # the global state is what is meant
        random.setstate(states[2])


def same_items(one: Item, other: Item) -> bool:
    """Whether all bits, shapes and types are equal."""
    return one.keys() == other.keys() and all(
        settings_of(value) == settings_of(other[key]) for key, value in one.items()
    )


def _random_states() -> tuple[Any, Any, Any]:
    return torch.get_rng_state(), np.random.get_state(), random.getstate()  # noqa: NPY002


def _copy(item: Item) -> Item:
    return {key: value.clone() for key, value in item.items()}


def _code(thing: Any) -> str:
    """Name, and digest of the source files that define a class (and its bases) or a function."""
    sources = []
    for part in inspect.getmro(thing)[:-1] if isinstance(thing, type) else (thing,):
        if part.__module__.startswith("torch."):
            sources.append(torch.__version__)
            continue
        try:
            source = Path(inspect.getfile(part)).read_bytes()
        except (TypeError, OSError) as error:
            raise UnknownSettingsError(f"{thing.__qualname__}, which has no source file") from error
        sources.append(hash_of(source))
    return f"{thing.__module__}.{thing.__qualname__}[{','.join(sources)}]"
