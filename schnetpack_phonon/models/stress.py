"""Output modules for stress without an energy: ASE's sign, eV/Ang^3."""

import schnetpack.nn as snn
import torch
from schnetpack import properties as structure_keys
from schnetpack.data import AtomsDataModule
from schnetpack.transform import Transform
from torch import nn

from schnetpack_phonon.common import properties
from schnetpack_phonon.data.statistics import fit_to_shares
from schnetpack_phonon.models.bond_scalars import (
    N_SUMMED,
    BondScalars,
    crystal_labels,
    directions,
    volumes,
)
from schnetpack_phonon.models.heads import Intensive, mean_over_atoms


class HydrostaticStress(Intensive):
    """Trace of the stress over 3 in eV/Ang^3: an :class:`.Intensive` scalar.

    With labels of the full tensor use :class:`StressTensor`, with an energy SchNetPack's
    ``Forces(calc_stress=True)``; :class:`StressTrace` gives the trace of either.
    """

    def __init__(self, n_in: int, output_key: str = properties.hydrostatic_stress, **kwargs):
        super().__init__(n_in, output_key, **kwargs)


class StressTensor(Transform):
    r"""Cauchy stress in eV/Ang^3 from bond directions and scalars, like the virial of pair forces.

    .. math::
        \sigma = \sigma_0 1 + \frac{\kappa}{V} \sum_{ij}
            \left( a_{ij} \hat r_{ij} \hat r_{ij} + b_{ij} 1 \right)

    over the bonds of the neighbour list, with scalars of :class:`.BondScalars`. It is symmetric,
    rotates with the crystal exactly, and a supercell has the stress of its cell. :math:`\sigma_0`
    is the mean of the training set, by composition, the scale :math:`\kappa` a tenth of the spread
    about it in eV per atom. It is not the derivative of an energy; SchNetPack's
    ``Forces(calc_stress=True)`` is.

    Args:
        n_in: number of scalar features.
        cutoff: of bonds in Ang; that of the neighbour list, or less.
        n_hidden: width of the network's hidden layer.
        output_key: property in the database and in the model's output, shape=(n_structures, 3, 3).
        bonds_key: if given, a further output: the contribution of each bond of the neighbour list
            in eV/Ang^3, shape=(n_bonds, 3, 3).
    """

    offset: torch.Tensor
    scale: torch.Tensor
    identity: torch.Tensor

    def __init__(
        self,
        n_in: int,
        cutoff: float,
        n_hidden: int = 32,
        output_key: str = properties.stress,
        bonds_key: str | None = None,
    ):
        super().__init__()
        self.output_key, self.bonds_key = output_key, bonds_key
        self.model_outputs = [output_key] if bonds_key is None else [output_key, bonds_key]
        self.coefficients = BondScalars(n_in, 2, cutoff, n_hidden)
        self.register_buffer("offset", torch.zeros(101, 1))
        self.register_buffer("scale", torch.ones(1))
        self.register_buffer("identity", torch.eye(3))

    def datamodule(self, value: AtomsDataModule) -> None:
        """Takes offset and scale from the training set; SchNetPack calls this before a fit.

        Raises:
            ValueError: if the labels are not stress tensors of crystals in eV/Ang^3.
        """
        labels, shares, volume = crystal_labels(value, self.output_key, (3, 3))
        pressure = labels.diagonal(dim1=-2, dim2=-1).mean(-1, keepdim=True)
        offset, _ = fit_to_shares(pressure, shares, self.offset)
        rest = labels - (shares @ offset).unsqueeze(-1) * torch.eye(3)
        self.offset = offset.to(self.offset)
        spread = rest.square().mean().sqrt().clamp(min=1e-12)
        self.scale = (spread * volume / N_SUMMED).to(self.scale).reshape(1)

    def forward(self, inputs: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        structure = inputs[structure_keys.idx_m][inputs[structure_keys.idx_i]]  # of each bond
        offset = mean_over_atoms(self.offset[inputs[structure_keys.Z]], inputs)
        direction = directions(inputs)
        a, b = self.coefficients(inputs).unsqueeze(-1).unbind(1)
        bonds = (a * direction).unsqueeze(-1) * direction.unsqueeze(-2)
        bonds = bonds + b.unsqueeze(-1) * self.identity
        factor = self.scale / volumes(inputs)
        bonds = factor[structure].unsqueeze(-1).unsqueeze(-1) * bonds
        stress = snn.scatter_add(bonds, structure, factor.shape[0])
        inputs[self.output_key] = offset.unsqueeze(-1) * self.identity + stress
        bonds_key = self.bonds_key
        if bonds_key is not None:
            inputs[bonds_key] = bonds
        return inputs


class StressTrace(nn.Module):
    """Hydrostatic stress from the stress of an output module before this one.

    Args:
        stress_key: shape=(n_structures, 3, 3).
        output_key: its trace over 3 in the same unit, shape=(n_structures,).
    """

    def __init__(
        self,
        stress_key: str = properties.stress,
        output_key: str = properties.hydrostatic_stress,
    ):
        super().__init__()
        self.stress_key, self.output_key = stress_key, output_key
        self.model_outputs = [output_key]

    def forward(self, inputs: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        inputs[self.output_key] = inputs[self.stress_key].diagonal(dim1=-2, dim2=-1).mean(-1)
        return inputs
