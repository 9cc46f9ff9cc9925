"""Which bonds carry a predicted property, by Captum's methods.

Displacement attribution (the primary one) splits the change of a prediction between the ideal
and the displaced crystal, f(R) - f(R0), over bonds by integrating the gradient with respect to
each edge vector along the straight path between the two (integrated gradients: Sundararajan,
Taly, Yan, ICML 2017). Mask attribution splits f(all bonds) - f(no bonds), along a mask on the
cutoff function; its start is far from all training data.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from schnetpack.model import NeuralNetworkPotential

from schnetpack_phonon.attributable import AttributionError, check_model
from schnetpack_phonon.bond_attribution import BondAttribution
from schnetpack_phonon.bond_methods import check_method, split_over_bonds
from schnetpack_phonon.cutoffs import cutoff_of
from schnetpack_phonon.edges import Edges, default_edges_per_pass
from schnetpack_phonon.paths import Path, straight_path
from schnetpack_phonon.structure_pairs import Structure

#: Nodes are doubled at most so often.
MAX_DOUBLINGS = 4


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
        method: one of :data:`schnetpack_phonon.bond_methods.METHODS`.
        n_steps: nodes of the Gauss-Legendre quadrature, draws of ``GradientShap``.
        tolerance: nodes are doubled where the bonds miss more than this share of the change (or
            of a tenth of the mean change of the structures, where that is larger).
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
    split = _Split(model, output, kind, method, unit, inputs, limit)
    found: list[BondAttribution] = []
    for group in _groups(structures, cutoff, kind, even, limit // n_steps):
        found += split([s for s, _ in group], [path for _, path in group], n_steps, even)
        progress(len(group))
    if method == "IntegratedGradients":
        scale = np.mean([abs(a.change) for a in found]) if found else 0.0
        rounding = 4 * torch.finfo(next(model.parameters()).dtype).eps
        for k, (structure, one) in enumerate(zip(structures, found, strict=True)):
            allowed = tolerance * max(abs(one.change), 0.1 * scale)
            allowed = max(allowed, rounding * max(abs(one.start), abs(one.value)))
            while abs(one.residual) > allowed and one.n_steps < n_steps << MAX_DOUBLINGS:
                (one,) = split([structure], [one.path], 2 * one.n_steps, even)
            found[k] = one
    return found


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
        how = self.method, n_steps, edges.copies_per_pass(self.limit)
        with edges.frozen():
            if self.kind == "mask":
                none, full = (edges.tensor(np.full((1, edges.n_edges), x)) for x in (0.0, 1.0))
                with torch.no_grad():
                    start = edges.masked(none)[0].double().cpu().numpy()
                    value = edges.masked(full)[0].double().cpu().numpy()
                total = split_over_bonds(edges, edges.masked, none, full, *how)
            else:
                start, value = edges.value(0.0), edges.value(1.0)
                r0, r1 = edges.vectors(0.0), edges.vectors(1.0)
                total = split_over_bonds(edges, edges.displaced, r0, r1, *how)
                if even:
                    back = split_over_bonds(edges, edges.displaced, r0, 2 * r0 - r1, *how)
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
