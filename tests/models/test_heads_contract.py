"""What every head promises. A new one joins by a line in ``SCALARS``, ``LEVELS`` or ``TENSORS``."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import pytest
import torch
from ase import Atoms
from schnetpack import properties as host
from schnetpack.atomistic import Atomwise, Forces
from schnetpack.model import NeuralNetworkPotential
from schnetpack.utils import load_model
from scipy.spatial.transform import Rotation
from torch import nn

from schnetpack_phonon.attribution.faithfulness import untrained
from schnetpack_phonon.common.properties import PROPERTIES
from schnetpack_phonon.data.statistics import composition_fit
from schnetpack_phonon.models.band_edges import BandEdges
from schnetpack_phonon.models.elastic_tensor import ElasticTensor
from schnetpack_phonon.models.hamiltonian.head import HamiltonianEdges
from schnetpack_phonon.models.heads import BandGap, Intensive
from schnetpack_phonon.models.stress import HydrostaticStress, StressTensor
from schnetpack_phonon.models.task import ScaledOutput
from schnetpack_phonon.structures import elasticity
from tests.models.model_fixtures import CUTOFF, batch, data_module, potential, scripted, thermal


class Head(NamedTuple):
    """Makes a head for 16 features, and names the representation that it goes with."""

    make: Callable[[], nn.Module]
    representation: str = "PaiNN"


SCALARS = {
    "Intensive": Head(lambda: Intensive(16, "vbm")),
    "Intensive-SO3net": Head(lambda: Intensive(16, "vbm"), "SO3net"),
    "HydrostaticStress": Head(lambda: HydrostaticStress(16)),
    "BandGap": Head(lambda: BandGap(16, "band_gap")),
    "BandEdges": Head(lambda: BandEdges(16, levels_key="levels")),
    "BandEdges-SchNet": Head(lambda: BandEdges(16), "SchNet"),
}
ELEMENTS = ["Ag", "S", "Se", "Br", "I"]
LEVELS = {  # their gaps are no sums over atoms and have no offsets
    "HamiltonianEdges": Head(
        lambda: HamiltonianEdges(ELEMENTS, CUTOFF, kpoint_length=8.0), "NoFeatures"
    ),
    "HamiltonianEdges-PaiNN": Head(
        lambda: HamiltonianEdges(ELEMENTS, CUTOFF, kpoint_length=8.0, n_in=16)
    ),
}
TENSORS: dict[str, Head] = {
    "StressTensor": Head(lambda: StressTensor(16, CUTOFF, bonds_key="bonds")),
    "ElasticTensor": Head(lambda: ElasticTensor(16, CUTOFF, bonds_key="bonds")),
    "ElasticTensor-SchNet": Head(lambda: ElasticTensor(16, CUTOFF), "SchNet"),
    "ElasticTensor-SO3net": Head(lambda: ElasticTensor(16, CUTOFF), "SO3net"),
    "ElasticTensor-positive": Head(lambda: ElasticTensor(16, CUTOFF, positive=True)),
}

# How a property turns with the crystal, by its shape; ``rotation`` acts on Cartesian vectors.
LAWS: dict[tuple[int, ...], Callable[[np.ndarray, np.ndarray], np.ndarray]] = {
    (): lambda value, rotation: value,
    (3, 3): lambda value, rotation: rotation @ value @ rotation.T,
    (6, 6): elasticity.rotated,
}

HEADS = SCALARS | LEVELS | TENSORS
heads = pytest.mark.parametrize("head", HEADS.values(), ids=HEADS)
scalar_heads = pytest.mark.parametrize("head", SCALARS.values(), ids=SCALARS)
dtypes = pytest.mark.parametrize(
    ("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.float64, 1e-10)]
)

FORMULAS = ["Ag3SBr", "Ag3SI", "Ag3SeBr", "Ag3SeI"] * 3
STRUCTURES = [thermal(k, formula, strain=0.02)[1] for k, formula in enumerate(FORMULAS)]


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Labels of all properties, so that offsets and scales of all heads are not trivial."""
    rng = np.random.default_rng(0)
    vbm = [0.1 * k % 4 + rng.normal(3, 0.1) for k in range(len(FORMULAS))]
    gap = rng.uniform(0.3, 0.9, len(FORMULAS))
    stress = rng.normal(0, 0.02, (len(FORMULAS), 3, 3))
    elastic = rng.normal(0, 10, (len(FORMULAS), 6, 6))
    labels = {"band_gap": gap, "vbm": vbm, "cbm": vbm + gap}
    labels |= {"hydrostatic_stress": rng.normal(0, 0.02, len(FORMULAS))}
    labels |= {"stress": stress + stress.mT, "elastic_tensor": elastic + elastic.mT}
    path = tmp_path_factory.mktemp("contract") / "labels.db"
    return data_module(path, STRUCTURES, range(10), **labels)


