import numpy as np
import pytest
import torch
from schnetpack.atomistic import Forces

from schnetpack_phonon.models.heads import Energy
from tests.models.model_fixtures import batch, data_module, potential, scripted, thermal

STRUCTURES = [thermal(k, formula)[1] for k, formula in enumerate(["Ag3SBr", "Ag3SI"] * 2)]
ENERGIES = np.array([-100.0, -120.0, -100.2, -120.4])
FORCES = [np.full((5, 3), 0.3)] * 4


def fitted(tmp_path, atoms, dtype=torch.float32, **kwargs):
    data = data_module(
        tmp_path / "a.db", STRUCTURES, range(4), atoms=atoms, energy_per_atom=ENERGIES, **kwargs
    )
    model = potential(Energy(16), Forces(), dtype=dtype)
    model.initialize_transforms(data)
    return model


@pytest.mark.parametrize(
    ("atoms", "expected"), [({"forces": FORCES}, 0.3), ({}, np.sqrt((0.1**2 + 0.2**2) / 2))]
)
def test_scale_is_that_of_the_forces_if_there_are_any(atoms, expected, tmp_path):
    model = fitted(tmp_path, atoms)
    assert model.output_modules[0].scale.item() == pytest.approx(expected)


def test_total_energies_differ_by_composition(tmp_path):
    """A network of zeros leaves the means of both crystals."""
    model = fitted(tmp_path, {"forces": FORCES})
    for parameter in model.output_modules.parameters():
        torch.nn.init.zeros_(parameter)
    structures = [STRUCTURES[0].repeat((2, 1, 1)), STRUCTURES[1]]
    results = model(batch(structures))
    np.testing.assert_allclose(results["energy"].detach(), [-1001.0, -601.0], rtol=1e-6)
    np.testing.assert_allclose(results["energy_per_atom"].detach(), [-100.1, -120.2], rtol=1e-6)


def test_forces_are_the_slope_of_the_total_energy(tmp_path):
    model = fitted(tmp_path, {"forces": FORCES}, torch.float64)
    forces = model(batch(STRUCTURES[:1], torch.float64))["forces"]
    step, energies = 1e-4, []
    for sign in (1, -1):
        moved = STRUCTURES[0].copy()
        moved.positions[2, 1] += sign * step
        energies.append(model(batch([moved], torch.float64))["energy"].item())
    assert forces[2, 1].item() == pytest.approx(-(energies[0] - energies[1]) / (2 * step), rel=1e-6)


def test_scripted_equals_eager(tmp_path):
    model = fitted(tmp_path, {"forces": FORCES})
    expected, loaded = model(batch(STRUCTURES)), scripted(model)
    for _ in range(3):
        found = loaded(batch(STRUCTURES))
        for key in expected:
            torch.testing.assert_close(found[key], expected[key], rtol=1e-5, atol=1e-5)


def test_other_units_are_named_before_the_fit(tmp_path):
    with pytest.raises(ValueError, match="'energy_per_atom' comes in 'kcal/mol'; expected 'eV'"):
        fitted(tmp_path, {}, property_units={"energy_per_atom": "kcal/mol"})
