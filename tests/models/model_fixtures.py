"""Small crystals, batches, databases and models of SchNetPack for the tests of the model side."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType

import numpy as np
import schnetpack as spk
import torch
from ase import Atoms
from pytorch_lightning import Trainer
from schnetpack import properties as host
from schnetpack.data import AtomsDataModule
from schnetpack.data.atoms import ASEAtomsData
from schnetpack.interfaces import AtomsConverter
from schnetpack.model import NeuralNetworkPotential
from schnetpack.transform import CastTo32, MatScipyNeighborList
from torch import nn

from schnetpack_phonon.common.properties import PROPERTIES
from schnetpack_phonon.models.cutoffs import PolynomialCutoff
from schnetpack_phonon.models.hamiltonian.environment import NoFeatures
from schnetpack_phonon.structures.crystals import antiperovskite

CUTOFF = 5.0
REPRESENTATIONS = ("PaiNN", "SchNet", "SO3net", "FieldSchNet")


def thermal(
    seed: int = 0, formula: str = "Ag3SBr", amplitude: float = 0.1, strain: float = 0.0
) -> tuple[Atoms, Atoms]:
    """Five atoms of a crystal, and the same displaced and strained at random."""
    ideal = antiperovskite(formula)
    displaced = ideal.copy()
    rng = np.random.default_rng(seed)
    deformation = np.eye(3) + strain * rng.normal(size=(3, 3))
    displaced.set_cell(ideal.cell.array @ deformation, scale_atoms=True)
    displaced.positions += rng.normal(0, amplitude, displaced.positions.shape)
    return ideal, displaced


def passing() -> tuple[Atoms, Atoms]:
    """One atom that comes within 4.5 Ang of the other only midway."""
    ideal = Atoms("NaCl", positions=[[0, 0, 0], [-4, 4.5, 0]], cell=[40, 40, 40], pbc=True)
    displaced = ideal.copy()
    displaced.positions[1, 0] = 4
    return ideal, displaced


def batch(
    structures: Sequence[Atoms], dtype: torch.dtype = torch.float32, **labels: np.ndarray
) -> dict[str, torch.Tensor]:
    """What SchNetPack's loader gives for these structures, with labels beside them."""
    inputs = AtomsConverter(MatScipyNeighborList(cutoff=CUTOFF), dtype=dtype)(list(structures))
    return inputs | {key: torch.as_tensor(value).to(dtype) for key, value in labels.items()}


def potential(
    *heads: nn.Module,
    representation: str = "PaiNN",
    dtype: torch.dtype = torch.float32,
    seed: int = 0,
    trainable_basis: bool = False,
    smooth: bool = False,
    fields: Sequence[str] = (),
) -> NeuralNetworkPotential:
    """A model of SchNetPack with 16 features and random weights, in evaluation mode.

    ``smooth`` takes our cutoff in place of SchNetPack's cosine. ``fields`` are external ones that
    FieldSchNet reads.
    """
    if representation == "NoFeatures":
        return assemble(NoFeatures(CUTOFF), *heads, dtype=dtype, seed=seed)
    parts = {
        "n_atom_basis": 16,
        "n_interactions": 2,
        "radial_basis": spk.nn.GaussianRBF(10, CUTOFF, trainable=trainable_basis),
        "cutoff_fn": PolynomialCutoff(CUTOFF) if smooth else spk.nn.CosineCutoff(CUTOFF),
    }
    if representation == "SO3net":
        parts["lmax"] = 2
    if representation == "FieldSchNet":
        parts["external_fields"] = list(fields)
    network = getattr(spk.representation, representation)(**parts)
    return assemble(network, *heads, dtype=dtype, seed=seed)


def assemble(
    representation: nn.Module,
    *heads: nn.Module,
    dtype: torch.dtype = torch.float32,
    seed: int = 0,
) -> NeuralNetworkPotential:
    """SchNetPack's model around a representation; weights from ``seed``, none of them zero."""
    model = NeuralNetworkPotential(
        representation, [spk.atomistic.PairwiseDistances()], list(heads)
    ).eval()
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            width = parameter.shape[-1] ** -0.5 if parameter.ndim > 1 else 0.3
            parameter.normal_(0, width, generator=generator)
    return model.to(dtype)


