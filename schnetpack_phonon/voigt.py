"""Symmetric tensors in Voigt's notation, for output modules: xx yy zz yz xz xy.

Components are those of the tensors themselves, ``C_ab = C_ijkl``, so no factors come in. Sums over
tensor components count those of shear twice (:func:`multiplicities`). Constants are exact in any
floating-point type.
"""

from __future__ import annotations

import torch

_I, _J = [0, 1, 2, 1, 0, 0], [0, 1, 2, 2, 2, 1]


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
    r"""The product of two symmetric tensors that gives an elastic tensor beside A_ij B_kl.

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
