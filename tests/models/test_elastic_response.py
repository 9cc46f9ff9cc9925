"""Second derivatives of energies, against differences of the model's own stress."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from ase import Atoms
from ase.optimize import BFGS
from ase.units import GPa
from schnetpack import properties as host
from schnetpack.atomistic import Atomwise, Forces, Strain
from schnetpack.model import NeuralNetworkPotential

from schnetpack_phonon.models.elastic_response import ElasticResponse, with_elastic_response
from schnetpack_phonon.models.predict import ModelCalculator
from schnetpack_phonon.structures.elasticity import finite_strain_tensor, finite_strains, strained
from tests.models.model_fixtures import (
    REPRESENTATIONS,
    PairTerms,
    Total,
    assemble,
    batch,
    potential,
    scripted,
    state,
    thermal,
)

_, SNAPSHOT = thermal(strain=0.02)


def trained(representation: str = "PaiNN", smooth: bool = True) -> NeuralNetworkPotential:
    """What a user has: SchNetPack's energy and forces."""
    heads = [Atomwise(16, output_key="energy"), Forces()]
    return potential(
        *heads,
        representation=representation,
        dtype=torch.float64,
        smooth=smooth,
        fields=[host.electric_field],
    )


def with_stress(model: NeuralNetworkPotential) -> NeuralNetworkPotential:
    energy = model.output_modules[0]
    return NeuralNetworkPotential(
        model.representation, [Strain(), *model.input_modules], [energy, Forces(calc_stress=True)]
    ).eval()


def inputs_of(structures: list[Atoms]) -> dict[str, torch.Tensor]:
    field = torch.tensor([[0.1, -0.2, 0.3]], dtype=torch.float64).expand(len(structures), 3)
    return batch(structures, torch.float64) | {host.electric_field: field}


def stresses(model: NeuralNetworkPotential, structures: list[Atoms]) -> np.ndarray:
    return with_stress(model)(inputs_of(structures))["stress"].detach().numpy()


@pytest.mark.parametrize("representation", REPRESENTATIONS)
@pytest.mark.parametrize("training", [False, True])
def test_clamped_ion_tensor_is_the_slope_of_the_stress(representation, training):
    """By the definition of the labels, of a snapshot that is under stress."""
    model = trained(representation)
    step = 1e-4
    copies = [strained(SNAPSHOT, strain) for strain in finite_strains(step).reshape(-1, 3, 3)]
    stress = stresses(model, copies).reshape(6, 2, 3, 3)
    expected = finite_strain_tensor(stress / GPa, step)
    results = with_elastic_response(model, ElasticResponse()).train(training)(inputs_of([SNAPSHOT]))
    found = results["elastic_tensor"][0].detach().numpy()
    assert np.abs(stress).max() / GPa > 1e-3 * np.abs(found).max()
    error = np.linalg.norm(found - expected) / np.linalg.norm(expected)
    assert error < 1e-5
    assert results["forces"].shape == (5, 3)  # the graph was there for them, too


def repulsive() -> NeuralNetworkPotential:
    """Pairs that repel each other, each kind as strongly as its atoms are heavy; in closed form."""
    numbers = [16, 35, 47]
    strengths = {(a, b): float(a + b) for a in numbers for b in numbers}
    model = assemble(PairTerms(strengths), Total("energy"), Forces(), dtype=torch.float64)
    torch.nn.init.ones_(model.output_modules[0].weight)
    return model


def relaxed(atoms: Atoms, model: NeuralNetworkPotential) -> Atoms:
    """At fixed cell."""
    atoms = atoms.copy()
    atoms.calc = ModelCalculator(with_stress(model), units={"energy": "eV"})
    assert BFGS(atoms, logfile=None).run(fmax=1e-7, steps=500)
    return atoms


def test_relaxed_ion_tensor_is_that_of_relaxed_copies():
    model = repulsive()
    atoms = relaxed(SNAPSHOT, model)
    results = with_elastic_response(model, ElasticResponse(relaxed_ions=True))(inputs_of([atoms]))
    step = 1e-3
    copies = [strained(atoms, strain) for strain in finite_strains(step).reshape(-1, 3, 3)]
    stress = [relaxed(copy, model).get_stress(voigt=False) for copy in copies]
    expected = finite_strain_tensor(np.reshape(stress, (6, 2, 3, 3)) / GPa, step)
    clamped = results["elastic_tensor"][0].numpy(force=True)
    found = results["elastic_tensor_relaxed"][0].numpy(force=True)
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5 * np.abs(expected).max())
    # Relaxing softens.
    assert np.linalg.eigvalsh(clamped - found)[0] > -1e-6 * np.abs(clamped).max()
    assert np.abs(clamped - found).max() > 0.01 * np.abs(clamped).max()


