"""Output modules for intensive properties of crystals and for the energy.

A head returns physical units: it holds the offset and the scale of its property and takes them
from the training set before the first step. Outputs of the model, losses, metrics and predictions
of a loaded model are therefore the same numbers, and no postprocessor is needed. Outside of
training, offsets are added in float64: :func:`precise`.
"""

import copy
import math
from collections.abc import Callable

import schnetpack.nn as snn
import torch
import torch.nn.functional as F
from ase.build import bulk
from schnetpack import properties as structure_keys
from schnetpack.data import AtomsDataModule
from schnetpack.interfaces import AtomsConverter
from schnetpack.model import NeuralNetworkPotential
from schnetpack.transform import MatScipyNeighborList, Transform

from schnetpack_phonon.common import properties
from schnetpack_phonon.common.errors import UnitError
from schnetpack_phonon.common.properties import DISTANCE_UNIT, PROPERTIES, expected, factor
from schnetpack_phonon.data.statistics import composition_fit, label_spread, training_labels
from schnetpack_phonon.models.cutoffs import cutoff_of


class Intensive(Transform):
    r"""Mean over atoms of a network on the scalar features, for properties that do not add up.

    .. math:: y = \sum_Z b_Z c_Z + s \frac{1}{N} \sum_i f(q_i)

    with the atomic fraction :math:`c_Z` of each element. The offsets :math:`b_Z` and the scale
    :math:`s` are those of :func:`.composition_fit`.

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
        """Takes offset and scale from the training set; SchNetPack calls this before a fit.

        Raises:
            ValueError: if there are no labels, those of our keys are in another unit than ours, or
                a subclass cannot use them.
        """
        if self.output_key in PROPERTIES and PROPERTIES[self.output_key].unit:
            check_unit(value, self.output_key)
        offset, scale = composition_fit(value, self.output_key, start=self.offset)
        self.offset, self.scale = offset.to(self.offset), scale.to(self.scale)

    def check_model(self, model: NeuralNetworkPotential) -> None:
        """Raises ValueError if a model lacks the features: :func:`check_features`."""
        check_features(model, self.outnet[0].in_features)

    def forward(self, inputs: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        inputs[self.output_key] = self.readout(inputs)
        return inputs

    def readout(self, inputs: dict[str, torch.Tensor]) -> torch.Tensor:
        """The property in physical units, shape=(n_structures,)."""
        offset = precise(self.offset[inputs[structure_keys.Z]].unsqueeze(-1), self.training)
        features = scalar_features(inputs, self.outnet[0].in_features)
        per_atom = offset + self.scale * self.outnet(features)
        return self.bounded(mean_over_atoms(per_atom, inputs).squeeze(-1))

    def bounded(self, mean: torch.Tensor) -> torch.Tensor:
        """The mean, kept within the range of the property; here any number."""
        return mean


class BandGap(Intensive):
    """Band gap in eV, never negative: the mean of :class:`Intensive` through :func:`opened`.

    For data without band edges; with them :class:`.BandEdges` gives all three.
    """

    def datamodule(self, value: AtomsDataModule) -> None:
        super().datamodule(value)
        check_unit(value, self.output_key)
        check_gap(value, self.output_key)

    def bounded(self, mean: torch.Tensor) -> torch.Tensor:
        return opened(mean, 1.0 if self.training else 0.0)


class Energy(Intensive):
    r"""Total energy and energy per atom in eV: :class:`.Intensive` times the number of atoms.

    In contrast to SchNetPack's ``Atomwise`` with ``RemoveOffsets`` it has a constant for each
    element, also if compositions are too few to tell them apart, and keeps total energies in the
    model. Put SchNetPack's ``Forces(calc_stress=True)`` after it. If the database has forces, the
    scale is their spread (times 1 Ang), since the slopes of the network must learn them.

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


def opened(raw: torch.Tensor, pull: float = 0.0, width: float = 0.05) -> torch.Tensor:
    """A gap that is never negative, from any number: max(raw, 0) with a rounded corner.

    The number itself above ``width``, zero below ``-width``, and between them a parabola that keeps
    the slope continuous. With ``pull`` 1 the gradient is that of the number itself, so that a gap
    opens again however far below zero it was predicted; with the square of the error this is the
    gradient of the matching loss, which is convex (Auer, Herbster, Warmuth, NIPS 1995).

    Args:
        raw: in eV, any shape.
        pull: fraction of the number itself in the gradient; 0, the true gradient, outside training.
        width: in eV.
    """
    gap = torch.where(raw.abs() <= width, (raw + width).square() / (4 * width), F.relu(raw))
    return gap + pull * ((raw - raw.detach()) - (gap - gap.detach()))