@pytest.fixture
def fitted(data):
    """Head -> a PaiNN with it, with offsets and scales of the training set."""

    def make(head: Head, *others: nn.Module, dtype=torch.float32) -> NeuralNetworkPotential:
        model = potential(head.make(), *others, representation=head.representation, dtype=dtype)
        model.initialize_transforms(data)  # SchNetPack's call before a fit
        return model

    return make


def values(model: nn.Module, structures: list[Atoms], dtype=torch.float32) -> dict[str, np.ndarray]:
    """All properties of structures that a model gives, shape=(n_structures, ...)."""
    results = model(batch(structures, dtype))
    return {
        key: value.detach().numpy()
        for key, value in results.items()
        if len(value) == len(structures)
    }


ROTATION = Rotation.random(rng=0).as_matrix()


def rotated(atoms: Atoms) -> Atoms:
    result = atoms.copy()
    result.set_cell(atoms.cell.array @ ROTATION.T, scale_atoms=True)
    return result


def translated(atoms: Atoms) -> Atoms:
    result = atoms.copy()
    result.translate([1.3, -0.4, 7.1])
    result.wrap()
    return result


def close(found: np.ndarray, expected: np.ndarray, tolerance: float) -> None:
    """Within the tolerance, in units of the largest component where that is above 1."""
    scale = max(np.abs(expected).max(), 1.0)
    np.testing.assert_allclose(found, expected, rtol=0, atol=tolerance * scale)


@heads
@dtypes
@pytest.mark.parametrize(
    ("same_crystal", "rotation"),
    [
        (lambda a: a.repeat(2), np.eye(3)),
        (lambda a: a[[3, 0, 4, 2, 1]], np.eye(3)),
        (translated, np.eye(3)),
        (rotated, ROTATION),
    ],
    ids=["supercell", "permutation", "translation", "rotation"],
)
def test_same_crystal_same_value(head, dtype, tolerance, same_crystal, rotation, fitted):
    if head.representation == "SO3net":  # SchNetPack keeps its constants in float32
        tolerance = max(tolerance, 1e-8)
    model = fitted(head, dtype=dtype)
    first = values(model, STRUCTURES[:1], dtype)
    second = values(model, [same_crystal(STRUCTURES[0])], dtype)
    assert first.keys() == second.keys()
    for key, (value,) in first.items():
        close(second[key][0], LAWS[value.shape](value, rotation), tolerance)


@heads
@dtypes
def test_batch_equals_single_structures(head, dtype, tolerance, fitted):
    structures = [STRUCTURES[0], STRUCTURES[1].repeat((2, 1, 1)), STRUCTURES[2][:3]]
    model = fitted(head, dtype=dtype)
    single = [values(model, [atoms], dtype) for atoms in structures]
    for key, together in values(model, structures, dtype).items():
        # The structures differ, so a mix-up would show.
        assert together.std(axis=0).max() > 0.01 * np.abs(together).max()
        close(together, np.concatenate([values[key] for values in single]), tolerance)


@heads
@pytest.mark.parametrize("training", [False, True])
def test_scripted_model_equals_eager(head, training, fitted):
    """With forces; without them it is in the tests of ScaledTask, which makes it possible."""
    others = [Atomwise(16, output_key="energy"), Forces()]
    if head.representation == "NoFeatures":
        others = [Forces(energy_key="band_gap")]
    model = fitted(head, *others).train(training)
    eager = model(batch(STRUCTURES[:3]))
    loaded = scripted(model)
    for _ in range(3):  # TorchScript fuses operations after the first calls
        found = loaded(batch(STRUCTURES[:3]))
        assert found.keys() == eager.keys()
        for key in eager:
            torch.testing.assert_close(found[key], eager[key].float(), rtol=1e-5, atol=1e-5)


@heads
@pytest.mark.filterwarnings("ignore:You are using `torch.load`:FutureWarning")
def test_stored_model_is_the_same(head, fitted, tmp_path):
    model = fitted(head)
    torch.save(model, tmp_path / "best_model")
    loaded = load_model(tmp_path / "best_model")
    np.testing.assert_equal(values(loaded, STRUCTURES), values(model, STRUCTURES))


