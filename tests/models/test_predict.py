"""Predictions against the bare model, ASE's differences, and what goes wrong in use."""

from __future__ import annotations

import copy
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from ase import Atoms
from ase.calculators.calculator import PropertyNotImplementedError
from ase.calculators.fd import calculate_numerical_forces, calculate_numerical_stress
from schnetpack.atomistic import Atomwise, Forces, PairwiseDistances, Strain
from schnetpack.model import NeuralNetworkPotential
from schnetpack.transform import AddOffsets
from torch import nn

from schnetpack_phonon.common.files import Trust
from schnetpack_phonon.models.band_edges import BandEdges
from schnetpack_phonon.models.heads import Energy, Intensive
from schnetpack_phonon.models.predict import ModelCalculator, Predictor
from schnetpack_phonon.models.stress import StressTensor
from tests.models.model_fixtures import CUTOFF, REPRESENTATIONS, batch, potential, thermal

STRUCTURES = [thermal(1)[1], thermal(2, "Ag3SeI")[1].repeat((2, 1, 1)), thermal(3)[1]]
EDGES = ("band_gap", "vbm", "cbm")
TRUST = Trust(everything=True)
OLD_MODEL = Path(__file__).parents[1] / "data/version_0.1/runs/schnetpack_2.1/best_model"


def mechanical() -> NeuralNetworkPotential:
    """Energy, forces and stress from SchNetPack, gap and edges from us, in double precision."""
    parts = potential(BandEdges(16), Atomwise(16, output_key="energy"), dtype=torch.float64)
    model = NeuralNetworkPotential(
        parts.representation,
        [Strain(), PairwiseDistances()],
        [*parts.output_modules, Forces(calc_stress=True)],
    )
    model.training_units = {"energy": "eV"}
    return model.double()


class Tensor(nn.Module):
    """Six by six numbers a structure, and four a atom, that tell what they belong to."""

    model_outputs = ("elastic_tensor", "levels")

    def forward(self, inputs):
        n_atoms = inputs["_n_atoms"]
        inputs["elastic_tensor"] = n_atoms[:, None, None] + torch.arange(36.0).reshape(6, 6)
        inputs["levels"] = inputs["_atomic_numbers"][:, None] + torch.arange(4.0)
        return inputs


@pytest.mark.parametrize("batch_size", [1, 2, 10])
def test_predictions_are_those_of_the_model(batch_size):
    model = mechanical()
    found = Predictor(model, batch_size=batch_size)(STRUCTURES)
    for atoms, values in zip(STRUCTURES, found, strict=True):
        bare = model(batch([atoms], torch.float64))
        assert values.keys() == bare.keys() == {*EDGES, "energy", "forces", "stress"}
        for key in bare:
            expected = bare[key] if key == "forces" else bare[key][0]
            assert values[key].shape == expected.shape
            np.testing.assert_allclose(values[key], expected.detach(), rtol=1e-9, atol=1e-12)


def test_single_and_double_precision():
    """Small differences need double: of 1e-7 Ang, which float32 does not resolve."""
    model = potential(Atomwise(16, output_key="energy")).eval()
    model.training_units = {"energy": "eV"}
    moved = STRUCTURES[0].copy()
    moved.positions[1] += 1e-7
    single, double = (
        [row["energy"] for row in Predictor(model, dtype=dtype)([STRUCTURES[0], moved])]
        for dtype in (None, torch.float64)
    )
    assert {each.dtype for each in double} == {np.dtype("float64")}
    np.testing.assert_allclose(double, single, rtol=1e-5)
    calculator = ModelCalculator(Predictor(copy.deepcopy(model).double()))
    reference = [calculator.get_potential_energy(atoms) for atoms in (STRUCTURES[0], moved)]
    np.testing.assert_array_equal(double, reference)
    assert abs(np.subtract(*double)) > 0
    assert next(model.parameters()).dtype == torch.float32


@pytest.mark.parametrize("representation", REPRESENTATIONS)
def test_any_representation_of_the_host_will_do(representation):
    model = potential(BandEdges(16), representation=representation)
    (found,) = Predictor(model)(STRUCTURES[:1])
    assert found["band_gap"] == pytest.approx(model(batch(STRUCTURES[:1]))["band_gap"].item())