def precise(offset: torch.Tensor, training: bool) -> torch.Tensor:
    """Offsets in float64, to which predictions are added, unless in training.

    Total energies of pseudopotentials are 1e4 eV and more, of which float32 resolves some meV.
    Scripted models stay in float32, which SchNetPack's interface to LAMMPS reads, and so do Apple's
    GPUs, which have no float64.
    """
    if training or torch.jit.is_scripting() or offset.device.type == "mps":
        return offset
    return offset.double()


def mean_over_atoms(x: torch.Tensor, inputs: dict[str, torch.Tensor]) -> torch.Tensor:
    """Mean over the atoms of each structure, shape=(n_atoms, k) -> (n_structures, k)."""
    n_atoms = inputs[structure_keys.n_atoms]
    total = snn.scatter_add(x, inputs[structure_keys.idx_m], dim_size=n_atoms.shape[0])
    return total / n_atoms.unsqueeze(-1)


def scalar_features(inputs: dict[str, torch.Tensor], n_in: int) -> torch.Tensor:
    """Scalar features of a representation, shape=(n_atoms, n_in).

    Raises:
        ValueError: if there are no such features, or another number of them.
    """
    if "scalar_representation" not in inputs:
        raise ValueError(
            "the representation gives no 'scalar_representation'; expected scalar features of "
            "each atom under that key, as SchNet, PaiNN, SO3net and FieldSchNet give them"
        )
    features = inputs["scalar_representation"]
    if features.dim() != 2 or features.shape[1] != n_in:
        raise ValueError(
            f"the representation gives scalar features of shape {list(features.shape)}; a head "
            f"has n_in={n_in}: set its n_in to the representation's n_atom_basis"
        )
    return features


def check_features(model: NeuralNetworkPotential, n_in: int) -> None:
    """Raises ValueError unless the representation of a model gives ``n_in`` scalar features.

    It is tried on a small crystal. Representations whose cutoff is not known, or that need further
    inputs such as external fields, are checked by :func:`scalar_features` in the first step.
    """
    network = copy.deepcopy(model).cpu().float().eval()
    try:
        neighbours = MatScipyNeighborList(cutoff=cutoff_of(network))
        inputs = AtomsConverter(neighbours, dtype=torch.float32)([bulk("NaCl", "rocksalt", a=5.6)])
        for module in (*network.input_modules, network.representation):
            inputs = module(inputs)
    except (KeyError, ValueError):
        return
    scalar_features(inputs, n_in)


def check_unit(datamodule: AtomsDataModule, key: str) -> None:
    """Raises ValueError unless the data module gives a property in the unit that heads use.

    That is the unit of :mod:`.common.properties`, and eV for other keys; lengths are in Ang.
    """
    wanted, lengths = expected(key) if key in PROPERTIES else "eV", datamodule.dataset.distance_unit
    unit = datamodule.dataset.units.get(key)
    if unit is None:
        return  # no such label, which is named where labels are read
    if not _same(lengths, DISTANCE_UNIT):
        raise ValueError(
            f"positions come in {lengths}; expected {DISTANCE_UNIT}: set distance_unit of the data "
            f"module to {DISTANCE_UNIT}"
        )
    if not _same(unit, wanted):
        raise ValueError(
            f"{key!r} comes in {unit!r}; expected {wanted!r}: set property_units of the data "
            f"module to {{{key}: {wanted}}}, or write the database with its unit"
        )


def _same(unit: str, wanted: str) -> bool:
    try:
        return math.isclose(factor(unit, wanted), 1.0, rel_tol=1e-9)
    except UnitError:  # one that SchNetPack does not know
        return False


def check_gap(datamodule: AtomsDataModule, key: str) -> None:
    """Raises ValueError if a label of the training set is negative."""
    labels, _ = training_labels(datamodule, key)
    for k in torch.nonzero(labels < 0)[:1, 0]:
        raise ValueError(
            f"{key!r} of structure {datamodule.train_idx[k]} in {datamodule.dataset.datapath} is "
            f"{labels[k]:.3g} eV; a gap is never negative: label metals with 0, and structures "
            "without a label with NaN"
        )
