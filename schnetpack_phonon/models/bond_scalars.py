"""Common parts of heads for tensors: scalars of bonds, volumes, and labels of crystals."""

import schnetpack.nn as snn
import torch
import torch.nn.functional as F
from schnetpack import properties as structure_keys
from schnetpack.data import AtomsDataModule
from schnetpack.model import NeuralNetworkPotential
from torch import nn

from schnetpack_phonon.data.statistics import check_any, training_labels
from schnetpack_phonon.models.cutoffs import PolynomialCutoff, cutoff_of
from schnetpack_phonon.models.heads import check_features, check_unit, scalar_features

#: Heads that sum scalars over the tens of bonds of an atom divide their scale by this number. A new
#: head is then within about one spread of the mean of the labels, where it would be ten spreads
#: off, and a step of the optimiser moves it by a fraction of a spread.
N_SUMMED = 10.0


class BondScalars(nn.Module):
    """Scalars of a bond from its length and the features of both ends, zero at the cutoff.

    Args:
        n_in: number of scalar features of an atom.
        n_out: number of scalars of a bond.
        cutoff: in Ang; that of the neighbour list, or less.
        n_hidden: width of the hidden layer.
        n_radial: number of Gaussians that describe the length.
        n_extra: number of further input scalars of a bond.
    """

    def __init__(
        self,
        n_in: int,
        n_out: int,
        cutoff: float,
        n_hidden: int = 32,
        n_radial: int = 16,
        n_extra: int = 0,
    ):
        super().__init__()
        self.radial_basis = snn.GaussianRBF(n_radial, cutoff)
        self.cutoff_fn = PolynomialCutoff(cutoff)
        self.ends = snn.Dense(n_in, 2 * n_hidden)
        self.bond = snn.Dense(n_radial + n_extra, n_hidden, bias=False)
        self.out = snn.Dense(n_hidden, n_out)

    def check_model(self, model: NeuralNetworkPotential) -> None:
        """Raises ValueError if a model lacks the features or has a shorter cutoff."""
        check_features(model, self.ends.in_features)
        there, wanted = cutoff_of(model), float(self.cutoff_fn.cutoff)
        if wanted > there + 1e-6:
            raise ValueError(
                f"a head sums over bonds up to {wanted:g} Ang; the representation's cutoff, and "
                f"with it the neighbour list, ends at {there:g}: use it for the head, too"
            )

    def forward(
        self, inputs: dict[str, torch.Tensor], extra: torch.Tensor | None = None
    ) -> torch.Tensor:
        """Scalars, shape=(n_bonds, n_out); ``extra`` has shape=(n_bonds, n_extra)."""
        distance = torch.norm(inputs[structure_keys.Rij], dim=1)
        first, second = self.ends(scalar_features(inputs, self.ends.in_features)).chunk(2, dim=1)
        bond = self.radial_basis(distance)
        if extra is not None:
            bond = torch.cat([bond, extra], dim=1)
        hidden = first[inputs[structure_keys.idx_i]] + second[inputs[structure_keys.idx_j]]
        hidden = F.silu(hidden + self.bond(bond))
        return self.out(hidden) * self.cutoff_fn(distance).unsqueeze(1)


def directions(inputs: dict[str, torch.Tensor]) -> torch.Tensor:
    """Unit vectors of the bonds, shape=(n_bonds, 3)."""
    vectors = inputs[structure_keys.Rij]
    return vectors / torch.norm(vectors, dim=1, keepdim=True)


def volumes(inputs: dict[str, torch.Tensor]) -> torch.Tensor:
    """Volumes of the cells in Ang^3, shape=(n_structures,).

    Raises:
        ValueError: for a structure that is not periodic in all directions.
    """
    if not bool(inputs[structure_keys.pbc].all()):
        raise ValueError(
            "a structure is not periodic in all directions; expected a crystal, since stress and "
            "elastic tensors are per volume"
        )
    return torch.linalg.det(inputs[structure_keys.cell]).abs()


def crystal_labels(
    datamodule: AtomsDataModule, key: str, shape: tuple[int, ...]
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Labels of the training set without missing ones, with compositions and volumes.

    Args:
        datamodule: any data module of SchNetPack, after its ``setup``.
        key: property of structures, a symmetric matrix.
        shape: of one structure's value.

    Returns:
        Labels, ``shape=(n, *shape)``, atomic fractions of the elements, shape=(n, 101), and the
        mean volume per atom in Ang^3, shape=(); all float64.

    Raises:
        ValueError: if there are none, they have another shape or unit, are not symmetric, or
            belong to structures that are not periodic in all directions.
    """
    labels, shares = training_labels(datamodule, key, shape)
    check_unit(datamodule, key)
    dataset = datamodule.dataset
    present = labels.isfinite().flatten(1).all(dim=1)
    check_any(present, datamodule, key)
    per_atom = []
    items = dataset.iter_properties(datamodule.train_idx, load_properties=[key])
    for k, label, there, item in zip(datamodule.train_idx, labels, present, items, strict=True):
        if not bool(item[structure_keys.pbc].all()):
            raise ValueError(
                f"structure {k} in {dataset.datapath} is periodic along "
                f"{item[structure_keys.pbc].tolist()}; expected all directions, since {key!r} is "
                "per volume: leave the structure out, or put it into another database"
            )
        if there and (label - label.mT).abs().max() > 1e-3 * label.abs().max():
            raise ValueError(
                f"{key!r} of structure {k} in {dataset.datapath} is not symmetric; expected a "
                "symmetric matrix: use derivatives of the energy, see structures/elasticity.py"
            )
        n_atoms = item[structure_keys.n_atoms].item()
        per_atom.append(torch.linalg.det(item[structure_keys.cell].double()).abs() / n_atoms)
    return labels[present], shares[present], torch.stack(per_atom).mean()
