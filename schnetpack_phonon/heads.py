"""Output modules for intensive properties of crystals, drop-ins for SchNetPack's own.

A head returns physical units: it holds the offset and the scale of its property and takes them
from the training set before the first step. Model outputs, losses, metrics and predictions of a
loaded model are therefore the same numbers, and no postprocessor is needed.
"""

from collections.abc import Callable
from typing import Final

import schnetpack.nn as snn
import torch
import torch.nn.functional as F
from schnetpack import properties as structure_keys
from schnetpack.data import AtomsDataModule
from schnetpack.transform import Transform

from schnetpack_phonon.datamodule import composition_fit


class Intensive(Transform):
    r"""Mean over atoms of a network on the scalar features, for properties that do not add up.

    .. math:: y = \sum_Z b_Z c_Z + s \frac{1}{N} \sum_i f(q_i)

    with the share :math:`c_Z` of each element. The offsets :math:`b_Z` and the scale :math:`s` come
    from :func:`schnetpack_phonon.datamodule.composition_fit`.

    Args:
        n_in: number of scalar features.
        output_key: property in the database and in the model's output, shape=(n_structures,).
        n_hidden: width of the hidden layers; halved from layer to layer by default.
        n_layers: of the network f.
        activation: between the layers.
    """

    offset: torch.Tensor
    scale: torch.Tensor

    def __init__(
        self,
        n_in: int,
        output_key: str,
        n_hidden: int | None = None,
        n_layers: int = 2,
        activation: Callable[[torch.Tensor], torch.Tensor] = F.silu,
    ):
        super().__init__()
        self.output_key = output_key
        self.model_outputs = [output_key]
        self.outnet = snn.build_mlp(
            n_in=n_in, n_out=1, n_hidden=n_hidden, n_layers=n_layers, activation=activation
        )
        self.register_buffer("offset", torch.zeros(101))
        self.register_buffer("scale", torch.ones(1))

    def datamodule(self, value: AtomsDataModule) -> None:
        """Takes offset and scale from the training set; the host calls this before a fit."""
        offset, scale = composition_fit(value, self.output_key)
        self.offset, self.scale = offset.to(self.offset), scale.to(self.scale)

    def forward(self, inputs: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        inputs[self.output_key] = self.readout(inputs)
        return inputs

    def readout(self, inputs: dict[str, torch.Tensor]) -> torch.Tensor:
        """The property in physical units, shape=(n_structures,)."""
        offset = self.offset[inputs[structure_keys.Z]].unsqueeze(-1)
        per_atom = offset + self.scale * self.outnet(inputs["scalar_representation"])
        idx_m = inputs[structure_keys.idx_m]
        n_structures = int(idx_m[-1]) + 1
        total = snn.scatter_add(per_atom, idx_m, dim_size=n_structures).squeeze(-1)
        return self.bounded(total / inputs[structure_keys.n_atoms])

    def bounded(self, mean: torch.Tensor) -> torch.Tensor:
        """Keeps the mean within the range of the property, here all numbers."""
        return mean


class BandGap(Intensive):
    """Band gap in eV, never negative and with a gradient where it closes.

    The mean of :class:`Intensive` goes through a softplus that differs from the identity by
    less than 1 meV above 0.25 eV.
    """

    sharpness: Final[float] = 20.0  #: 1/eV

    def bounded(self, mean: torch.Tensor) -> torch.Tensor:
        return F.softplus(mean, beta=self.sharpness)