class Cubic(nn.Module):
    """A cutoff function, (1 - d/r)^3."""

    cutoff = torch.tensor([CUTOFF])

    def forward(self, distance: torch.Tensor) -> torch.Tensor:
        return (1 - distance / CUTOFF).clamp(min=0) ** 3


class PairTerms(nn.Module):
    """A representation whose one feature is the sum over an atom's edges of k (1 - d/r)^3.

    The closed form for every edge; k depends on the two species, r is the cutoff.
    """

    def __init__(self, strengths: dict[tuple[int, int], float]):
        super().__init__()
        self.cutoff, self.cutoff_fn = torch.tensor([CUTOFF]), Cubic()
        k = torch.zeros(101, 101)
        for (a, b), value in strengths.items():
            k[a, b] = k[b, a] = value
        self.register_buffer("k", k)

    def forward(self, inputs: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        z, i, j = inputs[host.Z], inputs[host.idx_i], inputs[host.idx_j]
        distance = inputs[host.Rij].norm(dim=1)
        terms = self.k[z[i], z[j]] * self.cutoff_fn(distance)
        feature = spk.nn.scatter_add(terms[:, None], i, dim_size=len(z))
        return inputs | {"scalar_representation": feature}


class Total(nn.Module):
    """Sum of the first feature over the atoms, times a weight of 1."""

    def __init__(self, output_key: str):
        super().__init__()
        self.output_key = output_key
        self.model_outputs = [output_key]
        self.weight = nn.Parameter(torch.ones(()))

    def forward(self, inputs: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        feature = self.weight * inputs["scalar_representation"][:, 0]
        n = len(inputs[host.n_atoms])
        return inputs | {self.output_key: spk.nn.scatter_add(feature, inputs[host.idx_m], n)}


def state(model: nn.Module) -> dict[str, object]:
    """All that a visitor could leave changed in a model, as values that compare with ``==``."""
    return {
        "tensors": {key: value.numpy().tobytes() for key, value in model.state_dict().items()},
        "gradients": [p.grad is None for p in model.parameters()],
        "requires_grad": [p.requires_grad for p in model.parameters()],
        "training": [module.training for module in model.modules()],
        "hooks": [
            (len(module._forward_pre_hooks), len(module._forward_hooks))
            for module in model.modules()
        ],
        "postprocessing": model.do_postprocessing,
        "grad mode": torch.is_grad_enabled(),
    }


def scripted(module: nn.Module) -> torch.jit.ScriptModule:
    """As SchNetPack's spkdeploy does it: script, save, load."""
    file = io.BytesIO()
    torch.jit.save(torch.jit.script(module), file)
    file.seek(0)
    return torch.jit.load(file)


def quiet_trainer(**options) -> Trainer:
    """One epoch on the CPU that prints and writes nothing, unless the options say so."""
    quiet = ("logger", "enable_checkpointing", "enable_progress_bar", "enable_model_summary")
    defaults = {"max_epochs": 1, "accelerator": "cpu", **dict.fromkeys(quiet, False)}
    return Trainer(**defaults | options)


def data_module(
    path: Path,
    structures: Sequence[Atoms],
    train: Sequence[int],
    test: Sequence[int] = (),
    property_units: dict[str, str] | None = None,
    atoms: Mapping[str, Sequence[np.ndarray]] = MappingProxyType({}),
    **labels: Sequence[float] | np.ndarray,
) -> AtomsDataModule:
    """SchNetPack's own data module, set up, on a database of these structures and their labels.

    What is neither for training nor for the test is for validation. Labels of ``atoms`` have a
    row an atom.
    """
    if not path.exists():
        units = {key: PROPERTIES[key].unit for key in (*labels, *atoms)}
        dataset = ASEAtomsData.create(str(path), distance_unit="Ang", property_unit_dict=units)
        rows = [
            {key: np.array([values[k]]) for key, values in labels.items()}
            | {key: values[k] for key, values in atoms.items()}
            for k in range(len(structures))
        ]
        dataset.add_systems(rows, list(structures))
    data = AtomsDataModule(
        str(path),
        batch_size=4,
        test_batch_size=2,
        num_workers=0,
        property_units=property_units,
        transforms=[MatScipyNeighborList(cutoff=CUTOFF), CastTo32()],
    )
    data.train_idx, data.test_idx = list(train), list(test)
    data.val_idx = sorted(set(range(len(structures))) - {*train, *test})
    data.setup()
    return data
