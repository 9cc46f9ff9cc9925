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
    n_d: torch.Tensor
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
        n_d = torch.tensor(_N_D)
        eta = _HBAR2_OVER_M * torch.tensor(_ETA) * _D_RADIUS ** (1.5 * n_d)
        self.register_buffer("eta", eta, persistent=False)
        self.register_buffer("n_d", n_d, persistent=False)

    def forward(self, u: torch.Tensor, strengths: torch.Tensor, a: int, b: int) -> torch.Tensor:
        """Blocks of shells a <= b (0, 1, 2 for s, p, d).

        Bonds are the last dimension, so that operations run along them.

        Args:
            u: unit vectors from the atom of shell a to that of shell b, shape=(3, n).
            strengths: of sigma, pi, delta as far as shell a has them, shape=(a + 1, n).
            a: shell of the rows.
            b: shell of the columns.

        Returns:
            In the unit of the strengths, shape=(2 a + 1, 2 b + 1, n).
        """
        tu = u.unsqueeze(0)
        if b == 2:
            basis = self.basis / self.basis.square().sum(dim=[1, 2], keepdim=True).sqrt()
            tu = (basis.flatten(0, 1) @ u).unflatten(0, [5, 3])
        sigma = strengths[0]
        right = self._along(u, tu, b)
        if a == 0:
            return (sigma * right).unsqueeze(0)
        left, pi = self._along(u, tu, a), strengths[1]
        one = torch.eye(2 * a + 1, dtype=u.dtype, device=u.device).unsqueeze(2)
        if b == 1:
            rest = pi * one
            sigma = sigma - pi
        elif a == 1:
            rest = self.root * pi * tu.transpose(0, 1)
            sigma = sigma - self.ratio * pi
        else:
            delta = strengths[2]
            pi = pi - delta
            rest = ((2 * pi * tu).unsqueeze(1) * tu).sum(2) + delta * one
            sigma = sigma - delta - 4 / 3 * pi
        return torch.addcmul(rest, (sigma * left).unsqueeze(1), right)

    def _along(self, u: torch.Tensor, tu: torch.Tensor, shell: int) -> torch.Tensor:
        """Values of the orbitals along the bond, shape=(2 shell + 1, n)."""
        if shell == 0:
            return torch.ones_like(u[:1])
        if shell == 1:
            return u
        return math.sqrt(1.5) * (tu * u).sum(1)

    def universal(self, distance: torch.Tensor) -> torch.Tensor:
        """Harrison's hoppings in eV for distances in Ang, shape=(n,) -> (10, n)."""
        step = distance.pow(1.5)
        powers = distance.square() * torch.stack([torch.ones_like(step), step, step.square()])
        return self.eta.unsqueeze(1) / powers.index_select(0, self.n_d)
