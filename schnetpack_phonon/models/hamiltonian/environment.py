"""What the surroundings of atoms, as a representation sees them, change in a Hamiltonian."""

from typing import Final

import schnetpack.nn as snn
import torch
import torch.nn.functional as F
from schnetpack import properties as structure_keys
from torch import nn

from schnetpack_phonon.models.hamiltonian.two_centre import N_CHANNELS
from schnetpack_phonon.models.heads import scalar_features


class Environment(nn.Module):
    r"""On-site energies and hoppings that depend on the scalar features of atoms.

    A network gives each atom i a shift of the energy of each shell and two numbers a channel,
    :math:`l_i` and :math:`r_i`. A hopping from i to j is multiplied by
    :math:`1 + \tanh(l_i + r_j)`, between shells of one kind by the mean over both directions, so
    that the matrix stays Hermitian. The bound keeps the sign of a hopping in environments that are
    far from those of the training set. Learning starts from the pair terms alone.

    Args:
        n_in: number of scalar features.
        n_hidden: width of the hidden layer.
    """

    n_in: Final[int]
    same: torch.Tensor

    def __init__(self, n_in: int, n_hidden: int = 32):
        super().__init__()
        self.n_in = n_in
        n_out = 3 + 2 * N_CHANNELS
        self.net = snn.build_mlp(
            n_in=n_in, n_out=n_out, n_hidden=n_hidden, n_layers=2, activation=F.silu
        )
        same = [a == b for a in range(3) for b in range(a, 3) for _ in range(a + 1)]
        self.register_buffer("same", torch.tensor(same), persistent=False)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Back to shifts of zero and factors of one."""
        nn.init.zeros_(self.net[1].weight)
        nn.init.zeros_(self.net[1].bias)

    def forward(self, inputs: dict[str, torch.Tensor]) -> tuple[torch.Tensor, torch.Tensor]:
        """Shifts in eV, shape=(n_atoms, 3), and factors of hoppings, shape=(n_bonds, 10)."""
        changes = self.net(scalar_features(inputs, self.n_in))
        n = (changes.shape[1] - 3) // 2
        left, right = changes[:, 3 : 3 + n], changes[:, 3 + n :]
        i, j = inputs[structure_keys.idx_i], inputs[structure_keys.idx_j]
        there, back = torch.tanh(left[i] + right[j]), torch.tanh(left[j] + right[i])
        return changes[:, :3], 1 + torch.where(self.same, (there + back) / 2, there)


class NoFeatures(nn.Module):
    """In place of a representation, for a :class:`.Hamiltonian` that needs none.

    Args:
        cutoff: of the neighbour list in Ang.
    """

    cutoff: torch.Tensor

    def __init__(self, cutoff: float):
        super().__init__()
        self.register_buffer("cutoff", torch.tensor([float(cutoff)]))

    def forward(self, inputs: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        return inputs
