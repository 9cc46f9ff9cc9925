"""Levels at the wave vectors of labels as an output of the head, and training from them."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from ase import Atoms
from schnetpack import properties as host
from schnetpack.atomistic import Forces
from torch import nn

from schnetpack_phonon.models.hamiltonian.head import HamiltonianEdges
from schnetpack_phonon.models.hamiltonian.levels import eigenvalues, joined, kpoint_meshes
from schnetpack_phonon.models.predict import Predictor
from schnetpack_phonon.models.task import ScaledOutput, ScaledTask
from schnetpack_phonon.models.trained.start_from import start_from
from tests.models.model_fixtures import (
    CUTOFF,
    batch,
    data_module,
    potential,
    quiet_trainer,
    scripted,
    thermal,
)

ELEMENTS = ["Ag", "S", "Se", "Br", "I"]
STRUCTURES = [thermal(k, formula)[1] for k, formula in enumerate(["Ag3SBr", "Ag3SI"] * 4)]
N_FILLED = 23  # of five atoms
# The third row of the first structure is none; those of the second are in another order.
KPOINTS = np.array(
    [
        [[0.0, 0.5, 0.0], [0.0, 0.0, 0.0], [np.nan] * 3, [0.25, -0.25, 0.125]],
        [[0.0, 0.0, 0.0], [0.0, 0.5, 0.0], [0.25, -0.25, 0.125], [-0.25, 0.25, -0.125]],
    ]
)
WITH_WEIGHTS = np.concatenate([KPOINTS, np.full((2, 4, 1), 0.25)], axis=2)
PRESENT = np.isfinite(KPOINTS).all(axis=2)


def made(*others: nn.Module, dtype=torch.float64, seed=0, **options):
    head = HamiltonianEdges(ELEMENTS, CUTOFF, **{"n_levels": 3} | options)
    head.offset[[47, 16, 35, 53]] = torch.tensor([1.0, 2.0, 4.0, 8.0])
    return potential(head, *others, representation="NoFeatures", dtype=dtype, seed=seed)


def results(model, structures: list[Atoms], **labels) -> dict[str, np.ndarray]:
    values = model(batch(structures, torch.float64, **labels))
    return {key: value.detach().numpy() for key, value in values.items()}


def all_levels(model, atoms: Atoms, kpoints: np.ndarray) -> np.ndarray:
    """Relative to the zero of the model, shape=(n_kpoints, n_orbitals)."""
    inputs = batch([atoms], torch.float64)
    inputs = model.input_modules[0](inputs)
    (head,) = model.output_modules
    zero = head.offset[inputs[host.Z]].mean()
    return (eigenvalues(head.hamiltonian(inputs), torch.tensor(kpoints)) + zero).detach().numpy()


@pytest.mark.parametrize("kpoint_length", [0.0, 8.0])
def test_levels_are_at_the_kpoints_of_labels(kpoint_length):
    """The edges stay those of the mesh."""
    model = made(kpoint_length=kpoint_length)
    found = results(model, STRUCTURES[:2], kpoints=WITH_WEIGHTS)
    expected = results(made(kpoint_length=kpoint_length, n_levels=0), STRUCTURES[:2])
    for key, value in expected.items():
        np.testing.assert_allclose(found[key], value, atol=1e-12)
    levels = found["eigenvalues"]
    assert levels.shape == (2, 4, 6)
    np.testing.assert_array_equal(
        np.isfinite(levels), np.broadcast_to(PRESENT[..., None], (2, 4, 6))
    )
    for k, atoms in enumerate(STRUCTURES[:2]):
        own = all_levels(model, atoms, KPOINTS[k][PRESENT[k]])[:, N_FILLED - 3 : N_FILLED + 3]
        np.testing.assert_allclose(levels[k][PRESENT[k]], own, atol=1e-10)


def test_levels_without_kpoints_are_those_of_the_mesh():
    """Of each structure; there are fewer wave vectors in the larger cell."""
    model, structures = made(kpoint_length=8.0), [STRUCTURES[0], STRUCTURES[1].repeat((2, 1, 1))]
    levels = results(model, structures)["eigenvalues"]
    meshes = kpoint_meshes(batch(structures, torch.float64), 8.0)
    found = Predictor(model)(structures)
    for k, (atoms, mesh) in enumerate(zip(structures, meshes, strict=True)):
        n = N_FILLED * len(atoms) // 5
        own = all_levels(model, atoms, mesh.numpy())[:, n - 3 : n + 3]
        np.testing.assert_allclose(levels[k, : len(mesh)], own, atol=1e-10)
        assert np.isnan(levels[k, len(mesh) :]).all()
        np.testing.assert_allclose(found[k]["eigenvalues"], own, atol=1e-10)
        assert found[k]["vbm"] == pytest.approx(own[:, 2].max(), abs=1e-10)
        assert found[k]["cbm"] == pytest.approx(own[:, 3].min(), abs=1e-10)


def test_each_wave_vector_is_calculated_once():
    """Of k and -k, of the mesh and the labels, and of those a lattice vector apart."""
    mesh = torch.tensor([[0.0, 0, 0], [0.5, 0, 0]], dtype=torch.float64)
    given = [[0.5, 0, 0], [0.25, 0, 0], [np.nan] * 3, [-0.25, 0, 0], [0.75, 1, 0], [-0.5, 0, 0]]
    (points,), (places,) = joined([mesh], torch.tensor([given], dtype=torch.float64))
    np.testing.assert_array_equal(points, [[0, 0, 0], [0.5, 0, 0], [0.25, 0, 0]])
    assert places.tolist() == [1, 2, 0, 2, 2, 1]


def test_levels_of_a_supercell_at_gamma_are_those_of_the_cell_at_two_kpoints():
    model, (atoms, *_) = made(), STRUCTURES
    both = np.array([[[0, 0, 0, 0.5], [0, 0, 0.5, 0.5]]])
    (cell,) = results(model, [atoms], kpoints=both)["eigenvalues"]
    gamma = np.array([[[0.0, 0, 0, 1]]])
    (supercell,) = results(model, [atoms.repeat((1, 1, 2))], kpoints=gamma)["eigenvalues"]
    below, above = np.sort(cell[:, :3].ravel())[-3:], np.sort(cell[:, 3:].ravel())[:3]
    np.testing.assert_allclose(supercell[0], [*below, *above], atol=1e-9)


def test_gradients_of_levels_are_the_slopes():
    """Of a random sum of all levels, by positions; rows of NaN give nothing."""
    rng = np.random.default_rng(0)
    factors, model = torch.tensor(rng.normal(size=(2, 4, 6))), made()
    direction = [rng.normal(size=(5, 3)) for _ in range(2)]

    def total(step: float) -> tuple[torch.Tensor, torch.Tensor]:
        structures = [atoms.copy() for atoms in STRUCTURES[:2]]
        for atoms, along in zip(structures, direction, strict=True):
            atoms.positions += step * along
        inputs = batch(structures, torch.float64, kpoints=WITH_WEIGHTS)
        inputs[host.R].requires_grad_()
        positions = inputs[host.R]
        return (factors * model(inputs)["eigenvalues"]).nansum(), positions

    slope = (total(1e-4)[0] - total(-1e-4)[0]).item() / 2e-4
    value, positions = total(0.0)
    (gradient,) = torch.autograd.grad(value, positions)
    assert (gradient.numpy() * np.concatenate(direction)).sum() == pytest.approx(slope, rel=1e-5)


@pytest.mark.parametrize("labels", [{}, {"kpoints": WITH_WEIGHTS}], ids=["mesh", "labels"])
def test_scripted_model_gives_the_same_levels(labels):
    model = made(Forces(energy_key="band_gap"), dtype=torch.float32, kpoint_length=8.0)
    loaded = scripted(model)
    for _ in range(3):  # TorchScript fuses operations after the first calls
        found, eager = (m(batch(STRUCTURES[:2], **labels)) for m in (loaded, model))
        for key, value in eager.items():
            torch.testing.assert_close(
                found[key], value.float(), rtol=1e-5, atol=1e-5, equal_nan=True
            )


def labelled(path, change=(), structures=STRUCTURES, **options):
    """Levels of another model as labels, at two k-points or one; the first structure has none."""
    own = np.array([[[0, 0, 0, 0.5], [0, 0.5, 0, 0.5]]] * len(structures))
    own[0] = own[1, 1] = np.nan
    model = made(seed=1)
    labels = results(model, structures, kpoints=own)
    return data_module(path, structures, range(6), **labels | {"kpoints": own} | dict(change))


def test_training_from_levels_alone(tmp_path):
    """Gaps have no part in the loss. Of the structures with labels, the error falls."""
    data = labelled(tmp_path / "labels.db")
    outputs = [
        ScaledOutput("eigenvalues", nn.SmoothL1Loss()),
        ScaledOutput("band_gap", loss_fn=None),
    ]
    task = ScaledTask(made(dtype=torch.float32).train(), outputs, optimizer_args={"lr": 3e-3})
    trainer = quiet_trainer(max_epochs=8)
    errors = []
    for _ in range(2):
        errors.append(trainer.validate(task, datamodule=data, verbose=False)[0])
        trainer.fit(task, datamodule=data)
    assert all(parameter.isfinite().all() for parameter in task.parameters())
    first, last = (error["val_eigenvalues_mae"] for error in errors)
    assert last < 0.8 * first


def test_training_starts_from_a_model_with_levels_or_without():
    for mine, theirs in ((0, 3), (3, 0), (3, 2)):
        model, trained = made(n_levels=mine), made(n_levels=theirs, seed=1)
        trained.output_modules[0].hamiltonian.nearest.fill_(2.0)  # of its training set
        trained.output_modules[0].slope.fill_(0.1)
        start_from(model, trained)
        found, expected = (results(each, STRUCTURES[:1]) for each in (model, trained))
        assert found["vbm"] == expected["vbm"]


@pytest.mark.parametrize(
    ("n_levels", "change", "message"),
    [
        (2, {}, "structure 0 of .*labels.db has 3 levels on either side.*n_levels=2"),
        (3, {"kpoints": np.full((8, 2, 4), np.nan)}, "structure 1 .*where its 'kpoints' are NaN"),
    ],
    ids=["width", "no wave vectors"],
)
def test_labels_that_do_not_fit_are_refused(n_levels, change, message, tmp_path):
    data = labelled(tmp_path / "labels.db", change)
    with pytest.raises(ValueError, match=message):
        made(n_levels=n_levels).initialize_transforms(data)


def test_levels_need_their_kpoints_and_their_unit(tmp_path):
    path = tmp_path / "labels.db"
    data = labelled(path)
    data.train_dataset.load_properties = ["eigenvalues", "vbm"]
    with pytest.raises(ValueError, match=r"without 'kpoints'.*add kpoints to data.load_properties"):
        made().initialize_transforms(data)
    data = data_module(path, STRUCTURES, range(6), property_units={"eigenvalues": "Hartree"})
    with pytest.raises(ValueError, match="'eigenvalues' comes in 'Hartree'; expected 'eV'"):
        made().initialize_transforms(data)


def test_numbers_of_levels_are_whole_and_there():
    with pytest.raises(ValueError, match="n_levels is -1; expected >= 0"):
        made(n_levels=-1)
    with pytest.raises(ValueError, match=r"expected 30 filled levels.*smaller n_levels"):
        results(made(n_levels=30), STRUCTURES[:1])
