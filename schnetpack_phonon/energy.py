"""An output module for the energy of crystals, to be differentiated by forces and stress."""

from __future__ import annotations

import torch
from schnetpack import properties as structure_keys
from schnetpack.data import AtomsDataModule

from schnetpack_phonon.common import properties
from schnetpack_phonon.data.statistics import label_spread
from schnetpack_phonon.heads import Intensive, check_unit


class Energy(Intensive):
    r"""Total energy and energy per atom in eV: :class:`.Intensive` times the number of atoms.

    Unlike the host's ``Atomwise`` with ``RemoveOffsets`` it knows a constant for each element, also
    where compositions are too few to tell them apart, and keeps total energies in the model. Put
    the host's ``Forces(calc_stress=True)`` after it. The scale is the spread of the forces (times
    1 Ang), if the database has them, since it is the network's slopes that must learn them.

    Args:
        n_in: number of scalar features.
        energy_key: total energy in the model's output, shape=(n_structures,).
        output_key: energy per atom in the database and in the model's output.
        forces_key: forces in the database.
        kwargs: of :class:`.Intensive`.
    """

    def __init__(
        self,
        n_in: int,
        energy_key: str = properties.energy,
        output_key: str = properties.energy_per_atom,
        forces_key: str = properties.forces,
        **kwargs,
    ):
        super().__init__(n_in, output_key, **kwargs)
        self.energy_key, self.forces_key = energy_key, forces_key
        self.model_outputs = [energy_key, output_key]

    def datamodule(self, value: AtomsDataModule) -> None:
        """Takes offset and scale from the training set.

        Raises:
            ValueError: if there are no energies per atom in eV, or forces in another unit.
        """
        super().datamodule(value)
        check_unit(value, self.output_key)
        if self.forces_key in value.dataset.available_properties:
            check_unit(value, self.forces_key)
            self.scale = label_spread(value, self.forces_key).to(self.scale)

    def forward(self, inputs: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        per_atom = self.readout(inputs)
        inputs[self.output_key] = per_atom
        inputs[self.energy_key] = per_atom * inputs[structure_keys.n_atoms]
        return inputs
