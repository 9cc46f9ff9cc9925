"""Which bonds carry a predicted property, by Captum's methods.

Displacement attribution (the primary one) splits the change of a prediction between the ideal
and the displaced crystal, f(R) - f(R0), over bonds by integrating the gradient with respect to
each edge vector along the straight path between the two (integrated gradients: Sundararajan,
Taly, Yan, ICML 2017). Mask attribution splits f(all bonds) - f(no bonds), along a mask on the
cutoff function; its start is far from all training data.
"""

from __future__ import annotations

import copy
import math
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations

import numpy as np
import torch
from ase import Atoms
from captum.attr import FeatureAblation, GradientShap, IntegratedGradients, Saliency
from schnetpack.model import NeuralNetworkPotential

from schnetpack_phonon.bond_attribution import BondAttribution
from schnetpack_phonon.edges import AttributionError, Edges, check_model, cutoff_of
from schnetpack_phonon.paths import Path, straight_path

#: Edges of one forward and backward pass: on a CPU as many as stay in its caches.
EDGES_PER_PASS = {"cpu": 4096, "cuda": 400_000}
#: Nodes are doubled at most so often.
MAX_DOUBLINGS = 3
METHODS = ("IntegratedGradients", "GradientShap", "FeatureAblation", "Saliency", "Shapley")

_NO_RULES = (
    "its rules replace those of ReLU-like modules, which these models have none of: it would "
    "be the plain gradient under another name; use IntegratedGradients"
)
_PER_BOND = (
    "it fits hundreds of bonds to a few random subsets, which gives noise; use Shapley, exact "
    "over bond types"
)
REFUSED = {
    "DeepLift": _NO_RULES,
    "DeepLiftShap": _NO_RULES,
    "GuidedBackprop": _NO_RULES,
    "Deconvolution": _NO_RULES,
    "LRP": _NO_RULES,
    "KernelShap": _PER_BOND,
    "Lime": _PER_BOND,
    "ShapleyValueSampling": _PER_BOND,
    "InputXGradient": "its bonds do not add up to the change; use IntegratedGradients",
}


@dataclass(frozen=True)
class Structure:
    """A displaced crystal with its ideal one.

    Attributes:
        ideal: reference crystal; None if it is not known (masks need none).
        displaced: same atoms in the same order, not wrapped back into the cell.
        index: in its database.
        name: of the crystal.
    """

    ideal: Atoms | None
    displaced: Atoms
    index: int = 0
    name: str = ""


