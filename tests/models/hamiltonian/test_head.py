"""Zero of potential, electrons, metals, and what is refused before a fit."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from ase import Atoms
from schnetpack import properties as host

from schnetpack_phonon.models.hamiltonian.head import HamiltonianEdges
from schnetpack_phonon.models.trained.start_from import start_from
from tests.models.model_fixtures import CUTOFF, batch, data_module, potential, thermal

ELEMENTS = ["Ag", "S", "Se", "Br", "I"]
FORMULAS = ["Ag3SBr", "Ag3SI", "Ag3SeBr", "Ag3SeI"] * 2
STRUCTURES = [thermal(k, formula)[1] for k, formula in enumerate(FORMULAS)]
KEYS = ("band_gap", "vbm", "cbm")


def made(elements=ELEMENTS, cutoff=CUTOFF, random=False, **options):
    """A model that starts from free atoms, or with random numbers."""
    model = potential(
        HamiltonianEdges(elements, cutoff, **options),
        representation="NoFeatures",
        dtype=torch.float64,
    )
    if not random:
        model.output_modules[0].hamiltonian.reset_parameters()
    return model


def results(model, structures: list[Atoms]) -> dict[str, np.ndarray]:
    values = model(batch(structures, torch.float64))
    return {key: values[key].detach().numpy() for key in KEYS}


@pytest.mark.parametrize("missing", [None, "vbm", "cbm"])
def test_zero_of_potential_is_that_of_the_labels(missing, tmp_path):
    """Levels of the start, shifted by a number for each element, are predicted at once."""
    start = results(made(), STRUCTURES)
    shift = np.array([atoms.numbers.mean() / 10 for atoms in STRUCTURES])
    labels = {"band_gap": start["band_gap"], "vbm": start["vbm"] + shift}
    labels |= {"cbm": start["cbm"] + shift}
    labels.pop(missing, None)
    model = made()
    model.initialize_transforms(data_module(tmp_path / "labels.db", STRUCTURES, range(6), **labels))
    found = results(model, STRUCTURES)
    for key, label in labels.items():
        np.testing.assert_allclose(found[key], label, atol=1e-4)  # positions are in float32
    np.testing.assert_array_equal(found["cbm"] - found["vbm"], found["band_gap"])


def test_zero_of_potential_follows_the_volume(tmp_path):
    """A zero of -2.5 eV times the logarithm of the volume, other crystals and volumes between."""
    structures = [STRUCTURES[k % 4].copy() for k in range(16)]
    for k, atoms in enumerate(structures):
        atoms.set_cell(atoms.cell * (0.96 + 0.02 * (k // 4)), scale_atoms=True)
    start = results(made(), structures)
    shift = np.array([-2.5 * np.log(atoms.get_volume() / len(atoms)) for atoms in structures])
    labels = {"band_gap": start["band_gap"]} | {k: start[k] + shift for k in KEYS[1:]}
    training = [k for k in range(16) if k not in (5, 10)]
    model = made()
    database = data_module(tmp_path / "labels.db", structures, training, **labels)
    model.initialize_transforms(database)
    found = results(model, structures)
    for key, label in labels.items():
        np.testing.assert_allclose(found[key], label, atol=1e-4)
    # One volume of each crystal says nothing.
    database = data_module(tmp_path / "one.db", structures, range(4), **labels)
    model = made()
    model.initialize_transforms(database)
    assert not model.output_modules[0].slope.any()


def test_gaps_alone_leave_the_zero_where_it_is(tmp_path):
    model = made()
    labels = data_module(tmp_path / "labels.db", STRUCTURES, range(6), band_gap=np.ones(8))
    model.initialize_transforms(labels)
    assert not model.output_modules[0].offset.any()


def test_edges_are_levels_of_filled_and_empty_orbitals():
    """A far-away pair of atoms in one cell: 1s^1 and 1s^1 of hydrogen and helium's two."""
    given = {"He": {"electrons": 2, "s": -15.0}, "H": {"electrons": 0, "s": -6.0}}
    model = made(["H", "He"], orbitals=given)
    found = results(model, [Atoms("HHe", [[0, 0, 0], [9, 9, 9]], cell=[20] * 3, pbc=True)])
    for key, expected in zip(KEYS, (9.0, -15.0, -6.0), strict=True):
        assert found[key].item() == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("kpoint_length", [0.0, 8.0])
def test_odd_number_of_electrons_is_a_metal(training, kpoint_length):
    model = made(random=True, kpoint_length=kpoint_length).train(training)
    odd = STRUCTURES[0][:4]  # 3 x 11 and 6 electrons
    found = results(model, [odd, STRUCTURES[0]])
    assert found["band_gap"][0] == pytest.approx(0, abs=1e-6)
    assert found["band_gap"][1] > 0.01
    np.testing.assert_allclose(found["cbm"] - found["vbm"], found["band_gap"], atol=1e-9)


def test_supercell_has_the_edges_of_the_mesh_of_its_cell():
    """At Gamma alone its bands are folded, and its gap is another than that of the cell."""
    cell, supercell = STRUCTURES[0], STRUCTURES[0].repeat(2)
    expected = results(made(), [supercell])["band_gap"].item()
    assert abs(results(made(), [cell])["band_gap"].item() - expected) > 0.05
    for atoms in (cell, supercell):
        found = results(made(kpoint_length=8.0), [atoms])["band_gap"].item()
        assert found == pytest.approx(expected, abs=1e-10)


def test_gradients_reach_all_parameters_of_these_elements():
    model = made(random=True)
    values = model(batch(STRUCTURES[:4], torch.float64))
    sum(values[key].sum() for key in KEYS).backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad.isfinite().all(), name
        assert parameter.grad.any(), name


