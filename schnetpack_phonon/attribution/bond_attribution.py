"""Which bonds carry a predicted property, by Captum's methods.

Displacement attribution (the primary one) splits the change of a prediction between the ideal
and the displaced crystal, f(R) - f(R0), over bonds by integrating the gradient with respect to
each edge vector along the straight path between the two (integrated gradients: Sundararajan,
Taly, Yan, ICML 2017). Mask attribution splits f(all bonds) - f(no bonds), along a mask on the
cutoff function; its start is far from all training data.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from schnetpack.model import NeuralNetworkPotential

from schnetpack_phonon.attribution.edges import Edges, default_edges_per_pass
from schnetpack_phonon.attribution.methods import check_method, integrate_in_parts, split_over_bonds
from schnetpack_phonon.attribution.model_checks import check_model
from schnetpack_phonon.attribution.paths import StraightPath, straight_path
from schnetpack_phonon.attribution.results import BondAttribution
from schnetpack_phonon.common.errors import AttributionError
from schnetpack_phonon.data.reading import Structure
from schnetpack_phonon.models.cutoffs import cutoff_of

#: Methods that sum over points of a path.
_WITH_NODES = ("IntegratedGradients", "GradientShap")


def attribute(
    model: NeuralNetworkPotential,
    structures: Sequence[Structure],
    output: str,
    kind: str = "displacement",
    method: str = "IntegratedGradients",
    n_steps: int = 8,
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
        method: one of :data:`.METHODS`.
        n_steps: nodes of the Gauss-Legendre quadrature, draws of ``GradientShap``.
        tolerance: the path is cut in parts where the bonds miss more than this share of the change
            (or of a tenth of the mean change of the structures, where that is larger).
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
    if n_steps < 1:
        raise AttributionError(f"n_steps={n_steps}; expected at least one node")
    even = even and kind == "displacement" and method in ("IntegratedGradients", "FeatureAblation")
    cutoff = cutoff_of(model)
    limit = edges_per_pass or default_edges_per_pass(next(model.parameters()).device)
    split = _Split(model, output, kind, method, n_steps, unit, inputs, limit)
    exact = method != "IntegratedGradients"
    found: list[BondAttribution] = []
    for group in _groups(structures, cutoff, kind, even, limit // n_steps):
        found += split([s for s, _ in group], [path for _, path in group], even)
        if exact:
            progress(len(group))
    if exact:
        return found
    scale = float(np.mean([abs(a.change) for a in found])) if found else 0.0
    rounding = 4 * torch.finfo(next(model.parameters()).dtype).eps
    for k, one in enumerate(found):
        allowed = tolerance * max(abs(one.change), 0.1 * scale)
        allowed = max(allowed, rounding * max(abs(one.start), abs(one.value)))
        if abs(one.residual) > allowed:
            found[k] = split.refined(one, allowed)
        progress(1)
    return found


def _groups(
    structures: Sequence[Structure], cutoff: float, kind: str, even: bool, limit: int
) -> Iterator[list[tuple[Structure, StraightPath]]]:
    """Structures with their paths, side by side as long as all nodes fit into one pass."""
    group: list[tuple[Structure, StraightPath]] = []
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
    n_steps: int
    unit: str
    inputs: Mapping[str, torch.Tensor] | None
    limit: int

    def __call__(
        self, structures: Sequence[Structure], paths: Sequence[StraightPath], even: bool
    ) -> list[BondAttribution]:
        edges = Edges(self.model, paths, self.output, self.inputs)
        how = self.method, self.n_steps, edges.copies_per_pass(self.limit)
        with edges.frozen():
            function, first, last = self._path(edges)
            total = split_over_bonds(edges, function, first, last, *how)
            if even:
                back = split_over_bonds(edges, function, first, 2 * first - last, *how)
                half = [(a + b) / 2 for a, b in zip(total, back, strict=True)]
            if self.kind == "mask":
                with torch.no_grad():
                    ends = function(torch.cat([first, last])).double().cpu().numpy()
            else:
                ends = edges.values(0.0, 1.0)
        return [
            BondAttribution(
                output=self.output,
                unit=self.unit,
                method=self.method,
                path=path,
                attribution=total[k],
                even=half[k] if even else None,
                start=float(ends[0, k]),
                value=float(ends[1, k]),
                n_steps=self.n_steps if self.method in _WITH_NODES else 0,
                additive=self.method in (*_WITH_NODES, "Shapley"),
                index=structure.index,
                structure=structure.name or path.ideal.get_chemical_formula(),
            )
            for k, (structure, path) in enumerate(zip(structures, paths, strict=True))
        ]

    def _path(
        self, edges: Edges
    ) -> tuple[Callable[[torch.Tensor], torch.Tensor], torch.Tensor, torch.Tensor]:
        """The model by edges, and both ends of its argument."""
        if self.kind == "mask":
            none, full = (edges.tensor(np.full((1, edges.n_edges), x)) for x in (0.0, 1.0))
            return edges.masked, none, full
        return edges.displaced, edges.vectors(0.0), edges.vectors(1.0)

    def refined(self, found: BondAttribution, allowed: float) -> BondAttribution:
        """The same with a path in parts, whose bonds miss no more than is allowed."""
        edges = Edges(self.model, [found.path], self.output, self.inputs)
        how = allowed, self.n_steps, edges.copies_per_pass(self.limit)
        even = found.even
        with edges.frozen():
            function, first, last = self._path(edges)
            total, n_steps = integrate_in_parts(edges, function, first, last, *how)
            if even is not None:
                back, _ = integrate_in_parts(edges, function, first, 2 * first - last, *how)
                even = (total + back) / 2
        return replace(found, attribution=total, even=even, n_steps=n_steps)
