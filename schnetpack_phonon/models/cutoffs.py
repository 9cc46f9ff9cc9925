"""Cutoff functions: one with continuous second derivatives, a check of others, a model's cutoff."""

import copy

import torch
from schnetpack.model import NeuralNetworkPotential
from torch import nn

from schnetpack_phonon.common.errors import check_at_least


class PolynomialCutoff(nn.Module):
    r"""Polynomial in :math:`x = d / r` that falls from 1 to 0 at the cutoff r.

    .. math::
        f(x) = 1 - \tfrac{(p+1)(p+2)}{2} x^p + p(p+2) x^{p+1} - \tfrac{p(p+1)}{2} x^{p+2}

    Its first two derivatives are zero at 0 and at the cutoff, so that stress and elastic tensors
    are continuous when atoms cross the cutoff. It replaces SchNetPack's ``CosineCutoff``, whose
    second derivative at the cutoff is not zero.

    Args:
        cutoff: r in Ang.
        exponent: p, at least 3; the larger it is, the later f falls.

    References:
        Gasteiger, Gross, Günnemann, ICLR 2020 (arXiv:2003.03123), equation 8.
    """

    cutoff: torch.Tensor

    def __init__(self, cutoff: float, exponent: int = 6):
        super().__init__()
        check_at_least(3, exponent=exponent)
        self.exponent = exponent
        self.register_buffer("cutoff", torch.tensor([float(cutoff)]))

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        """Values for distances in Ang, any shape."""
        p = self.exponent
        x = (input / self.cutoff).clamp(max=1.0)
        c = x.square() * (p * (p + 1) / 2) - x * (p * (p + 2)) + (p + 1) * (p + 2) / 2
        return 1.0 - c * x.pow(p)


def cutoff_of(model: NeuralNetworkPotential) -> float:
    """Cutoff of a model's representation in Ang.

    Raises:
        ValueError: if it has no known cutoff.
    """
    representation = model.representation
    for holder in (representation, getattr(representation, "cutoff_fn", None)):
        if getattr(holder, "cutoff", None) is not None:
            return float(holder.cutoff)  # type: ignore[union-attr]
    raise ValueError(
        f"{type(representation).__name__} has no 'cutoff' and no 'cutoff_fn', so that bonds are "
        "not known; expected an attribute 'cutoff' in Ang"
    )


def check_smooth(model: nn.Module) -> None:
    """Raises ValueError if the second derivative of a cutoff function of a model jumps.

    All submodules named ``cutoff_fn`` are checked, just inside the distance where they end.
    """
    for name, module in model.named_modules():
        if name.rpartition(".")[2] == "cutoff_fn":
            jump = _jump(module)
            if jump > 0.01:
                raise ValueError(
                    f"{name} is a {type(module).__name__}: at the cutoff it or one of its first "
                    f"two derivatives jumps by {jump:.2g} (in units of the cutoff), and elastic "
                    "tensors with it. Train with schnetpack_phonon.models.PolynomialCutoff or "
                    "SchNetPack's MollifierCutoff"
                )


def _jump(cutoff_fn: nn.Module) -> float:
    """Largest of value, slope and curvature at the cutoff, in units of the cutoff."""
    cutoff_fn = copy.deepcopy(cutoff_fn).cpu().double()
    end = cutoff_fn.switch_off if hasattr(cutoff_fn, "switch_off") else cutoff_fn.cutoff
    with torch.enable_grad():
        x = torch.full((1,), 1 - 1e-6, dtype=torch.float64, requires_grad=True)
        value = cutoff_fn(x * end)
        (slope,) = torch.autograd.grad(value, x, create_graph=True)
        (curvature,) = torch.autograd.grad(slope, x)
    return max(each.detach().abs().item() for each in (value, slope, curvature))
