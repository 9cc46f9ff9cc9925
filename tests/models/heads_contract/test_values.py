"""What every head promises of its values; a new one joins in heads_contract_fixtures."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from ase import Atoms
from schnetpack.atomistic import Atomwise, Forces
from schnetpack.utils import load_model
from scipy.spatial.transform import Rotation
from torch import nn

from schnetpack_phonon.structures import elasticity
from tests.models.heads_contract.heads_contract_fixtures import STRUCTURES, heads
from tests.models.model_fixtures import batch, potential, scripted

# How a property turns with the crystal, by its shape; ``rotation`` acts on Cartesian vectors.
LAWS: dict[tuple[int, ...], Callable[[np.ndarray, np.ndarray], np.ndarray]] = {
    (): lambda value, rotation: value,
    (3, 3): lambda value, rotation: rotation @ value @ rotation.T,
    (6, 6): elasticity.rotated,
}


dtypes = pytest.mark.parametrize(
    ("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.float64, 1e-10)]
)


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
