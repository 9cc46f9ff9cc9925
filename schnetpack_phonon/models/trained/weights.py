"""A trained model as numbers and a description, beside the pickle that SchNetPack writes.

``best_model.npz`` holds all parameters and buffers, and as JSON the configuration of the model and
what training changed beside tensors. Opening it runs no code of the file. It is written without
pickles because ``torch.load(weights_only=True)`` of PyTorch before 2.6 can be made to run programs
(CVE-2025-32434).
"""

from __future__ import annotations

import json
import logging
import pickle
import warnings
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from omegaconf import OmegaConf
from schnetpack.model import AtomisticModel
from schnetpack.utils import load_model
from torch import nn

from schnetpack_phonon.common.digests import file_digest
from schnetpack_phonon.common.files import UNTRUSTED, Trust, read_npz, replacing
from schnetpack_phonon.models.trained.targets import build

log = logging.getLogger(__name__)

_FORMAT = 1
_DESCRIPTION = "description"
_TENSOR = "tensor:"
_OF_MODULES = {*vars(nn.Module())}


def weights_file(model: Path) -> Path:
    """The file of the weights that belongs to a ``best_model``."""
    return model.with_name(f"{model.name}.npz")


def stored_model(path: Path) -> Path:
    """The file of a model from its run folder or ``best_model``: the weights where they are."""
    file = path / "best_model" if path.is_dir() else path
    weights = file if file.suffix == ".npz" else weights_file(file)
    return weights if weights.is_file() else file


def write_weights(model: AtomisticModel, path: Path, config: Any) -> None:
    """Writes the weights beside a ``best_model`` that was just written.

    Args:
        model: trained, as it is in ``best_model``.
        path: of ``best_model``.
        config: of the model in plain values, from which Hydra made it.

    Raises:
        ValueError: if the configuration and the weights do not give the same model.
        OSError: if it cannot be written.
    """
    fresh = _new(config, Trust(everything=True))
    tensors = {_TENSOR + name: each.detach().cpu().numpy() for name, each in _tensors(model)}
    description = {
        "format": _FORMAT,
        "pickle": file_digest(path),
        "model": config,
        "attributes": _changed(model, fresh),
    }
    arrays = {_DESCRIPTION: np.array(json.dumps(description)), **tensors}
    with replacing(weights_file(path)) as part, open(part, "wb") as file:
        np.savez(file, **arrays)  # type: ignore[arg-type]


def save_weights(model: AtomisticModel, path: Path) -> None:
    """As :func:`write_weights`, with the ``config.yaml`` of the run; says why if it cannot.

    A failure must not end a training: the run can still be opened with ``--trust``. Models without
    a ``config.yaml``, as from scripts, are no runs, and have no file of weights.
    """
    weights_file(path).unlink(missing_ok=True)
    if not path.with_name("config.yaml").is_file():
        return
    try:
        config = OmegaConf.load(path.with_name("config.yaml"))
        plain = OmegaConf.to_container(OmegaConf.select(config, "model"), resolve=True)
        write_weights(model, path, plain)
    except Exception as error:  # also those of Hydra's resolvers and of the user's classes
        file = weights_file(path).absolute()
        _say(f"{file} cannot be written, so reports of this run need --trust: {error}")


def read_weights(path: Path, trust: Trust = UNTRUSTED) -> AtomisticModel:
    """The model of a file of weights, on the CPU, in evaluation mode.

    Args:
        path: of the weights.
        trust: which classes the file may name; it holds no pickle.

    Raises:
        ValueError: if it is damaged, from another version, names other classes, or does not belong
            to the ``best_model`` beside it.
    """
    try:
        arrays = read_npz(path)
        found = json.loads(str(arrays.pop(_DESCRIPTION)))
        tensors = {k.removeprefix(_TENSOR): torch.from_numpy(array) for k, array in arrays.items()}
        if found["format"] != _FORMAT:
            raise ValueError(f"format {found['format']}; this version reads {_FORMAT}")
        original = path.with_suffix("")
        if original.is_file() and file_digest(original) != found["pickle"]:
            raise ValueError(f"{original.name} beside it is another model: remove one of the two")
        model = _new(found["model"], trust)
        _fill(model, tensors, found["attributes"])
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"the model in {path} cannot be opened: {error}") from error
    return model.eval()


