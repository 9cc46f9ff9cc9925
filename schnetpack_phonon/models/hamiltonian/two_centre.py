"""Two-centre blocks between s, p and d orbitals, and universal hoppings to start from.

References:
    Slater, Koster, Phys. Rev. 94, 1498 (1954).
    Harrison, Electronic Structure and the Properties of Solids, Freeman 1980, chapters 2 and 20.
"""

import math
from typing import Final

import torch
from torch import nn

#: Shells of both atoms and the kind of bond.
CHANNELS = ("ssσ", "spσ", "sdσ", "ppσ", "ppπ", "pdσ", "pdπ", "ddσ", "ddπ", "ddδ")
N_CHANNELS = len(CHANNELS)
# Harrison's coefficients in this order:
_ETA = (-1.40, 1.84, -3.16, 3.24, -0.81, -2.95, 1.36, -16.2, 8.75, 0.0)
_N_D = (0, 0, 1, 0, 0, 1, 1, 2, 2, 2)  # how many of the two shells are d
_HBAR2_OVER_M = 7.62  # eV Ang^2
_D_RADIUS = 0.9  # Ang; about that of silver. Harrison's table has 0.7 to 1.6


class TwoCentre(nn.Module):
    r"""Blocks of a matrix between the orbitals of two atoms, from the direction of their bond.

    Orbitals are p: x, y, z and d: xy, yz, xz, :math:`x^2-y^2`, :math:`3z^2-r^2`. A d orbital is a
    symmetric traceless matrix :math:`T_m`, so that its value along a unit vector u is
    :math:`\sqrt{3/2}\,u T_m u`. With the values :math:`a_m` and :math:`b_n` of both orbitals along
    the bond, the part of sigma is :math:`a_m b_n`, and those of pi and delta are projections onto
    what is perpendicular. Blocks are those of Slater and Koster, for any direction, without
    rotation matrices.
    """

    basis: torch.Tensor
    eta: torch.Tensor
    power: torch.Tensor
    # Of the pi parts, see the class: sqrt(2) and 2 / sqrt(3) for (p,d).
    root: Final[float] = math.sqrt(2)
    ratio: Final[float] = 2 / math.sqrt(3)

    def __init__(self):
        super().__init__()
        basis = torch.zeros(5, 3, 3)  # whole numbers, exact in single precision, too
        for m, (a, b) in enumerate([(0, 1), (1, 2), (0, 2)]):
            basis[m, a, b] = basis[m, b, a] = 1
        basis[3] = torch.diag(torch.tensor([1.0, -1.0, 0.0]))
        basis[4] = torch.diag(torch.tensor([-1.0, -1.0, 2.0]))
        self.register_buffer("basis", basis, persistent=False)
        power = 1.5 * torch.tensor(_N_D)
        eta = _HBAR2_OVER_M * torch.tensor(_ETA) * _D_RADIUS**power
        self.register_buffer("eta", eta, persistent=False)
        self.register_buffer("power", power + 2, persistent=False)

    def forward(self, u: torch.Tensor, strengths: torch.Tensor, a: int, b: int) -> torch.Tensor:
        """Blocks of shells a <= b (0, 1, 2 for s, p, d).

        Args:
            u: unit vectors from the atom of shell a to that of shell b, shape=(n, 3).
            strengths: of sigma, pi, delta as far as shell a has them, shape=(n, a + 1).
            a: shell of the rows.
            b: shell of the columns.

        Returns:
            In the unit of the strengths, shape=(n, 2 a + 1, 2 b + 1).
        """
        basis = self.basis / self.basis.square().sum(dim=[1, 2], keepdim=True).sqrt()
        tu = u.unsqueeze(2)
        if b == 2:
            tu = (u @ basis.flatten(0, 1).T).reshape(-1, 5, 3)
        sigma = strengths[:, :1]
        right = self._along(u, tu, b)
        if a == 0:
            return (sigma * right).unsqueeze(1)
        left, pi = self._along(u, tu, a), strengths[:, 1:2]
        one = torch.eye(2 * a + 1, dtype=u.dtype, device=u.device)
        if b == 1:
            rest = pi.unsqueeze(2) * one
            sigma = sigma - pi
        elif a == 1:
            rest = (self.root * pi).unsqueeze(2) * tu.transpose(1, 2)
            sigma = sigma - self.ratio * pi
        else:
            delta = strengths[:, 2:]
            pi = pi - delta
            rest = (2 * pi).unsqueeze(2) * tu @ tu.transpose(1, 2) + delta.unsqueeze(2) * one
            sigma = sigma - delta - 4 / 3 * pi
        return rest + (sigma * left).unsqueeze(2) * right.unsqueeze(1)

    def _along(self, u: torch.Tensor, tu: torch.Tensor, shell: int) -> torch.Tensor:
        """Values of the orbitals along the bond, shape=(n, 2 shell + 1)."""
        if shell == 0:
            return torch.ones_like(u[:, :1])
        if shell == 1:
            return u
        return math.sqrt(1.5) * (tu @ u.unsqueeze(2)).squeeze(2)

    def universal(self, distance: torch.Tensor) -> torch.Tensor:
        """Harrison's hoppings in eV for distances in Ang, shape=(n,) -> (n, 10)."""
        return self.eta / distance.unsqueeze(1).pow(self.power)
