"""Training that starts from the weights of a trained model (fine-tuning, transfer learning)."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path

import torch
from pytorch_lightning import Callback, LightningModule, Trainer
from schnetpack.model import NeuralNetworkPotential
from torch import nn

from schnetpack_phonon.common import properties
from schnetpack_phonon.common.errors import TrainingError, check_choice
from schnetpack_phonon.common.files import Trust
from schnetpack_phonon.models.cutoffs import cutoff_of
from schnetpack_phonon.models.hamiltonian.head import HamiltonianEdges
from schnetpack_phonon.models.trained.weights import load_trained

log = logging.getLogger(__name__)
PARTS = ("representation", "heads")
# Buffers of heads, set again from the new training set.
_OF_THE_DATA = ("offset", "scale", "slope", "nearest")


class StartFrom(Callback):
    """Starts training from a trained model: :func:`start_from`. A new run, not a continued one.

    Args:
        path: run folder, or its ``best_model``.
        parts: ``representation``, ``heads`` (output modules) or both.
        frozen: those of them that are not trained any further.
        folder: of a relative path.
        trust: opens the pickle of a run without ``best_model.npz``, which can run any program.
    """

    def __init__(
        self,
        path: str,
        parts: Sequence[str] = PARTS,
        frozen: Sequence[str] = (),
        folder: str = ".",
        trust: bool = False,
    ):
        self.path, self.parts, self.frozen = Path(folder) / path, tuple(parts), tuple(frozen)
        _check_parts(self.parts, self.frozen)
        self.trust = Trust(everything=trust)
        self._started = False

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        # Before the task takes offsets and scales from the training set.
        if stage == "fit" and not self._started:
            start_from(
                pl_module.model, load_trained(self.path, self.trust), self.parts, self.frozen
            )
            log.info("training starts from %s of %s", " and ".join(self.parts), self.path)
            self._started = True


def start_from(
    model: NeuralNetworkPotential,
    trained: NeuralNetworkPotential,
    parts: Sequence[str] = PARTS,
    frozen: Sequence[str] = (),
) -> None:
    """Gives a model, before its first fit, the weights of a trained one.

    Heads go by class and outputs, of which ``eigenvalues`` need no weights and may be those of one
    model alone; others start from random weights, which is logged. Offsets and
    scales are those of the new training set. Only where it does not determine the offsets of
    elements, as for elements that it does not have, are those of the trained heads kept; these
    elements count as trained, too.

    Args:
        model: changed in place.
        trained: of the same representation, with the same cutoff.
        parts: of :data:`PARTS`.
        frozen: parts that keep their weights in training.

    Raises:
        TrainingError: if the models do not fit together, or nothing would be trained.
    """
    _check_parts(parts, frozen)
    pairs = []
    if "representation" in parts:
        mine, theirs = cutoff_of(model), cutoff_of(trained)
        if mine != theirs:
            raise TrainingError(
                f"the trained model has a cutoff of {theirs:g} Ang, the new one of {mine:g}: set "
                f"globals.cutoff={theirs:g}"
            )
        pairs.append(("representation", model.representation, trained.representation))
    if "heads" in parts:
        pairs += _heads(model, trained)
    for name, own, other in pairs:
        if isinstance(own, HamiltonianEdges) and isinstance(other, HamiltonianEdges):
            own.take_elements(other.hamiltonian.index)
        _check_same(name, own, other)
    for name, own, other in pairs:
        own.load_state_dict(other.state_dict())
        own.requires_grad_((name if name in PARTS else "heads") not in frozen)
    seen = getattr(trained, "trained_elements", None)
    if "heads" in parts and seen is not None and hasattr(model, "trained_elements"):
        model.trained_elements |= seen
    if not any(parameter.requires_grad for parameter in model.parameters()):
        raise TrainingError(f"all parts are frozen ({', '.join(frozen)}): leave one to be trained")


def _check_parts(parts: Sequence[str], frozen: Sequence[str]) -> None:
    for one in parts:
        check_choice(PARTS, parts=one)
    for one in frozen:
        check_choice(parts, frozen=one)
    if not parts:
        raise ValueError(f"parts is empty; expected one or both of {', '.join(PARTS)}")


def _heads(
    model: NeuralNetworkPotential, trained: NeuralNetworkPotential
) -> list[tuple[str, nn.Module, nn.Module]]:
    """Output modules with weights, each with the trained one of the same class and outputs."""

    def described(module: nn.Module) -> str:
        outputs = [key for key in getattr(module, "model_outputs", ()) if key != properties.levels]
        return f"{type(module).__name__} for {', '.join(outputs)}"

    def with_weights(one: NeuralNetworkPotential) -> dict[str, nn.Module]:
        return {described(m): m for m in one.output_modules if any(True for _ in m.parameters())}

    own, others = with_weights(model), with_weights(trained)
    shared = [name for name in own if name in others]
    if not shared:
        raise TrainingError(
            f"the trained model has {'; '.join(others) or 'no heads'}, the new one "
            f"{'; '.join(own)}: no head to start from. Set parts=[representation]"
        )
    if len(shared) < len(own):
        log.info("random weights: %s", "; ".join(name for name in own if name not in others))
    return [(name, own[name], others[name]) for name in shared]


def _check_same(name: str, own: nn.Module, other: nn.Module) -> None:
    """Raises TrainingError unless one module can take the weights of another and mean the same."""
    mine, theirs = ({k: type(m).__name__ for k, m in one.named_modules()} for one in (own, other))
    differences = [
        f"{key or name} is {mine.get(key)}, there {theirs.get(key)}"
        for key in sorted(mine.keys() | theirs.keys())
        if mine.get(key) != theirs.get(key)
    ]
    weights, trained, buffers = own.state_dict(), other.state_dict(), dict(own.named_buffers())
    for key in sorted(weights.keys() & trained.keys()):
        here, there = weights[key], trained[key].to(weights[key])
        if here.shape != there.shape:
            shapes = tuple(here.shape), tuple(there.shape)
            differences.append(f"{key} has shape {shapes[0]}, there {shapes[1]}")
        elif key in buffers and not (key.endswith(_OF_THE_DATA) or torch.allclose(here, there)):
            differences.append(f"{key} has other values")
    if differences:
        raise TrainingError(
            f"{name} of the trained model is another one ({'; '.join(differences[:3])}): set the "
            "options of the new model (model.representation, heads) to those of the trained one"
        )
