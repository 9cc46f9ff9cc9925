"""Methods of Captum applied to edges, one number for each bond, and methods that are refused."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache
from itertools import combinations
from typing import NamedTuple

import numpy as np
import torch
from captum.attr import FeatureAblation, GradientShap, IntegratedGradients, Saliency

from schnetpack_phonon.attribution.edges import Edges
from schnetpack_phonon.common.errors import AttributionError

#: ``Saliency`` is the length of the gradient at the displaced crystal (per Ang), or the gradient
#: with respect to the mask, and does not add up to the change; ``FeatureAblation`` resets one bond
#: at a time; ``Shapley`` gives each bond type its exact Shapley value, divided equally among its
#: bonds.
METHODS = ("IntegratedGradients", "GradientShap", "FeatureAblation", "Saliency", "Shapley")
_NO_RULES = (
    "its rules replace the gradients of ReLU-like modules, and these models have none: it would "
    "be the plain gradient under another name; use IntegratedGradients"
)
_PER_BOND = (
    "it fits hundreds of bonds to a few random subsets, which gives noise; use Shapley, exact "
    "over bond types"
)
REFUSED = {
    **dict.fromkeys(("DeepLift", "DeepLiftShap", "GuidedBackprop", "Deconvolution"), _NO_RULES),
    "LRP": _NO_RULES,
    **dict.fromkeys(("KernelShap", "Lime", "ShapleyValueSampling"), _PER_BOND),
    "InputXGradient": "its bonds do not add up to the change; use IntegratedGradients",
}
_MAX_PARTS = 16  # of a path


def check_method(kind: str, method: str) -> None:
    """Raises AttributionError, with the reason, for an unknown kind or method."""
    if kind not in ("displacement", "mask"):
        raise AttributionError(f"kind {kind!r}; expected displacement or mask")
    if method in REFUSED:
        raise AttributionError(f"{method} is refused: {REFUSED[method]}")
    if method not in METHODS:
        raise AttributionError(f"no method {method!r}; there are {', '.join(METHODS)}")


@dataclass(frozen=True)
class Integrand:
    """A model as a function of edges, and both ends of the path of its argument.

    Attributes:
        edges: the graphs.
        function: ``displaced`` or ``masked`` of the edges.
        start: argument at the start of the path, shape=(1, n_edges, ...).
        end: argument at the end of the path, shape=(1, n_edges, ...).
    """

    edges: Edges
    function: Callable[[torch.Tensor], torch.Tensor]
    start: torch.Tensor
    end: torch.Tensor

    def opposite(self) -> Integrand:
        """Along the path in the opposite direction from the same start."""
        return replace(self, end=2 * self.start - self.end)

    def resolution(self) -> np.ndarray:
        """Smallest change of the property that is no rounding error, shape=(n_graphs,).

        Four times what the last digit of the edges at both ends changes, and of the value itself.
        """
        ends = torch.cat([self.start, self.end])
        generator = torch.Generator(ends.device).manual_seed(0)
        signs = torch.randint(0, 2, ends.shape, generator=generator, device=ends.device) * 2 - 1
        with torch.no_grad():
            values = self.function(ends)
            moved = self.function(ends * (1 + torch.finfo(ends.dtype).eps * signs))
        last_digit = torch.finfo(values.dtype).eps * values.abs()
        return 4 * ((moved - values).abs() + last_digit).amax(dim=0).double().cpu().numpy()

    def total(self, x: torch.Tensor) -> torch.Tensor:
        """Sum over the graphs; its gradient is that of each, as they are disconnected."""
        return self.function(x).sum(dim=1)


def split_over_bonds(f: Integrand, method: str, n_steps: int, copies: int) -> list[np.ndarray]:
    """Attribution of the bonds of each graph, shape=(n_bonds,) each.

    Args:
        f: the model along the path.
        method: one of :data:`METHODS`.
        n_steps: nodes of the quadrature, or samples.
        copies: of the graphs in one pass.
    """
    paths = f.edges.paths
    if f.edges.n_edges == 0:
        return [np.zeros(0) for _ in paths]
    if method == "Shapley":
        return _shapley(f, copies)
    if method == "IntegratedGradients":
        how = {"n_steps": n_steps, "method": "gausslegendre", "internal_batch_size": copies}
        values = IntegratedGradients(f.total).attribute(f.end, baselines=f.start, **how)
    elif method == "Saliency":
        values = Saliency(f.total).attribute(f.end.clone().requires_grad_(), abs=False)
        if values.ndim == 3:
            values = values.norm(dim=2)
    elif method == "GradientShap":
        values = _gradient_shap(f, n_steps, copies)
    else:
        values = _ablation(f, copies)
    values = values[0].detach().double().cpu()
    per_edge = (values.sum(dim=1) if values.ndim == 2 else values).numpy()
    ends = np.cumsum([len(path.idx_i) for path in paths])[:-1]
    # In an ablation both edges of a bond hold the effect of the whole bond.
    edges_counted = 2 if method == "FeatureAblation" else 1
    pieces = zip(paths, np.split(per_edge, ends), strict=True)
    return [np.bincount(path.bond, piece) / edges_counted for path, piece in pieces]


def integrate_in_parts(
    f: Integrand, allowed: float, n_steps: int, copies: int
) -> tuple[np.ndarray, int]:
    """Integrated gradients of one graph along a path that is divided into parts.

    The residual of a part follows from the predictions at its ends. The part with the largest
    residual is halved until their sum is at most ``allowed``: nodes become dense where the gradient
    changes fast, such as where an atom comes within the cutoff.

    Args:
        f: the model along the path, for one graph.
        allowed: residual, in the unit of the property.
        n_steps: nodes of each part.
        copies: of the graph in one pass.

    Returns:
        Attribution, shape=(n_bonds,), and the number of nodes.
    """

    def point(u: float) -> torch.Tensor:
        return f.start + u * (f.end - f.start)

    @cache
    def value(u: float) -> float:
        with torch.no_grad():
            return f.function(point(u)).double().item()

    def part(first: float, last: float) -> _Part:
        own = replace(f, start=point(first), end=point(last))
        (values,) = split_over_bonds(own, "IntegratedGradients", n_steps, copies)
        return _Part(first, last, values, abs(value(last) - value(first) - values.sum()))

    parts = [part(0.0, 0.5), part(0.5, 1.0)]
    while sum(p.residual for p in parts) > allowed and len(parts) < _MAX_PARTS:
        worst = max(parts, key=lambda p: p.residual)
        parts.remove(worst)
        middle = (worst.first + worst.last) / 2
        parts += [part(worst.first, middle), part(middle, worst.last)]
    return np.sum([p.values for p in parts], axis=0), n_steps * len(parts)


class _Part(NamedTuple):
    """A part of a path: its ends, the attribution of each bond, the size of the residual."""

    first: float
    last: float
    values: np.ndarray
    residual: float


def _gradient_shap(f: Integrand, n_draws: int, copies: int) -> torch.Tensor:
    # Captum uses the global random generators of NumPy and PyTorch.
    state = np.random.get_state()  # noqa: NPY002
    try:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            np.random.seed(0)  # noqa: NPY002
            method, total = GradientShap(f.total), torch.zeros_like(f.end)
            for first in range(0, n_draws, copies):
                n = min(copies, n_draws - first)
                values = method.attribute(f.end, baselines=f.start, n_samples=n, stdevs=0.0)
                total += n * values
            return total / n_draws
    finally:
        np.random.set_state(state)  # noqa: NPY002


def _ablation(f: Integrand, copies: int) -> torch.Tensor:
    """One bond of each graph at a time reset to the start; graphs are independent."""
    paths, end = f.edges.paths, f.end
    firsts = np.cumsum([0] + [int(path.bond.max()) + 1 for path in paths[:-1]])
    bonds = np.concatenate([path.bond + k for path, k in zip(paths, firsts, strict=True)])
    groups = torch.as_tensor(bonds, device=end.device)
    mask = (groups[None, :, None] if end.ndim == 3 else groups[None]).expand_as(end)
    how = {"feature_mask": mask, "perturbations_per_eval": copies}
    with torch.no_grad():
        values = FeatureAblation(f.total).attribute(end, baselines=f.start, **how)
    # Each component of each edge of a bond holds the effect of the whole bond.
    return values[..., 0] if values.ndim == 3 else values


def _shapley(f: Integrand, copies: int) -> list[np.ndarray]:
    """Exact Shapley values of the bond types from all of their subsets.

    The same numbers as ShapleyValues of Captum, which evaluates all n! orders of n types, from 2^n
    predictions.
    """
    paths, end = f.edges.paths, f.end
    types = [path.bond_types[path.bond] for path in paths]
    names = sorted(set(np.concatenate(types)))
    n = len(names)
    if n > 12:
        raise AttributionError(f"{n} bond types have 2^{n} subsets: use IntegratedGradients")
    subsets = np.array([[k >> t & 1 for t in range(n)] for k in range(2**n)], dtype=bool)
    chosen = subsets[:, np.searchsorted(names, np.concatenate(types))]
    parts = torch.as_tensor(chosen, device=end.device).split(copies)
    shape = (-1, f.edges.n_edges, *[1] * (end.ndim - 2))
    with torch.no_grad():
        found = [f.function(torch.where(part.reshape(shape), end, f.start)) for part in parts]
    values = torch.cat(found).double().cpu().numpy()
    result = np.zeros((n, len(paths)))
    for t in range(n):
        others = [k for k in range(n) if k != t]
        for size in range(n):
            weight = math.factorial(size) * math.factorial(n - size - 1) / math.factorial(n)
            for subset in combinations(others, size):
                k = sum(1 << s for s in subset)
                result[t] += weight * (values[k | 1 << t] - values[k])
    which = [np.searchsorted(names, path.bond_types) for path in paths]
    return [result[k, g] / np.bincount(k, minlength=n)[k] for g, k in enumerate(which)]