def load_trained(path: Path, trust: Trust = UNTRUSTED) -> AtomisticModel:
    """A model from a run folder or its ``best_model``, on the CPU.

    Args:
        path: of the run or of the model.
        trust: ``best_model.npz`` may name our classes and those of SchNetPack; without that file
            the pickle is opened if everything is trusted.

    Raises:
        ValueError: if there is no such file, no model in it, or if it is not trusted.
    """
    file = stored_model(path)
    if not file.is_file():
        raise ValueError(
            f"no file {file}; expected a run folder with a best_model, which spktrain writes at "
            "its end, or the file itself"
        )
    if file.suffix == ".npz":
        return read_weights(file, trust)
    trust.check(f"{file} is a pickle without {weights_file(file).name} beside it")
    with warnings.catch_warnings():
        # torch < 2.6 warns that pickles run code; SchNetPack warns of files without a model.
        warnings.simplefilter("ignore")
        reason = ""
        try:
            model = load_model(str(file))
        except Exception as error:  # a damaged pickle can raise any; of no model, SchNetPack does
            model, reason = None, f" ({type(error).__name__}: {error})"
    if not isinstance(model, AtomisticModel):
        raise ValueError(
            f"{file} holds no model; expected the best_model of a run, not a checkpoint and not a "
            f"scripted (deployed) or compiled model{reason}"
        )
    return model


def _new(config: Any, trust: Trust) -> AtomisticModel:
    with torch.random.fork_rng(devices=[]):  # a training goes on with the same random numbers
        model = build(config, trust)
    if not isinstance(model, AtomisticModel):
        raise ValueError(f"it describes a {type(model).__name__}, not a model of SchNetPack")
    return model


def _tensors(model: nn.Module) -> Iterator[tuple[str, torch.Tensor]]:
    yield from model.named_parameters(remove_duplicate=False)
    yield from model.named_buffers(remove_duplicate=False)


def _fill(
    model: nn.Module, tensors: dict[str, torch.Tensor], attributes: dict[str, dict[str, Any]]
) -> None:
    """Gives a new model the tensors and attributes of the trained one."""
    if missing := {name for name, _ in _tensors(model)} - tensors.keys():
        raise ValueError(f"it has no {', '.join(sorted(missing))}")
    for name, tensor in tensors.items():
        owner, _, own = name.rpartition(".")
        module = model.get_submodule(owner)
        if own in module._parameters:
            module._parameters[own] = nn.Parameter(tensor, tensor.is_floating_point())
        elif own in module._buffers:
            module._buffers[own] = tensor
        else:
            module.register_buffer(own, tensor)  # refuses names that the class has
    for place, values in attributes.items():
        module = model.get_submodule(place)
        for name, value in values.items():
            if name in _OF_MODULES or hasattr(type(module), name):
                raise ValueError(f"it sets {name} of {type(module).__name__}")
            setattr(module, name, value)


def _changed(model: nn.Module, fresh: nn.Module) -> dict[str, dict[str, Any]]:
    """Attributes in which a model differs from a new one, by module; plain values.

    Raises:
        ValueError: if it differs in more than that and in tensors.
    """
    made, new = (dict(one.named_modules(remove_duplicate=False)) for one in (model, fresh))
    if [(k, type(one)) for k, one in made.items()] != [(k, type(one)) for k, one in new.items()]:
        raise ValueError("config.yaml describes a model of other modules")
    found: dict[str, dict[str, Any]] = {}
    for place, module in made.items():
        if module._forward_hooks or module._forward_pre_hooks:
            raise ValueError(f"{place or 'the model'} has hooks, which a file cannot describe")
        before = _attributes(new[place])
        for name, value in _attributes(module).items():
            if name in before and _text(before[name]) == _text(value):
                continue
            if json.loads(json.dumps(value, default=str)) != value:
                raise ValueError(f"{name} of {place or 'the model'} is not that of config.yaml")
            found.setdefault(place, {})[name] = value
    return found


def _attributes(module: nn.Module) -> dict[str, Any]:
    """All but tensors and modules; lists of OmegaConf as plain ones."""
    left_out = {*_OF_MODULES, "__annotations__"}  # the latter for TorchScript, from the pickle
    own = {name: value for name, value in vars(module).items() if name not in left_out}
    return {
        name: OmegaConf.to_container(value) if OmegaConf.is_config(value) else value
        for name, value in own.items()
    }


def _text(value: Any) -> str | bytes:
    """The same for equal values."""
    if isinstance(value, torch.Tensor):
        return f"{value.dtype} {value.tolist()}"
    try:
        return json.dumps(value)
    except (TypeError, ValueError):
        return pickle.dumps(value)


@cache
def _say(message: str) -> None:
    log.warning(message)
