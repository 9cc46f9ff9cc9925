"""Which models, and which of their outputs, bonds can be attributed of."""

from __future__ import annotations

import torch
from schnetpack.model import NeuralNetworkPotential
from torch import nn

from schnetpack_phonon.common.errors import AttributionError

#: Modules of the host whose part of an output does not come from edges within the cutoff.
_BEYOND_EDGES = ("EnergyCoulomb", "EnergyEwald", "DipoleMoment", "Polarizability")


#: Modules of the host that read edges past the representation: a mask does not reach them.
_BESIDE_MASK = ("ZBLRepulsionEnergy",)


def check_model(model: nn.Module) -> None:
    """Refuses models that hooks do not reach.

    Raises:
        AttributionError: for a scripted or compiled model, or one that is not the host's.
    """
    parts = [model, *(model.children() if isinstance(model, nn.Module) else [])]
    for part in parts:
        if isinstance(part, torch.jit.ScriptModule | torch.jit.ScriptFunction):
            raise AttributionError(
                "the model is scripted, and attribution cannot reach into it: give the model "
                "before torch.jit.script, such as 'best_model' of its run"
            )
        compiled = getattr(part, "_compiled_call_impl", None) is not None
        if hasattr(part, "_orig_mod") or compiled:
            raise AttributionError(
                "the model is compiled, and compiled code does not call what attribution puts "
                "into it: give the model before torch.compile (model._orig_mod)"
            )
    for name in ("representation", "output_modules", "model_outputs"):
        if not hasattr(model, name):
            raise AttributionError(
                f"{type(model).__name__} has no {name!r}; expected a SchNetPack "
                "NeuralNetworkPotential"
            )


def output_component(model: NeuralNetworkPotential, output: str) -> tuple[str, tuple[int, ...]]:
    """``stress[0,0]`` -> ``stress`` and ``(0, 0)``.

    Raises:
        AttributionError: if the model has no such output, or gives it as a derivative.
    """
    key, _, indices = output.partition("[")
    try:
        component = tuple(int(k) for k in indices.rstrip("]").split(",")) if indices else ()
    except ValueError as error:
        raise AttributionError(f"no component {output!r}; write stress[0,0]") from error
    for module in model.output_modules:
        if key in getattr(module, "model_outputs", ()) and getattr(
            module, "required_derivatives", None
        ):
            raise AttributionError(
                f"{key!r} is a derivative of another output ({type(module).__name__}): attribute "
                "that one"
            )
    if key not in (model.model_outputs or []):
        have = ", ".join(sorted(model.model_outputs or [])) or "none"
        raise AttributionError(f"the model has no output {key!r}; it has {have}")
    return key, component


def unseen_terms(model: nn.Module, mask: bool = False) -> list[str]:
    """Names of modules whose part of the outputs attribution does not see.

    Args:
        model: of the host.
        mask: for mask attribution, which sees less.
    """
    names = _BEYOND_EDGES + (_BESIDE_MASK if mask else ())
    return sorted({type(m).__name__ for m in model.modules() if type(m).__name__ in names})
