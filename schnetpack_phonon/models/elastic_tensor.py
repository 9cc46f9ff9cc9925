"""Output modules for elastic tensors as sums over bonds, and moduli; tensors in Voigt's notation.

Symmetric tensors have the components xx yy zz yz xz xy, as in :mod:`.structures.elasticity`.
"""

from typing import Final

import schnetpack.nn as snn
import torch
from ase.units import GPa
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
from schnetpack_phonon.models.heads import mean_over_atoms

_I, _J = [0, 1, 2, 1, 0, 0], [0, 1, 2, 2, 2, 1]  # Voigt's order


class ElasticTensor(Transform):
    r"""Clamped-ion elastic tensor in GPa from bond directions and scalars, like a Born sum.

    .. math::
        C = C_0 + \frac{\kappa}{V} \sum_{ij} \left( n_{ij} \otimes y_{ij} + n_{ij} \boxtimes z_{ij}
            + a_{ij} \, 1 \otimes 1 + b_{ij} \, 1 \boxtimes 1 \right)

    over the bonds of the neighbour list, with :math:`n = \hat r \hat r` and the two products of
    symmetric tensors, :math:`(A \otimes B)_{ijkl} = A_{ij} B_{kl}` and :math:`(A \boxtimes
    B)_{ijkl} = A_{ik} B_{jl}`, both with all symmetries of an elastic tensor imposed. The second
    factors

    .. math:: y_{ij} = c_{ij} n_{ij} + d_{ij} 1 + \sum_k u_{ijk} T_{ik}, \qquad
              z_{ij} = e_{ij} 1 + \sum_k v_{ijk} T_{ik}, \qquad T_{ik} = \sum_j w_{ijk} n_{ij}

    contain tensors :math:`T_{ik}` of the atom's environment. The terms without them are all that a
    single bond can have (five constants, those of a body with an axis); they are the second
    derivative by strain of pair energies, prestress included. Those with them are that of
    three-body energies. This form works with any representation of SchNetPack, also those without
    vectors. Small letters are functions of scalar features and bond length (:class:`.BondScalars`),
    and all but w also of the components of :math:`T_{ik}` along the bond.

    Symmetries are exact and a supercell has the tensor of its cell. :math:`C_0` is isotropic: the
    mean bulk and shear moduli of the training set, by composition. The scale :math:`\kappa` is a
    tenth of the spread of the labels about it, in eV per atom.

    Args:
        n_in: number of scalar features.
        cutoff: of bonds in Ang; that of the neighbour list, or less.
        n_tensors: number of tensors of an atom.
        n_hidden: width of the networks' hidden layers.
        positive: make the tensor positive definite: with X for the sum over bonds above, :math:`C =
            C_0^{1/2} f(C_0^{-1/2} X C_0^{-1/2}) C_0^{1/2}`, where f takes eigenvalues x above zero
            to 1 + x and those below to 1 / (1 - x). Not for labels of unstable structures, as
            snapshots may be.
        output_key: property in the database and in the model's output, shape=(n_structures, 6, 6):
            Voigt xx yy zz yz xz xy, engineering shear.
        bonds_key: if given, a further output: the contribution of each bond of the neighbour list
            to C (with ``positive``, to X), in GPa, shape=(n_bonds, 6, 6).
    """

    gpa: Final[float] = float(GPa)

    offset: torch.Tensor
    scale: torch.Tensor
    multiplicity: torch.Tensor
    unit: torch.Tensor
    square: torch.Tensor

    def __init__(
        self,
        n_in: int,
        cutoff: float,
        n_tensors: int = 8,
        n_hidden: int = 32,
        positive: bool = False,
        output_key: str = properties.elastic_tensor,
        bonds_key: str | None = None,
    ):
        super().__init__()
        self.n_tensors, self.positive = n_tensors, positive
        self.output_key, self.bonds_key = output_key, bonds_key
        self.model_outputs = [output_key] if bonds_key is None else [output_key, bonds_key]
        self.weights = BondScalars(n_in, n_tensors, cutoff, n_hidden)
        self.coefficients = BondScalars(
            n_in, 5 + 2 * n_tensors, cutoff, n_hidden, n_extra=n_tensors
        )
        self.register_buffer("offset", torch.zeros(101, 2))
        self.register_buffer("scale", torch.ones(1))
        self.register_buffer("multiplicity", multiplicities())
        self.register_buffer("unit", unit())
        self.register_buffer("square", square_products().reshape(36, 36))

    def datamodule(self, value: AtomsDataModule) -> None:
        """Takes offset and scale from the training set; SchNetPack calls this before a fit.

        Raises:
            ValueError: if the labels are not elastic tensors of crystals in GPa.
        """
        labels, shares, volume = crystal_labels(value, self.output_key, (6, 6))
        offset, _ = fit_to_shares(isotropic_part(labels), shares, self.offset)
        rest = labels - isotropic(shares @ offset)
        counts = multiplicities().to(rest)
        square = (rest.square() * torch.outer(counts, counts)).sum(dim=(1, 2)).mean()
        self.offset = offset.to(self.offset)
        spread = square.sqrt().clamp(min=1e-6) / 6 * GPa
        self.scale = (spread * volume / N_SUMMED).to(self.scale).reshape(1)

    def forward(self, inputs: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        structure = inputs[structure_keys.idx_m][inputs[structure_keys.idx_i]]  # of each bond
        offset = mean_over_atoms(self.offset[inputs[structure_keys.Z]], inputs)
        factor = (self.scale / self.gpa / volumes(inputs)).unsqueeze(-1)
        products = self._products(inputs)
        sums = factor * snn.scatter_add(products, structure, factor.shape[0])
        if self.positive:
            mandel = _mandel(sums)
            offset = offset.clamp(min=1.0)
            root = isotropic(offset.sqrt()) * mandel
            inverse = isotropic(offset.rsqrt()) * mandel
            raised = _raised(inverse @ (self._tensors(sums) * mandel) @ inverse)
            inputs[self.output_key] = root @ raised @ root / mandel
        else:
            inputs[self.output_key] = isotropic(offset) + self._tensors(sums)
        bonds_key = self.bonds_key
        if bonds_key is not None:
            inputs[bonds_key] = self._tensors(factor[structure] * products)
        return inputs

    def _products(self, inputs: dict[str, torch.Tensor]) -> torch.Tensor:
        """Factors of all terms, multiplied, shape=(n_bonds, 74); :meth:`_tensors` is linear."""
        idx_i = inputs[structure_keys.idx_i]
        n = dyads(directions(inputs))
        weights = self.weights(inputs)
        tensors = snn.scatter_add(
            weights.unsqueeze(-1) * n.unsqueeze(-2), idx_i, inputs[structure_keys.Z].shape[0]
        )[idx_i]
        along = (tensors * (n * self.multiplicity).unsqueeze(-2)).sum(-1)
        coefficients = self.coefficients(inputs, along)
        axial = coefficients[:, :5]
        u, v = coefficients[:, 5:].chunk(2, dim=1)
        y = (u.unsqueeze(-1) * tensors).sum(1) + axial[:, 0:1] * n + axial[:, 1:2] * self.unit
        z = (v.unsqueeze(-1) * tensors).sum(1) + axial[:, 2:3] * self.unit
        second = torch.stack([y, z], dim=1)
        products = n.unsqueeze(1).unsqueeze(-1) * second.unsqueeze(-2)
        return torch.cat([products.flatten(1), axial[:, 3:]], dim=1)

    def _tensors(self, products: torch.Tensor) -> torch.Tensor:
        """Elastic tensors from the sums of products, shape=(n, 74) -> (n, 6, 6)."""
        dyadic = products[:, :36].reshape(-1, 6, 6)
        square = (products[:, 36:72] @ self.square).reshape(-1, 6, 6)
        return (dyadic + dyadic.mT) / 2 + square + isotropic(products[:, 72:])


def _raised(matrices: torch.Tensor) -> torch.Tensor:
    """Symmetric matrices with eigenvalues x taken to 1 + x where x > 0, to 1 / (1 - x) below.

    The gradient uses divided differences (Daleckii and Krein): unlike that of ``eigh`` it is finite
    for equal eigenvalues, as crystals of high symmetry have. It has no second derivative.
    """
    x, vectors = torch.linalg.eigh(matrices.detach())
    value = 1 / (1 - x.clamp(max=0.0)) + x.clamp(min=0.0)
    difference = x.unsqueeze(-1) - x.unsqueeze(-2)
    mean = (x.unsqueeze(-1) + x.unsqueeze(-2)) / 2
    close = difference.abs() < 1e-3
    ratio = (value.unsqueeze(-1) - value.unsqueeze(-2)) / torch.where(
        close, torch.ones_like(difference), difference
    )
    ratio = torch.where(close, (1 - mean.clamp(max=0.0)).pow(-2), ratio)
    change = vectors.mT @ (matrices - matrices.detach()) @ vectors
    return vectors @ (torch.diag_embed(value) + ratio * change) @ vectors.mT


class ElasticModuli(nn.Module):
    """Moduli of the polycrystal, anisotropy and stability, from an elastic tensor.

    Outputs, each of shape=(n_structures,): ``bulk_modulus``, ``shear_modulus``, ``young_modulus``
    (in GPa) and ``poisson_ratio``, with ``_voigt``, ``_reuss`` and ``_hill`` after each name;
    ``universal_anisotropy``; ``softest_stiffness``, the smallest eigenvalue of the tensor in GPa
    (in Mandel's notation, so that rotations do not change it). Born's criterion of stability, for a
    crystal without stress, is that it is positive. Definitions are those of
    :mod:`.structures.elasticity`. Reuss averages of a tensor with an eigenvalue near zero diverge,
    and are meaningless for one with negative eigenvalues.

    Args:
        elastic_tensor_key: output of a module before this one, shape=(n_structures, 6, 6), in GPa.
    """

    def __init__(self, elastic_tensor_key: str = properties.elastic_tensor):
        super().__init__()
        self.elastic_tensor_key = elastic_tensor_key
        self.model_outputs = [
            *properties.MODULI,
            properties.universal_anisotropy,
            properties.softest_stiffness,
        ]

    def forward(self, inputs: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        tensor = inputs[self.elastic_tensor_key]
        mandel = _mandel(tensor)
        compliance = torch.linalg.inv_ex(tensor * mandel)[0] / mandel
        upper = isotropic_part(tensor)
        lower = isotropic_part(compliance).reciprocal()
        for average, moduli in (("voigt", upper), ("reuss", lower), ("hill", (upper + lower) / 2)):
            bulk, shear = moduli[:, 0] / 3, moduli[:, 1] / 2
            inputs["bulk_modulus_" + average] = bulk
            inputs["shear_modulus_" + average] = shear
            inputs["young_modulus_" + average] = 9 * bulk * shear / (3 * bulk + shear)
            inputs["poisson_ratio_" + average] = (3 * bulk - 2 * shear) / (6 * bulk + 2 * shear)
        ratio = upper / lower
        inputs["universal_anisotropy"] = ratio[:, 0] + 5 * ratio[:, 1] - 6
        inputs["softest_stiffness"] = torch.linalg.eigvalsh(tensor * mandel)[:, 0]
        return inputs


def _mandel(tensors: torch.Tensor) -> torch.Tensor:
    """Factors from Voigt's to Mandel's notation, in which tensors multiply as matrices do."""
    weights = multiplicities().to(tensors).sqrt()
    return torch.outer(weights, weights)


def multiplicities() -> torch.Tensor:
    """How many components of a symmetric 3x3 tensor each one stands for, shape=(6,)."""
    return torch.tensor([1.0, 1.0, 1.0, 2.0, 2.0, 2.0])


def unit() -> torch.Tensor:
    """The unit tensor, shape=(6,)."""
    return torch.tensor([1.0, 1.0, 1.0, 0.0, 0.0, 0.0])


def dyads(directions: torch.Tensor) -> torch.Tensor:
    """Of vectors with themselves, shape=(n, 3) -> (n, 6)."""
    x, y, z = directions.unbind(1)
    return torch.stack([x * x, y * y, z * z, y * z, x * z, x * y], dim=1)


def symmetric_part(tensors: torch.Tensor) -> torch.Tensor:
    """Of 3x3 tensors, shape=(n, 3, 3) -> (n, 6)."""
    t = (tensors + tensors.transpose(1, 2)) / 2
    components = [t[:, 0, 0], t[:, 1, 1], t[:, 2, 2], t[:, 1, 2], t[:, 0, 2], t[:, 0, 1]]
    return torch.stack(components, dim=1)


def square_products() -> torch.Tensor:
    r"""The other product of two symmetric tensors, beside A_ij B_kl, that is an elastic tensor.

    .. math:: (A \boxtimes B)_{ijkl} = (A_{ik} B_{jl} + A_{jk} B_{il} + A_{il} B_{jk}
        + A_{jl} B_{ik}) / 4

    Returns:
        Coefficients of the components of A and of B in those of the product, shape=(6, 6, 6, 6).
    """
    basis = torch.zeros(6, 3, 3)
    for k in range(6):
        basis[k, _I[k], _J[k]] = basis[k, _J[k], _I[k]] = 1.0
    product = torch.einsum("aik,bjl->abijkl", basis, basis)
    product = (product + product.transpose(2, 3)) / 2
    product = (product + product.transpose(4, 5)) / 2
    return product[:, :, _I, _J][..., _I, _J]


def isotropic(moduli: torch.Tensor) -> torch.Tensor:
    """Elastic tensors from 3 K and 2 G, shape=(n, 2) -> (n, 6, 6)."""
    bulk, shear = moduli.unsqueeze(-1).unsqueeze(-1).unbind(1)
    one = unit().to(moduli)
    mean = torch.outer(one, one) / 3
    return bulk * mean + shear * (torch.diag(1 / multiplicities().to(moduli)) - mean)


def isotropic_part(tensors: torch.Tensor) -> torch.Tensor:
    """3 K and 2 G of the isotropic tensors that are closest, shape=(n, 6, 6) -> (n, 2)."""
    bulk = tensors[:, :3, :3].sum(dim=(1, 2)) / 3
    trace = (tensors.diagonal(dim1=1, dim2=2) * multiplicities().to(tensors)).sum(dim=1)
    return torch.stack([bulk, (trace - bulk) / 5], dim=1)
