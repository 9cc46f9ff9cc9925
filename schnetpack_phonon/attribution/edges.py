"""A trained model as a function of its edges: their vectors, or a mask on them."""

from __future__ import annotations

import copy
import ctypes
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cache
from itertools import product
from typing import Any

import numpy as np
import torch
from schnetpack import properties as structure_keys
from schnetpack.model import NeuralNetworkPotential
from torch import nn

from schnetpack_phonon.attribution.paths import StraightPath
from schnetpack_phonon.common.errors import AttributionError
from schnetpack_phonon.models.cutoffs import cutoff_of
from schnetpack_phonon.models.predict import with_precise_offsets

#: Edges of one forward and backward pass: on a CPU larger ones are no faster.
_EDGES_PER_PASS = {"cpu": 4096, "cuda": 400_000}


class Edges:
    """A model as a function of edges, for any number of copies of a batch of graphs.

    Hooks replace the inputs of the representation; the model itself is not changed. Within
    :meth:`frozen` it is in evaluation mode and its parameters are frozen; both are restored.

    Args:
        model: SchNetPack model.
        paths: the graphs, all in one batch.
        output: output of the model, or one component of a tensor: ``stress[0,0]``.
        inputs: other inputs of the model, such as ``total_charge``: one value for all structures.

    Raises:
        AttributionError: for a model that hooks do not reach, or an output that it does not have.
    """

    def __init__(
        self,
        model: NeuralNetworkPotential,
        paths: Sequence[StraightPath],
        output: str,
        inputs: Mapping[str, torch.Tensor] | None = None,
    ):
        check_model(model)
        self._cutoff = cutoff_of(model)
        self.key, self.component = output_component(model, output)
        # Response modules (forces, stress) need derivatives with respect to positions and free
        # the graph: a shallow copy of the model, with the same weights, works without them.
        self.model = copy.copy(with_precise_offsets(model))
        self.model._modules = dict(self.model._modules)
        self.model.output_modules = nn.ModuleList(
            m for m in model.output_modules if not getattr(m, "required_derivatives", None)
        )
        self.model.required_derivatives, self.model.model_outputs = [], [self.key]
        self.reference = next(model.parameters())
        self.paths, self.inputs = list(paths), dict(inputs or {})
        self.n_edges = sum(len(path.idx_i) for path in paths)
        sizes = [len(path.ideal) for path in paths]
        starts = zip(paths, np.cumsum([0, *sizes[:-1]]), strict=True)
        pairs = [(path.idx_i + start, path.idx_j + start) for path, start in starts]
        self._i, self._j = map(self._integers, zip(*pairs, strict=True))
        self._numbers = self._integers([path.ideal.numbers for path in paths])
        self._n_atoms = self._integers([sizes])
        self._graph = torch.repeat_interleave(self._n_atoms)
        self._batches: dict[tuple[float, ...], dict[str, torch.Tensor]] = {}

    def _integers(self, arrays: Sequence[Any]) -> torch.Tensor:
        return torch.as_tensor(np.concatenate(arrays), dtype=torch.long).to(self.reference.device)

    def tensor(self, array: np.ndarray) -> torch.Tensor:
        """An array as a tensor with the data type and device of the model."""
        return torch.as_tensor(array, dtype=self.reference.dtype, device=self.reference.device)

    def vectors(self, u: float) -> torch.Tensor:
        """Edge vectors in Ang of all graphs at one point of their paths, shape=(1, n_edges, 3)."""
        return self.tensor(np.concatenate([path.vectors(u) for path in self.paths]))[None]

    @contextmanager
    def frozen(self) -> Iterator[Edges]:
        """Context: evaluation mode, parameters without gradients, gradients on; then restored."""
        training = [m for m in self.model.modules() if m.training]
        parameters = [p for p in self.model.parameters() if p.requires_grad]
        self.model.eval()
        for parameter in parameters:
            parameter.requires_grad_(False)
        try:
            with torch.inference_mode(False), torch.enable_grad():
                yield self
        finally:
            for parameter in parameters:
                parameter.requires_grad_(True)
            for module in training:
                module.training = True

    def copies_per_pass(self, edges_per_pass: int | None = None) -> int:
        """Number of copies of the graphs in one pass, at least one."""
        limit = edges_per_pass or default_edges_per_pass(self.reference.device)
        return max(limit // max(self.n_edges, 1), 1)

    def displaced(self, vectors: torch.Tensor) -> torch.Tensor:
        """Property by edge vectors, shape=(n_copies, n_edges, 3) -> (n_copies, n_graphs)."""
        rows = vectors.reshape(-1, 3)
        # As in SchNetPack's own neighbour list; other edges contribute nothing.
        near = (rows.detach().norm(dim=1) < self._cutoff).nonzero()[:, 0]

        def replace(_module: nn.Module, arguments: tuple) -> None:
            arguments[0][structure_keys.Rij] = rows[near]

        with self.model.representation.register_forward_pre_hook(replace):
            return self._evaluate([1.0] * len(vectors), near)

    def masked(self, mask: torch.Tensor) -> torch.Tensor:
        """Property of the displaced crystals with a mask on their edges.

        The cutoff function is multiplied by the mask: mask 0 deletes an edge exactly. Other
        modules that share the cutoff function do not see the mask.

        Args:
            mask: between 0 and 1, shape=(n_copies, n_edges).

        Returns:
            Property, shape=(n_copies, n_graphs).

        Raises:
            AttributionError: for a representation without a cutoff function that a mask acts on.
        """
        representation = self.model.representation
        if not isinstance(getattr(representation, "cutoff_fn", None), nn.Module):
            raise AttributionError(
                f"{type(representation).__name__} has no module 'cutoff_fn' for a mask to act on: "
                "use displacement attribution"
            )
        vectors = self.vectors(1.0).expand(len(mask), -1, -1).reshape(-1, 3)
        armed, fired = [False], [0]

        def arm(_module: nn.Module, arguments: tuple) -> None:
            armed[0] = True
            arguments[0][structure_keys.Rij] = vectors

        def disarm(*_: object) -> None:
            armed[0] = False

        def multiply(_module: nn.Module, _arguments: tuple, cut: torch.Tensor) -> torch.Tensor:
            if not armed[0]:
                return cut
            fired[0] += 1
            return cut * mask.reshape(-1, *[1] * (cut.ndim - 1))

        with (
            representation.register_forward_pre_hook(arm),
            representation.register_forward_hook(disarm),
            representation.cutoff_fn.register_forward_hook(multiply),
        ):
            result = self._evaluate([1.0] * len(mask))
        if fired[0] != 1:
            raise AttributionError(
                f"the cutoff function of {type(representation).__name__} was called {fired[0]} "
                "times, expected once: a mask on it is not a mask on edges"
            )
        return result

    def values(self, *points: float) -> np.ndarray:
        """Predictions at points of the paths, shape=(n_points, n_graphs).

        Positions and cells change too: differs from :meth:`displaced` where a term of the model
        reads positions.
        """
        with torch.no_grad():
            return self._evaluate(points).double().cpu().numpy()

    def _evaluate(self, points: Sequence[float], kept: torch.Tensor | None = None) -> torch.Tensor:
        copies, batch = len(points), dict(self._batch(tuple(points)))
        if kept is not None:
            for key in (structure_keys.idx_i, structure_keys.idx_j, structure_keys.offsets):
                batch[key] = batch[key][kept]
        try:
            result = self.model(batch)[self.key]
        except KeyError as error:
            raise AttributionError(
                f"the model needs the input {error}: give it in 'inputs', or attribute another "
                "output"
            ) from error
        shape = (copies, len(self.paths))
        result = result.reshape(*shape, *result.shape[1:])
        try:
            result = result[(..., *self.component)]
        except IndexError:
            result = result[..., None]
        if result.numel() != copies * len(self.paths):
            raise AttributionError(
                f"{self.key!r} has shape {tuple(result.shape[2:])} for a structure: choose one "
                f"component, such as {self.key}[{','.join('0' * (result.ndim - 2))}]"
            )
        return result.reshape(shape)

    def _batch(self, points: tuple[float, ...]) -> dict[str, torch.Tensor]:
        """A batch as SchNetPack's loader makes it, of copies at these points of the paths."""
        if points not in self._batches:
            copies, n_atoms, n_graphs = len(points), len(self._numbers), len(self.paths)
            copy_number = torch.arange(copies, device=self._i.device)[:, None]
            shift, graph = n_atoms * copy_number, n_graphs * copy_number
            positions, cells, offsets = [], [], []
            for u, path in product(points, self.paths):
                ideal, displaced = path.ideal, path.displaced
                cells.append(ideal.cell.array + u * (displaced.cell.array - ideal.cell.array))
                positions.append(ideal.positions + u * (displaced.positions - ideal.positions))
                offsets.append(path.image @ cells[-1])
            self._batches[points] = {
                structure_keys.Z: self._numbers.repeat(copies),
                structure_keys.n_atoms: self._n_atoms.repeat(copies),
                structure_keys.idx_m: (self._graph + graph).reshape(-1),
                structure_keys.idx_i: (self._i + shift).reshape(-1),
                structure_keys.idx_j: (self._j + shift).reshape(-1),
                structure_keys.pbc: self._i.new_ones(3 * copies * n_graphs, dtype=torch.bool),
                structure_keys.R: self.tensor(np.concatenate(positions)),
                structure_keys.cell: self.tensor(np.stack(cells)),
                structure_keys.offsets: self.tensor(np.concatenate(offsets)),
                **{
                    key: value[None].repeat(copies * n_graphs, *[1] * value.ndim)
                    for key, value in self.inputs.items()
                },
            }
        return self._batches[points]


@cache
def default_edges_per_pass(device: torch.device) -> int:
    """Largest number of edges, and so the memory, of one forward and backward pass."""
    # glibc returns freed memory to the system and each pass requests it again, which takes a third
    # of the time and more. Arrays of up to 32 MiB (its limit), and 256 MiB of freed ones, stay.
    if device.type == "cpu" and sys.platform == "linux":
        libc, trim_threshold, mmap_threshold = ctypes.CDLL(None), -1, -3  # malloc.h
        if hasattr(libc, "mallopt"):
            libc.mallopt(mmap_threshold, 2**25)
            libc.mallopt(trim_threshold, 2**28)
    return _EDGES_PER_PASS.get(device.type, _EDGES_PER_PASS["cpu"])


def check_model(model: nn.Module) -> None:
    """Checks that hooks reach the parts of a model.

    Raises:
        AttributionError: for a scripted or compiled model, or one that is not of SchNetPack.
    """
    parts = [model, *(model.children() if isinstance(model, nn.Module) else [])]
    for part in parts:
        if isinstance(part, torch.jit.ScriptModule | torch.jit.ScriptFunction):
            raise AttributionError(
                "the model is scripted, and attribution cannot use it: give the model before "
                "torch.jit.script, such as 'best_model' of its run"
            )
        compiled = getattr(part, "_compiled_call_impl", None) is not None
        if hasattr(part, "_orig_mod") or compiled:
            raise AttributionError(
                "the model is compiled, and compiled code does not call the hooks of attribution: "
                "give the model before torch.compile (model._orig_mod)"
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
        AttributionError: if the model has no such output, or computes it as a derivative.
    """
    key, _, indices = output.partition("[")
    try:
        component = tuple(int(k) for k in indices.rstrip("]").split(",")) if indices else ()
    except ValueError as error:
        raise AttributionError(f"no component {output!r}; write stress[0,0]") from error
    for module in model.output_modules:
        derived = getattr(module, "required_derivatives", None)
        if derived and key in getattr(module, "model_outputs", ()):
            raise AttributionError(
                f"{key!r} is a derivative of another output ({type(module).__name__}): attribute "
                "that output"
            )
    if key not in (model.model_outputs or []):
        have = ", ".join(sorted(model.model_outputs or [])) or "none"
        raise AttributionError(f"the model has no output {key!r}; it has {have}")
    return key, component