def test_structures_and_atoms_are_told_apart():
    """One atom or as many structures as atoms; keys that we know and others."""
    atom = Atoms("Ag", cell=[3, 3, 3], pbc=True)
    for structures in ([atom] * 2, STRUCTURES, [atom]):
        model = potential(Intensive(16, "vbm"), Tensor())
        found = Predictor(model, units={"elastic_tensor": "GPa"})(structures)
        for atoms, values in zip(structures, found, strict=True):
            assert values["vbm"].shape == ()
            assert values["elastic_tensor"].shape == (6, 6)
            assert values["elastic_tensor"][0, 0] == len(atoms)
        if len(structures) == 3:
            for atoms, values in zip(structures, found, strict=True):
                np.testing.assert_array_equal(values["levels"][:, 0], atoms.numbers)


@pytest.mark.parametrize("batch_size", [1, 2, 10])
def test_outputs_of_bonds_come_with_their_atoms(batch_size):
    """What bonds of each structure add makes up all of its stress that is not isotropic offset."""
    model = potential(StressTensor(16, CUTOFF, bonds_key="bonds"), dtype=torch.float64)
    found = Predictor(model, batch_size=batch_size)(STRUCTURES)
    for atoms, values in zip(STRUCTURES, found, strict=True):
        np.testing.assert_allclose(values["bonds"].sum(0), values["stress"], atol=1e-12)
        first, second, vectors = (values[f"bond_{key}"] for key in ("i", "j", "vectors"))
        assert len(values["bonds"]) == len(first) == len(vectors)
        assert set(first) == set(range(len(atoms)))
        images = vectors - (atoms.positions[second] - atoms.positions[first])
        counts = atoms.cell.scaled_positions(images)
        np.testing.assert_allclose(counts, counts.round(), atol=1e-9)
        assert np.linalg.norm(vectors, axis=1).max() < CUTOFF


def test_calculator_gives_derivatives_of_its_energy():
    """Forces in eV/Ang and stress in ASE's order and sign, against ASE's finite differences."""
    atoms = STRUCTURES[0].copy()
    atoms.calc = ModelCalculator(mechanical())
    forces, stress = atoms.get_forces(), atoms.get_stress()
    assert np.abs(stress).max() > 1e-4
    np.testing.assert_allclose(forces, calculate_numerical_forces(atoms, eps=1e-4), atol=1e-6)
    np.testing.assert_allclose(stress, calculate_numerical_stress(atoms, eps=1e-5), atol=1e-7)
    assert atoms.get_potential_energy(force_consistent=True) == atoms.get_potential_energy()


def large(case: str) -> NeuralNetworkPotential:
    """Energies of -732 eV an atom, or band edges at 732 eV, in single precision."""
    if case == "AddOffsets":
        model = potential(Atomwise(16, output_key="energy"), Forces())
        model.training_units = {"energy": "eV"}
        model.postprocessors.append(AddOffsets("energy", add_mean=True))
        model.postprocessors[0].mean = torch.tensor([-731.7], dtype=torch.float64)
        return model
    model = potential(Energy(16), Forces()) if case == "Energy" else potential(BandEdges(16))
    model.output_modules[0].offset[:] = -731.7
    return model


@pytest.mark.parametrize("case", ["Energy", "AddOffsets", "BandEdges"])
def test_large_offsets_do_not_round_small_changes(case):
    """Changes by small displacements are those of the same model in double precision."""
    model = large(case)
    structures = [STRUCTURES[1].copy() for _ in range(6)]
    for k, atoms in enumerate(structures):
        atoms.positions[0, 0] += 1e-4 * k
    found, expected = (Predictor(one)(structures) for one in (model, copy.deepcopy(model).double()))
    for key in {"energy", "energy_per_atom", "vbm", "cbm", "band_gap"} & {*model.model_outputs}:
        mine, theirs = (np.array([one[key] for one in rows]) for rows in (found, expected))
        assert np.abs(theirs[0]) > 700 or key == "band_gap"
        np.testing.assert_allclose(mine - mine[0], theirs - theirs[0], atol=1e-6)


@pytest.mark.parametrize("case", ["Energy", "AddOffsets"])
def test_forces_are_finite_differences_of_large_energies(case):
    atoms = STRUCTURES[0].copy()
    atoms.calc = ModelCalculator(large(case))
    forces = atoms.get_forces()
    np.testing.assert_allclose(forces, calculate_numerical_forces(atoms, eps=1e-3), atol=1e-3)