@heads
def test_checkpoint_holds_offsets_and_scales(head, fitted):
    model = fitted(head)
    fresh = potential(head.make(), representation=head.representation, seed=1)
    mine, others = (values(each, STRUCTURES) for each in (model, fresh))
    assert not any(np.allclose(mine[key], others[key]) for key in mine)
    fresh.load_state_dict(model.state_dict())
    np.testing.assert_equal(values(fresh, STRUCTURES), mine)


@heads
def test_gradient_is_the_slope(head, fitted):
    """Of each output by the positions, against central differences along a random direction."""
    model = fitted(head, dtype=torch.float64)
    direction = np.random.default_rng(1).normal(size=STRUCTURES[0].positions.shape)

    def results(step: float) -> dict[str, torch.Tensor]:
        atoms = STRUCTURES[0].copy()
        atoms.positions += step * direction
        inputs = batch([atoms], torch.float64)
        inputs[host.R].requires_grad_()
        return model(inputs) | {host.R: inputs[host.R]}

    step = 1e-4
    ends, here = [results(-step), results(step)], results(0.0)
    for key in model.model_outputs:
        slope = (ends[1][key].sum() - ends[0][key].sum()).item() / (2 * step)
        (gradient,) = torch.autograd.grad(here[key].sum(), here[host.R], retain_graph=True)
        assert (gradient.numpy() * direction).sum() == pytest.approx(slope, rel=1e-5, abs=1e-8)
        assert abs(slope) > 1e-4


@heads
@pytest.mark.parametrize("missing", [1, 3], ids=["some", "all"])
def test_missing_labels_leave_gradients_finite(head, missing, data, fitted):
    """In training, of some structures or of all; those without a label push nothing."""
    model = fitted(head).train()
    results = model(batch(STRUCTURES[:3]))
    names = [key for key in model.model_outputs if key in data.dataset.available_properties]
    outputs = [ScaledOutput(name, nn.MSELoss(), metrics={}) for name in names]
    target = {name: results[name].detach() + 1.0 for name in names}
    for label in target.values():
        label[:missing] = torch.nan
    loss = sum(output.calculate_loss(results, target) for output in outputs)
    by_structure = torch.autograd.grad(loss, [results[name] for name in names], retain_graph=True)
    loss.backward()
    for gradient in by_structure:
        assert not gradient[:missing].any()
        assert gradient[missing:].all()
    gradients = [parameter.grad for parameter in model.parameters()]
    assert all(gradient is not None and gradient.isfinite().all() for gradient in gradients)
    assert any(gradient.any() for gradient in gradients) == (missing < 3)


@scalar_heads
def test_offsets_are_those_of_the_training_set(head, data, fitted):
    """A network that gives 0 leaves the fit to the composition."""
    model = fitted(head)
    for parameter in model.output_modules.parameters():
        nn.init.zeros_(parameter)
    results = model(batch(STRUCTURES))
    checked = 0
    for key in data.dataset.available_properties:
        if key in results:
            offset, _ = composition_fit(data, key)
            fit = [offset[atoms.numbers].mean() for atoms in STRUCTURES]
            np.testing.assert_allclose(results[key].detach(), fit, atol=1e-5)
            checked += 1
    assert checked


@heads
def test_fresh_weights_for_controls(head, fitted):
    """Nothing of a trained head stays but its offsets and scales (a warning would fail)."""
    model = fitted(head)
    control = untrained(model, seed=0)
    (mine,), (fresh,) = model.output_modules, control.output_modules
    trained = dict(mine.named_parameters())
    for name, parameter in fresh.named_parameters():
        assert not torch.equal(parameter, trained[name]), name
    buffers = dict(mine.named_buffers())
    assert all(torch.equal(buffer, buffers[name]) for name, buffer in fresh.named_buffers())


@heads
@pytest.mark.parametrize(
    ("labels", "message"),
    [
        ({"forces": 1.0}, "{path}.*there are forces"),
        ({"KEY": np.nan}, "no training structure in {path} has a label.*'{key}'"),
        ({"KEY": np.ones(2)}, r"'{key}' of structure 0 in {path} has shape \(1, 2\)"),
    ],
    ids=["no property", "no label", "shape"],
)
def test_bad_labels_are_named_before_the_fit(head, labels, message, tmp_path):
    model, path = potential(head.make()), tmp_path / "labels.db"
    key = model.output_modules[0].model_outputs[0]
    shape = PROPERTIES[key].shape
    labels = {
        name.replace("KEY", key): [np.full(shape, label) if np.ndim(label) == 0 else label] * 3
        for name, label in labels.items()
    }
    data = data_module(path, STRUCTURES[:3], [0, 1], **labels)
    with pytest.raises(ValueError, match=message.format(path=path, key=key)):
        model.initialize_transforms(data)
