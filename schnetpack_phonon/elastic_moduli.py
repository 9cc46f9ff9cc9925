"""An output module that gives engineering moduli of predicted elastic tensors."""

from __future__ import annotations

import torch
from torch import nn

from schnetpack_phonon import voigt
from schnetpack_phonon.common import properties


class ElasticModuli(nn.Module):
    """Moduli of the polycrystal, anisotropy and stability, from an elastic tensor.

    Outputs, each of shape=(n_structures,): ``bulk_modulus``, ``shear_modulus``, ``young_modulus``
    (in GPa) and ``poisson_ratio``, with ``_voigt``, ``_reuss`` and ``_hill`` after each name;
    ``universal_anisotropy``; ``softest_stiffness``, the smallest eigenvalue of the tensor in GPa
    (in Mandel's notation, so that rotations leave it): Born's criterion is that it is positive, for
    a crystal without stress. Definitions are those of :mod:`.structures.elasticity`. Reuss
    averages of a tensor with an eigenvalue near zero diverge, and mean nothing below.

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
        weights = voigt.multiplicities().to(tensor).sqrt()
        mandel = torch.outer(weights, weights)
        compliance = torch.linalg.inv_ex(tensor * mandel)[0] / mandel
        upper = voigt.isotropic_part(tensor)
        lower = voigt.isotropic_part(compliance).reciprocal()
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