def test_calculator_gives_gap_and_edges():
    model = mechanical()
    atoms = STRUCTURES[0].copy()
    atoms.calc = ModelCalculator(model)
    expected = model(batch([atoms], torch.float64))
    for key in EDGES:
        value = atoms.calc.get_property(key, atoms)
        assert isinstance(value, float)
        assert value == pytest.approx(expected[key].item(), rel=1e-9)
    before = atoms.calc.get_property("band_gap", atoms)
    atoms.rattle(0.05, seed=1)
    assert atoms.calc.get_property("band_gap", atoms) != before


def test_calculator_multiplies_energies_per_atom():
    model = potential(Intensive(16, "energy_per_atom"))
    for atoms in STRUCTURES[:2]:
        single = atoms.copy()
        single.calc = ModelCalculator(model)
        per_atom = model(batch([atoms]))["energy_per_atom"].item()
        assert single.get_potential_energy() == pytest.approx(len(atoms) * per_atom, rel=1e-5)


def test_calculator_names_what_the_model_does_not_give():
    atoms = STRUCTURES[0].copy()
    atoms.calc = ModelCalculator(potential(BandEdges(16)))
    with pytest.raises(PropertyNotImplementedError, match="'forces'; it predicts band_gap, cbm"):
        atoms.get_forces()


@pytest.mark.parametrize("place", ["file", "run folder"])
def test_models_are_read_from_runs(tmp_path, place):
    model = potential(BandEdges(16))
    torch.save(model, tmp_path / "best_model")
    path = tmp_path if place == "run folder" else tmp_path / "best_model"
    with pytest.raises(
        ValueError, match=r"best_model is a pickle without best_model.npz .* --trust"
    ):
        Predictor(path)
    opened = Predictor(path, trust=TRUST)
    for mine, theirs in zip(opened(STRUCTURES), Predictor(model)(STRUCTURES), strict=True):
        np.testing.assert_equal(mine, theirs)


def test_opening_a_model_imports_little():
    """Beside what SchNetPack itself imports (matplotlib, through torchmetrics, among it)."""
    code = f"""
import sys, warnings
warnings.simplefilter("ignore")
import schnetpack.task
from ase.build import bulk
before = set(sys.modules)
import schnetpack_phonon.models
from schnetpack_phonon.common import Trust
from schnetpack_phonon.models import Predictor
(found,) = Predictor({str(OLD_MODEL)!r}, trust=Trust(everything=True))(
    [bulk("AgBr", "rocksalt", a=5.8)]
)
assert found["band_gap"] >= 0
new = set(sys.modules) - before
heavy = {{"phonopy", "matplotlib", "loky", "pandas", "hydra", "tblite", "spglib"}}
assert not heavy & {{name.split(".")[0] for name in new}}, heavy & new
ours = {{name.split(".")[1] for name in new if name.startswith("schnetpack_phonon.")}}
assert not ours & {{"cli", "evaluation", "attribution", "ensembles", "phonons", "labels"}}, ours
data = {{name for name in new if name.startswith("schnetpack_phonon.data.")}}
assert data <= {{"schnetpack_phonon.data.statistics"}}, data
"""
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "no file .*best_model; expected a run folder"),
        ({"state_dict": {}}, "best_model holds no model; expected the best_model of a run"),
    ],
    ids=["nothing", "checkpoint"],
)
def test_what_is_no_model_is_named(tmp_path, content, message):
    if content is not None:
        torch.save(content, tmp_path / "best_model")
    with pytest.raises(ValueError, match=message):
        Predictor(tmp_path, trust=TRUST)


def test_elements_that_were_not_trained_on_are_refused():
    model = potential(BandEdges(16))
    model.register_buffer("trained_elements", torch.zeros(101, dtype=torch.bool))
    model.trained_elements[[47, 16, 35]] = True
    predictor = Predictor(model)
    predictor(STRUCTURES[:1])
    with pytest.raises(ValueError, match="holds I, Se; the model was trained on Ag, Br, S:"):
        predictor(STRUCTURES)


def test_stress_needs_a_crystal():
    slab = STRUCTURES[0].copy()
    slab.pbc = [True, True, False]
    with pytest.raises(ValueError, match=r"\[True, True, False\]; the model predicts stress"):
        Predictor(mechanical())([slab])
    assert Predictor(potential(BandEdges(16)))([slab])[0]["band_gap"] >= 0