def test_batch_equals_single_structures():
    model = repulsive()
    first = relaxed(SNAPSHOT, model)
    second = relaxed(thermal(1, "Ag3SI")[1][:3], model)
    giving = with_elastic_response(model, ElasticResponse(relaxed_ions=True))
    structures = [first, second, first.repeat((2, 1, 1))]
    together = giving(inputs_of(structures))
    for k, atoms in enumerate(structures):
        alone = giving(inputs_of([atoms]))
        for key in ("elastic_tensor", "elastic_tensor_relaxed"):
            torch.testing.assert_close(together[key][k], alone[key][0], rtol=1e-9, atol=1e-7)
            # A supercell has the tensor of its cell.
            if k == 2:
                torch.testing.assert_close(alone[key][0], together[key][0], rtol=1e-6, atol=1e-5)


@pytest.mark.parametrize("relaxed_ions", [False, True])
def test_scripted_equals_eager(relaxed_ions):
    response = ElasticResponse(relaxed_ions=relaxed_ions, max_force=100.0)
    model = with_elastic_response(trained(), response)
    expected = model(inputs_of([SNAPSHOT]))
    loaded = scripted(model)
    for _ in range(3):
        found = loaded(inputs_of([SNAPSHOT]))
        for key in expected:
            torch.testing.assert_close(found[key], expected[key], rtol=1e-9, atol=1e-9)


def test_its_error_can_be_trained():
    """A third derivative; against differences along a random direction of the weights."""
    model = with_elastic_response(trained(), ElasticResponse()).train()
    weight = model.representation.interactions[0].interatomic_context_net[0].weight

    def loss() -> torch.Tensor:
        return model(inputs_of([SNAPSHOT]))["elastic_tensor"].square().sum()

    (gradient,) = torch.autograd.grad(loss(), weight)
    direction = torch.randn(weight.shape, generator=torch.Generator().manual_seed(0)).to(weight)
    step, ends = 1e-5, []
    for sign in (1, -1):
        with torch.no_grad():
            weight += sign * step * direction
        ends.append(loss().item())
        with torch.no_grad():
            weight -= sign * step * direction
    slope = (ends[0] - ends[1]) / (2 * step)
    assert (gradient * direction).sum().item() == pytest.approx(slope, rel=1e-5)


def test_structures_that_are_no_minimum_have_no_relaxed_ion_tensor():
    model = with_elastic_response(trained(), ElasticResponse(relaxed_ions=True))
    with pytest.raises(ValueError, match="relax the atoms with this model, or use the clamped"):
        model(inputs_of([SNAPSHOT]))


def test_molecules_have_no_elastic_tensor():
    molecule = SNAPSHOT.copy()
    molecule.pbc = [True, True, False]
    with pytest.raises(ValueError, match="not periodic in all directions"):
        with_elastic_response(trained(), ElasticResponse())(inputs_of([molecule]))


@pytest.mark.parametrize(
    ("before", "after", "message"),
    [
        ([], [], "put schnetpack.atomistic.Strain before PairwiseDistances"),
        ([Strain()], [Forces()], "put ElasticResponse before it"),
    ],
    ids=["no strain", "after the forces"],
)
def test_models_that_lack_something_are_told_so(before, after, message):
    model, response = trained(), ElasticResponse()
    before, after = [*before, *model.input_modules], [model.output_modules[0], *after, response]
    with pytest.raises(ValueError, match=message):
        response.check_model(NeuralNetworkPotential(model.representation, before, after))


def test_trained_models_that_lack_something_are_told_so():
    with pytest.raises(ValueError, match=r"CosineCutoff.*PolynomialCutoff"):
        with_elastic_response(trained(smooth=False), ElasticResponse())
    with pytest.raises(ValueError, match="gives 'enthalpy'; there are energy, for"):
        with_elastic_response(trained(), ElasticResponse(energy_key="enthalpy"))


def test_model_stays_as_it_was():
    model = trained()
    before = state(model)
    with_elastic_response(model, ElasticResponse())(inputs_of([SNAPSHOT]))
    assert state(model) == before
    assert "elastic_tensor" not in model(inputs_of([SNAPSHOT]))
