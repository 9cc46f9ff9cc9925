"""Which bonds carry a predicted property, with the methods of Captum.

Displacement attribution (the main one) splits the change of a prediction between the ideal and the
displaced crystal, f(R) - f(R0), over bonds: it integrates the gradient with respect to each edge
vector along the straight path between the two (integrated gradients: Sundararajan, Taly, Yan,
ICML 2017). Mask attribution splits f(all bonds) - f(no bonds), along a mask on the cutoff function;
its start is far from all training data.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace

import numpy as np
import torch
from schnetpack.model import NeuralNetworkPotential
from torch import nn

from schnetpack_phonon.attribution.edges import Edges, check_model, default_edges_per_pass
from schnetpack_phonon.attribution.methods import (
    Integrand,
    check_method,
    integrate_in_parts,
    split_over_bonds,
)
from schnetpack_phonon.attribution.paths import StraightPath, straight_path
from schnetpack_phonon.attribution.results import BondAttribution
from schnetpack_phonon.common.errors import AttributionError, check_at_least
from schnetpack_phonon.data.reading import Structure
from schnetpack_phonon.models.cutoffs import cutoff_of

#: Methods that sum over points of a path.
_WITH_NODES = ("IntegratedGradients", "GradientShap")
#: Modules of SchNetPack whose part of an output does not come from edges within the cutoff.
_BEYOND_EDGES = ("EnergyCoulomb", "EnergyEwald", "DipoleMoment", "Polarizability")
#: Modules of SchNetPack that read edges outside of the representation, where no mask acts.
_OUTSIDE_MASK = ("ZBLRepulsionEnergy",)


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
        model: SchNetPack model whose representation reads edge vectors; not changed.
        structures: displaced crystals.
        output: scalar output of the model, or a component of a tensor: ``stress[0,0]``.
        kind: ``displacement`` from the ideal crystal, or ``mask`` from no bonds at all.
        method: one of :data:`.METHODS`.
        n_steps: nodes of the Gauss-Legendre quadrature, samples of ``GradientShap``.
        tolerance: the path is divided where the residual of the bonds exceeds this fraction of the
            change (or of a tenth of the mean change of the structures, where that is larger).
        even: whether to compute the even part of each bond too, which doubles the time.
        unit: of the output.
        inputs: other inputs of the model, such as ``total_charge``.
        edges_per_pass: limits the memory; by default depends on the device.
        progress: called with the number of structures that are finished.

    Raises:
        AttributionError: for models, outputs and methods that cannot be attributed.
        ValueError: if ideal and displaced crystal do not belong together.
    """
    check_method(kind, method)
    check_model(model)
    check_at_least(1, n_steps=n_steps)
    even = even and kind == "displacement" and method in ("IntegratedGradients", "FeatureAblation")
    limit = edges_per_pass or default_edges_per_pass(next(model.parameters()).device)
    exact = method != "IntegratedGradients"
    found: list[BondAttribution] = []
    for group in _groups(structures, cutoff_of(model), kind, even, limit // n_steps):
        edges = Edges(model, [path for _, path in group], output, inputs)
        how = method, n_steps, edges.copies_per_pass(limit)
        f = _integrand(edges, kind)
        with edges.frozen():
            total = split_over_bonds(f, *how)
            back = split_over_bonds(f.opposite(), *how) if even else total
            starts, values = _ends(f, kind)
            resolution = f.resolution()
        for k, (structure, path) in enumerate(group):
            one = BondAttribution(
                output=output,
                unit=unit,
                method=method,
                path=path,
                attribution=total[k],
                even=(total[k] + back[k]) / 2 if even else None,
                start=float(starts[k]),
                value=float(values[k]),
                resolution=float(resolution[k]),
                n_steps=n_steps if method in _WITH_NODES else 0,
                additive=method in (*_WITH_NODES, "Shapley"),
                index=structure.index,
                structure=structure.name or path.ideal.get_chemical_formula(),
            )
            found.append(one)
        if exact:
            progress(len(group))
    if exact:
        return found
    scale = float(np.mean([abs(a.change) for a in found])) if found else 0.0
    for k, one in enumerate(found):
        allowed = max(tolerance * max(abs(one.change), 0.1 * scale), one.resolution)
        if abs(one.residual) > allowed:
            edges = Edges(model, [one.path], output, inputs)
            limits = allowed, n_steps, edges.copies_per_pass(limit)
            f, half = _integrand(edges, kind), None
            with edges.frozen():
                whole, n_nodes = integrate_in_parts(f, *limits)
                if even:
                    half = (whole + integrate_in_parts(f.opposite(), *limits)[0]) / 2
            found[k] = replace(one, attribution=whole, even=half, n_steps=n_nodes)
        progress(1)
    return found


def unseen_terms(model: nn.Module, mask: bool = False) -> list[str]:
    """Names of modules whose part of the outputs attribution does not see.

    Args:
        model: SchNetPack model.
        mask: for mask attribution, where there are more of them.
    """
    names = _BEYOND_EDGES + (_OUTSIDE_MASK if mask else ())
    return sorted({type(m).__name__ for m in model.modules() if type(m).__name__ in names})


def _groups(
    structures: Sequence[Structure], cutoff: float, kind: str, even: bool, limit: int
) -> Iterator[list[tuple[Structure, StraightPath]]]:
    """Structures with their paths, grouped so that all nodes of a group fit into one pass."""
    group: list[tuple[Structure, StraightPath]] = []
    size = 0
    for structure in structures:
        ideal = structure.ideal if kind == "displacement" else structure.displaced
        if ideal is None:
            raise AttributionError(
                f"structure {structure.index} has no ideal positions: give the undisplaced "
                "crystal with the same order of atoms (--ideal FILE, ideal= of the callback, or "
                "'ideal_positions' and 'ideal_cell' in the data of each row), or use kind=mask"
            )
        path = straight_path(ideal, structure.displaced, cutoff, mirrored=even)
        if group and size + len(path.idx_i) > limit:
            yield group
            group, size = [], 0
        group.append((structure, path))
        size += len(path.idx_i)
    if group:
        yield group


def _integrand(edges: Edges, kind: str) -> Integrand:
    if kind == "mask":
        none, full = (edges.tensor(np.full((1, edges.n_edges), x)) for x in (0.0, 1.0))
        return Integrand(edges, edges.masked, none, full)
    return Integrand(edges, edges.displaced, edges.vectors(0.0), edges.vectors(1.0))


def _ends(f: Integrand, kind: str) -> np.ndarray:
    """Predictions at both ends of the paths, shape=(2, n_graphs)."""
    if kind == "displacement":
        return f.edges.values(0.0, 1.0)
    with torch.no_grad():
        return f.function(torch.cat([f.start, f.end])).double().cpu().numpy()
