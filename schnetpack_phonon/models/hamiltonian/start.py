"""Where the training of a learned Hamiltonian starts: mean gaps and zero of potential."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch

from schnetpack_phonon.data.statistics import fit_to_shares

_N_EACH = 4  # structures of a composition
_MOST = 8  # compositions
_N_STEPS = 20
_LARGEST = 0.5  # change of a parameter in a step; eV for on-site energies
_CLOSE = 1e-3  # eV


@torch.enable_grad()
def fit_gaps(
    edges: Callable[[int], torch.Tensor],
    parameters: Sequence[torch.nn.Parameter],
    gaps: torch.Tensor,
    shares: torch.Tensor,
) -> None:
    """Gives each composition its mean gap, by the smallest change of parameters (Newton's method).

    Levels of free atoms with Harrison's hoppings have gaps that are wrong by 1 eV or so, and steps
    of an optimiser, of 1 meV or less, would take thousands to get there.

    Args:
        edges: number of a structure -> its highest filled and lowest empty level in eV, shape=(2,).
        parameters: that are moved, of any shapes.
        gaps: of the structures in eV, NaN where they are not known, shape=(n_structures,).
        shares: of each element in a structure, shape=(n_structures, n_elements).
    """
    _, kinds = shares.unique(dim=0, return_inverse=True)
    known = [torch.nonzero((kinds == kind) & gaps.isfinite())[:, 0] for kind in kinds.unique()]
    groups = [own[_spread(len(own), _N_EACH)] for own in known if len(own)]
    groups = [groups[k] for k in _spread(len(groups), _MOST)]
    if not groups:
        return
    smallest, best = float("inf"), [parameter.detach().clone() for parameter in parameters]
    for _ in range(_N_STEPS):
        rest, slopes = [], []
        for own in groups:
            levels = torch.stack([edges(k) for k in own.tolist()])
            gap = (levels[:, 1] - levels[:, 0]).mean()
            rest.append(gaps[own].mean().double() - gap.detach().cpu().double())
            found = torch.autograd.grad(gap, parameters)
            slopes.append(torch.cat([slope.flatten() for slope in found]).cpu().double())
        error = torch.stack(rest).abs().max().item()
        if error < smallest:
            smallest, best = error, [parameter.detach().clone() for parameter in parameters]
        if not error >= _CLOSE:
            break
        jacobian = torch.stack(slopes)
        change = torch.linalg.lstsq(jacobian, torch.stack(rest)[:, None], driver="gelsd").solution
        change *= min(1.0, _LARGEST / change.abs().max().item())
        parts = change[:, 0].split([parameter.numel() for parameter in parameters])
        with torch.no_grad():
            for parameter, part in zip(parameters, parts, strict=True):
                parameter.add_(part.reshape(parameter.shape).to(parameter))
    with torch.no_grad():
        for parameter, value in zip(parameters, best, strict=True):
            parameter.copy_(value)


def fit_zero(
    rest: torch.Tensor, shares: torch.Tensor, log_volumes: torch.Tensor, before: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Zero of potential of each element, and its slope with the logarithm of the volume.

    Args:
        rest: labels less levels in eV, shape=(n_structures, 1).
        shares: of each element in a structure, shape=(n_structures, n_elements).
        log_volumes: per atom, shape=(n_structures,).
        before: zero of elements that do not occur, shape=(n_elements,).

    Returns:
        Slopes and zeros in eV, shape=(n_elements,).
    """
    volumes = log_volumes[:, None]
    # Volumes of one composition tell the slope; those of different ones cannot.
    slope, _ = fit_to_shares(_without_means(rest, shares), shares * _without_means(volumes, shares))
    zero, _ = fit_to_shares(rest - volumes * (shares @ slope), shares, before[:, None])
    return slope[:, 0], zero[:, 0]


def _without_means(values: torch.Tensor, shares: torch.Tensor) -> torch.Tensor:
    """Less their mean over all structures of the same composition, shape=(n_structures, 1)."""
    _, kind = shares.unique(dim=0, return_inverse=True)
    total = torch.zeros(int(kind.max()) + 1, dtype=values.dtype).index_add(0, kind, values[:, 0])
    return values - (total / kind.bincount())[kind, None]


def _spread(n: int, most: int) -> torch.Tensor:
    """At most so many of the numbers below n, evenly."""
    return torch.linspace(0, n - 1, min(n, most)).long()