def test_slab_is_a_crystal_with_vacuum():
    """Its cell may lack the third vector; Gamma is enough along it."""
    slab = STRUCTURES[0].copy()
    slab.pbc = [True, True, False]
    vacuum, flat = slab.copy(), slab.copy()
    vacuum.cell[2] *= 4
    vacuum.pbc = True
    flat.cell[2] = 0
    model = made(kpoint_length=8.0)
    expected = results(model, [vacuum])
    assert abs(results(model, STRUCTURES[:1])["band_gap"] - expected["band_gap"]) > 0.01
    for atoms in (slab, flat):
        for key, value in results(model, [atoms]).items():
            np.testing.assert_allclose(value, expected[key], atol=1e-10)


def test_molecule_is_one_in_a_large_cell():
    molecule = Atoms("AgBr", [[0, 0, 0], [0, 0, 2.4]])
    boxed = Atoms("AgBr", molecule.positions, cell=[20] * 3, pbc=True)
    alone, in_a_box = (results(made(), [atoms]) for atoms in (molecule, boxed))
    assert alone["band_gap"] > 0.1
    for key in KEYS:
        np.testing.assert_allclose(alone[key], in_a_box[key], atol=1e-10)


def test_elements_are_those_of_the_training_set_or_of_the_weights(tmp_path):
    """Four of the five crystals' elements; then a model that knows nothing takes them over."""
    own = [atoms for atoms in STRUCTURES if 34 not in atoms.numbers]
    labels = results(made(), own)
    model = made(None, orbitals={"Ag": {"electrons": 11, "s": -7.0, "d": -10.0}})
    with pytest.raises(ValueError, match="no orbitals for this element"):
        results(model, own)
    model.initialize_transforms(data_module(tmp_path / "labels.db", own, range(4), **labels))
    given = made(["S", "Br", "Ag", "I"], orbitals={"Ag": {"electrons": 11, "s": -7.0, "d": -10.0}})
    found = results(model, own)["band_gap"]
    np.testing.assert_allclose(found, results(given, own)["band_gap"], atol=1e-6)
    other = made(None, orbitals={"Ag": {"electrons": 11, "s": -7.0, "d": -10.0}})
    other.load_state_dict(model.state_dict())
    np.testing.assert_array_equal(results(other, own)["band_gap"], found)
    started = made(None, orbitals={"Ag": {"electrons": 11, "s": -7.0, "d": -10.0}})
    start_from(started, model, ["heads"])
    np.testing.assert_array_equal(results(started, own)["vbm"], results(model, own)["vbm"])
    with pytest.raises(ValueError, match="elements is empty"):
        made([])


def overlapping() -> list[Atoms]:
    """The sixth has an atom twice."""
    crystals = [atoms.copy() for atoms in STRUCTURES]
    crystals[5].positions[1] = crystals[5].positions[0] + [0, 0, 0.3]
    return crystals


ODD = [atoms[:4] for atoms in STRUCTURES]
PAIRS = [Atoms("AgBr", [[0, 0, 0], [0, 0, 2 + 0.1 * k]], cell=[9] * 3) for k in range(8)]


@pytest.mark.parametrize(
    ("options", "structures", "message"),
    [
        ({"elements": ELEMENTS[:3]}, STRUCTURES, "labels.db has Br, I, for which"),
        ({"cutoff": 2.0}, STRUCTURES, "5 atoms of structure 0 .*no neighbour within 2 Ang"),
        ({}, ODD, "39 valence electrons and a gap of 1 eV"),
        ({}, overlapping(), "structure 5 .*atoms 0.3 Ang apart; expected at least 0.5 Ang"),
        ({"kpoint_length": 9.0}, PAIRS, "kpoint_length is 9 Ang, but no structure .* is periodic"),
    ],
    ids=["elements", "cutoff", "odd", "overlap", "molecules"],
)
def test_unusable_training_sets_are_refused(options, structures, message, tmp_path):
    data = data_module(tmp_path / "labels.db", structures, range(6), band_gap=np.ones(8))
    with pytest.raises(ValueError, match=message):
        made(**options).initialize_transforms(data)


@pytest.mark.parametrize(("train", "test"), [(range(6), ()), (range(5), (5,)), (range(5), ())])
def test_all_structures_are_checked(train, test, tmp_path):
    """Not those alone from which the zero of potential is taken; those of all parts."""
    labels = {"band_gap": np.ones(8), "vbm": [1.0] + 7 * [np.nan]}
    data = data_module(tmp_path / "labels.db", overlapping(), train, test, **labels)
    with pytest.raises(ValueError, match=r"structure 5 .*0\.3 Ang apart"):
        made().initialize_transforms(data)


def test_negative_numbers_are_refused():
    with pytest.raises(ValueError, match=r"kpoint_length is -8 Ang; expected >= 0"):
        made(kpoint_length=-8.0)
    with pytest.raises(ValueError, match=r"n_in is -3; expected >= 0"):
        HamiltonianEdges(ELEMENTS, CUTOFF, n_in=-3)


def test_bonds_of_the_representation_reach_the_cutoff():
    made().output_modules[0].check_model(made())
    head = HamiltonianEdges(ELEMENTS, CUTOFF + 1)
    with pytest.raises(ValueError, match=r"Hamiltonian is 6 Ang.*representation 5 Ang"):
        head.check_model(made())


def test_unknown_elements_are_refused():
    with pytest.raises(ValueError, match="atomic number 53"):
        results(made(["Ag", "S"]), [STRUCTURES[1]])


def test_no_features_leaves_the_inputs():
    model = made()
    inputs = batch(STRUCTURES[:1], torch.float64)
    assert set(model.representation(dict(inputs))) == set(inputs)
    assert host.Rij not in inputs