def attribute(
    model: NeuralNetworkPotential,
    structures: Sequence[Structure],
    output: str,
    kind: str = "displacement",
    method: str = "IntegratedGradients",
    n_steps: int = 16,
    tolerance: float = 0.01,
    even: bool = True,
    unit: str = "",
    inputs: Mapping[str, torch.Tensor] | None = None,
    edges_per_pass: int | None = None,
    progress: Callable[[int], object] = lambda n: None,
) -> list[BondAttribution]:
    """Splits f(displaced) - f(start) over bonds.

    Args:
        model: of the host, with a representation that reads edge vectors; left as it was found.
        structures: displaced crystals.
        output: scalar output of the model, or a component of a tensor: ``stress[0,0]``.
        kind: ``displacement`` from the ideal crystal, or ``mask`` from no bonds at all.
        method: one of :data:`METHODS`. ``Saliency`` is the length of the gradient at the
            displaced crystal (per Ang), or the gradient by the mask, and adds up to nothing;
            ``FeatureAblation`` puts back one bond at a time; ``Shapley`` gives each bond type its
            exact Shapley value, in equal parts to its bonds.
        n_steps: nodes of the Gauss-Legendre quadrature, draws of ``GradientShap``.
        tolerance: nodes are doubled where the bonds miss more than this share of the change (or
            of the mean change of the structures, where that is larger).
        even: whether the even part of each bond is found too, which doubles the time.
        unit: of the output.
        inputs: what else the model reads, such as ``total_charge``.
        edges_per_pass: bound of the memory; chosen by the device by default.
        progress: called with the number of structures that are finished.

    Raises:
        AttributionError: for models, outputs and methods that cannot be attributed.
        ValueError: if ideal and displaced crystal do not belong together.
    """
    check_method(kind, method)
    check_model(model)
    even = even and kind == "displacement" and method in ("IntegratedGradients", "FeatureAblation")
    cutoff = cutoff_of(model)
    limit = edges_per_pass or EDGES_PER_PASS.get(next(model.parameters()).device.type, 4096)
    split = _Split(model, output, kind, method, unit, inputs, limit)
    found: list[BondAttribution] = []
    for group in _groups(structures, cutoff, kind, even, limit // n_steps):
        found += split([s for s, _ in group], [path for _, path in group], n_steps, even)
        progress(len(group))
    if method == "IntegratedGradients":
        scale = np.mean([abs(a.change) for a in found]) if found else 0.0
        for k, (structure, one) in enumerate(zip(structures, found, strict=True)):
            allowed = tolerance * max(abs(one.change), 0.1 * scale)
            while abs(one.residual) > allowed and one.n_steps < n_steps << MAX_DOUBLINGS:
                (one,) = split([structure], [one.path], 2 * one.n_steps, False)
                one = replace(one, even=found[k].even)
            found[k] = one
    return found


def check_method(kind: str, method: str) -> None:
    """Raises AttributionError, with the reason, for a kind or method that there is not."""
    if kind not in ("displacement", "mask"):
        raise AttributionError(f"kind {kind!r}; expected displacement or mask")
    if method in REFUSED:
        raise AttributionError(f"{method} is refused: {REFUSED[method]}")
    if method not in METHODS:
        raise AttributionError(f"no method {method!r}; there are {', '.join(METHODS)}")


def _groups(
    structures: Sequence[Structure], cutoff: float, kind: str, even: bool, limit: int
) -> Iterator[list[tuple[Structure, Path]]]:
    """Structures with their paths, side by side as long as all nodes fit into one pass."""
    group: list[tuple[Structure, Path]] = []
    size = 0
    for structure in structures:
        ideal = structure.ideal if kind == "displacement" else structure.displaced
        if ideal is None:
            raise AttributionError(
                f"structure {structure.index} has no ideal positions: give the undisplaced "
                "crystal, atom by atom (--ideal FILE, or 'ideal_positions' and 'ideal_cell' in "
                "each row's data), or use kind=mask"
            )
        path = straight_path(ideal, structure.displaced, cutoff, mirrored=even)
        if group and size + len(path.idx_i) > limit:
            yield group
            group, size = [], 0
        group.append((structure, path))
        size += len(path.idx_i)
    if group:
        yield group


@dataclass(frozen=True)
class _Split:
    """Attributes groups of structures, see :func:`attribute`."""

    model: NeuralNetworkPotential
    output: str
    kind: str
    method: str
    unit: str
    inputs: Mapping[str, torch.Tensor] | None
    limit: int

    def __call__(
        self, structures: Sequence[Structure], paths: Sequence[Path], n_steps: int, even: bool
    ) -> list[BondAttribution]:
        edges = Edges(self.model, paths, self.output, self.inputs)
        with edges.frozen():
            if self.kind == "mask":
                none, full = (edges.tensor(np.full((1, edges.n_edges), x)) for x in (0.0, 1.0))
                with torch.no_grad():
                    start = edges.masked(none)[0].double().cpu().numpy()
                    value = edges.masked(full)[0].double().cpu().numpy()
                total = self._bonds(edges, edges.masked, none, full, n_steps)
            else:
                start, value = edges.value(0.0), edges.value(1.0)
                r0, r1 = edges.vectors(0.0), edges.vectors(1.0)
                total = self._bonds(edges, edges.displaced, r0, r1, n_steps)
                if even:
                    back = self._bonds(edges, edges.displaced, r0, 2 * r0 - r1, n_steps)
                    half = [(a + b) / 2 for a, b in zip(total, back, strict=True)]
        return [
            BondAttribution(
                output=self.output,
                unit=self.unit,
                method=self.method,
                path=path,
                attribution=total[k],
                even=half[k] if even else None,
                start=float(start[k]),
                value=float(value[k]),
                n_steps=n_steps if self.method in ("IntegratedGradients", "GradientShap") else 0,
                additive=self.method in ("IntegratedGradients", "GradientShap", "Shapley"),
                index=structure.index,
                structure=structure.name or path.ideal.get_chemical_formula(),
            )
            for k, (structure, path) in enumerate(zip(structures, paths, strict=True))
        ]

    def _bonds(
        self,
        edges: Edges,
        function: Callable[[torch.Tensor], torch.Tensor],
        start: torch.Tensor,
        end: torch.Tensor,
        n_steps: int,
    ) -> list[np.ndarray]:
        """Attribution of the bonds of each graph."""
        copies = max(self.limit // max(edges.n_edges, 1), 1)
        if edges.n_edges == 0:
            return [np.zeros(0) for _ in edges.paths]

        def total(x: torch.Tensor) -> torch.Tensor:
            # Graphs are disconnected: the gradient of the sum is that of each.
            return function(x).sum(dim=1)

        if self.method == "IntegratedGradients":
            values = IntegratedGradients(total).attribute(
                end,
                baselines=start,
                n_steps=n_steps,
                method="gausslegendre",
                internal_batch_size=copies,
            )
        elif self.method == "Saliency":
            values = Saliency(total).attribute(end.clone().requires_grad_(), abs=False)
            if values.ndim == 3:
                values = values.norm(dim=2)
        elif self.method == "GradientShap":
            values = _gradient_shap(total, start, end, n_steps)
        elif self.method == "FeatureAblation":
            values = _ablation(edges, total, start, end, copies)
        else:
            return _shapley(edges, function, start, end, copies)
        values = values[0].detach().double().cpu()
        per_edge = (values.sum(dim=1) if values.ndim == 2 else values).numpy()
        return _per_bond(edges, per_edge, halve=self.method == "FeatureAblation")


def _per_bond(edges: Edges, values: np.ndarray, halve: bool) -> list[np.ndarray]:
    """Sums both edges of each bond, or takes one of them where each holds the whole."""
    ends = np.cumsum([len(path.idx_i) for path in edges.paths])[:-1]
    pieces = zip(edges.paths, np.split(values, ends), strict=True)
    return [np.bincount(p.bond, piece) / (1 + halve) for p, piece in pieces]


def _gradient_shap(
    total: Callable, start: torch.Tensor, end: torch.Tensor, n_draws: int
) -> torch.Tensor:
    # Captum draws from the global streams of NumPy and PyTorch.
    state = np.random.get_state()  # noqa: NPY002
    try:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            np.random.seed(0)  # noqa: NPY002
            return GradientShap(total).attribute(
                end, baselines=start, n_samples=n_draws, stdevs=0.0
            )
    finally:
        np.random.set_state(state)  # noqa: NPY002


def _ablation(
    edges: Edges, total: Callable, start: torch.Tensor, end: torch.Tensor, copies: int
) -> torch.Tensor:
    """One bond of each graph at a time put back to the start; graphs do not disturb each other."""
    ends = np.cumsum([0] + [int(path.bond.max()) + 1 for path in edges.paths])
    bonds = np.concatenate([p.bond + k for p, k in zip(edges.paths, ends[:-1], strict=True)])
    groups = torch.as_tensor(bonds, device=end.device)
    mask = (groups[None, :, None] if end.ndim == 3 else groups[None]).expand_as(end)
    with torch.no_grad():
        values = FeatureAblation(total).attribute(
            end, baselines=start, feature_mask=mask, perturbations_per_eval=copies
        )
    # Every component of every edge of a bond holds the effect of the whole bond.
    return values[..., 0] if values.ndim == 3 else values


def _shapley(
    edges: Edges, function: Callable, start: torch.Tensor, end: torch.Tensor, copies: int
) -> list[np.ndarray]:
    """Exact Shapley values of the bond types from all of their subsets.

    The numbers of Captum's ShapleyValues, which runs through all n! orders of n types, from 2^n
    predictions.
    """
    types = [path.bond_types[path.bond] for path in edges.paths]
    names = sorted(set(np.concatenate(types)))
    n = len(names)
    if n > 12:
        raise AttributionError(f"{n} bond types have 2^{n} subsets: use IntegratedGradients")
    number = torch.as_tensor(
        np.searchsorted(names, np.concatenate(types)), dtype=torch.long, device=end.device
    )
    subsets = np.array([[k >> t & 1 for t in range(n)] for k in range(2**n)], dtype=bool)
    chosen = torch.as_tensor(subsets, device=end.device)[:, number]
    if end.ndim == 3:
        chosen = chosen[..., None]
    with torch.no_grad():
        values = torch.cat(
            [function(torch.where(part, end, start)) for part in chosen.split(copies)]
        )
    f = values.double().cpu().numpy()
    result = np.zeros((n, f.shape[1]))
    for t in range(n):
        others = [k for k in range(n) if k != t]
        for size in range(n):
            weight = math.factorial(size) * math.factorial(n - size - 1) / math.factorial(n)
            for subset in combinations(others, size):
                k = sum(1 << s for s in subset)
                result[t] += weight * (f[k | 1 << t] - f[k])
    parts = []
    for g, path in enumerate(edges.paths):
        which = np.searchsorted(names, path.bond_types)
        parts.append(result[which, g] / np.bincount(which, minlength=n)[which])
    return parts


def untrained(model: NeuralNetworkPotential, seed: int) -> NeuralNetworkPotential:
    """A copy of the model with fresh weights: the control for what training taught.

    Offsets and scales of the heads (buffers) are kept. A module that has parameters of its own and
    cannot reset them keeps them too, with a warning.
    """
    fresh = copy.deepcopy(model)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        for name, module in fresh.named_modules():
            if hasattr(module, "reset_parameters"):
                module.reset_parameters()
            elif next(module.parameters(recurse=False), None) is not None:
                warnings.warn(f"the untrained control keeps the trained {name}", stacklevel=2)
    return fresh
