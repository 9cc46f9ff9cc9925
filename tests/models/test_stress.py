import numpy as np
import pytest
import torch
from ase.units import GPa
from schnetpack.atomistic import Forces, Strain
from schnetpack.model import NeuralNetworkPotential

from schnetpack_phonon.models.heads import Energy
from schnetpack_phonon.models.stress import HydrostaticStress, StressTensor, StressTrace
from schnetpack_phonon.structures.elasticity import strained
from tests.models.model_fixtures import CUTOFF, batch, data_module, potential, thermal

STRUCTURES = [thermal(k, strain=0.02)[1] for k in range(4)]


def from_energy(dtype: torch.dtype = torch.float64) -> NeuralNetworkPotential:
    """SchNetPack's way: stress as a derivative of the energy by strain."""
    model = potential(Energy(16), dtype=dtype, smooth=True)
    heads = [*model.output_modules, Forces(calc_stress=True), StressTrace()]
    return NeuralNetworkPotential(model.representation, [Strain(), *model.input_modules], heads)


def test_stress_from_the_energy_is_its_slope_by_strain():
    """ASE's sign: dE/deps over the volume; each component, by differences."""
    model, atoms, step = from_energy().eval(), STRUCTURES[0], 1e-5
    results = model(batch([atoms], torch.float64))
    stress = results["stress"][0].numpy(force=True)
    for i, j in np.ndindex(3, 3):
        strain = np.zeros((3, 3))
        strain[i, j] += step / 2
        strain[j, i] += step / 2
        energies = [
            model(batch([strained(atoms, sign * strain)], torch.float64))["energy"].item()
            for sign in (1, -1)
        ]
        slope = (energies[0] - energies[1]) / (2 * step) / atoms.get_volume()
        assert stress[i, j] == pytest.approx(slope, rel=1e-6, abs=1e-9)
    assert results["hydrostatic_stress"].item() == pytest.approx(np.trace(stress) / 3)
    assert np.abs(stress).max() > 1e-3 * GPa


def fitted(tmp_path, head, **labels):
    data = data_module(tmp_path / "labels.db", STRUCTURES, range(4), **labels)
    model = potential(head)
    model.initialize_transforms(data)
    return model


def test_bonds_add_up_to_the_stress(tmp_path):
    """What is left is the mean pressure of the training set, here of one composition."""
    rng = np.random.default_rng(0)
    labels = rng.normal(0, 0.02, (4, 3, 3))
    labels = labels + labels.swapaxes(1, 2) + 0.1 * np.eye(3)
    model = fitted(tmp_path, StressTensor(16, CUTOFF, bonds_key="bonds"), stress=labels)
    results = model(batch(STRUCTURES[:1]))
    rest = results["stress"][0] - results["bonds"].sum(0)
    mean = labels.trace(axis1=1, axis2=2).mean() / 3
    torch.testing.assert_close(rest, torch.eye(3) * mean, rtol=1e-4, atol=1e-6)


def test_bonds_pull_along_themselves():
    """No shear of the plane across a bond: an axis and an isotropic part are all it has."""
    model = potential(StressTensor(16, CUTOFF, bonds_key="bonds"), dtype=torch.float64)
    inputs = batch(STRUCTURES[:1], torch.float64)
    bonds = model(inputs)["bonds"]
    eigenvalues = torch.linalg.eigvalsh(bonds)
    gaps = eigenvalues.diff(dim=1)
    assert (gaps.min(dim=1).values < 1e-9).all()
    direction = inputs["_Rij"] / inputs["_Rij"].norm(dim=1, keepdim=True)
    along = (bonds @ direction.unsqueeze(-1)).squeeze(-1)
    across = torch.linalg.cross(along, direction)
    assert across.abs().max() < 1e-9


@pytest.mark.parametrize(
    ("head", "label"),
    [
        (HydrostaticStress(16), np.full(4, 0.1)),
        (StressTensor(16, CUTOFF), np.tile(0.1 * np.eye(3), (4, 1, 1))),
    ],
    ids=lambda value: type(value).__name__,
)
def test_other_units_are_named_before_the_fit(head, label, tmp_path):
    key = head.model_outputs[0]
    path, units = tmp_path / "labels.db", {key: "GPa"}
    data = data_module(path, STRUCTURES, range(4), property_units=units, **{key: label})
    with pytest.raises(ValueError, match=f"'{key}' comes in 'GPa'; expected 'eV/Ang/Ang/Ang'"):
        potential(head).initialize_transforms(data)
