"""Force constants from finite displacements and from phonopy's files."""

from dataclasses import replace

import numpy as np
import phonopy
import pytest
from ase import Atoms
from matscipy.neighbours import neighbour_list

from schnetpack_phonon.calculators.base import AseCalculator
from schnetpack_phonon.phonons.force_constants import (
    FiniteDisplacements,
    interpolated,
    mixed_force_constants,
    save_phonopy,
    unmixed,
)
from schnetpack_phonon.phonons.harmonic import normal_modes
from schnetpack_phonon.structures.crystals import Crystal, supercell_matrix
from tests.phonons.force_constants_fixtures import (
    FLOOR,
    STABLE,
    MagneticSprings,
    Springs,
    magnetic_force_constants,
    read,
)


def test_finite_displacements_find_the_springs(cubic, cubic_springs):
    """One model for all temperatures, from no more forces than symmetry needs."""
    label = Springs((cubic.supercell, cubic_springs))
    found = FiniteDisplacements(STABLE).models([cubic], [0, 300.0], label)
    assert set(found) == {("NaCl", 0.0), ("NaCl", 300.0)}
    assert found["NaCl", 0.0] is found["NaCl", 300.0]
    np.testing.assert_allclose(found["NaCl", 0.0].force_constants, cubic_springs, atol=1e-9)
    jobs = [f"displacement {k} of NaCl" for k in range(2)]
    assert label.asked == [("force constants", jobs)]


def test_finite_displacements_take_away_the_drift(cubic, cubic_springs):
    """Forces that do not sum to zero, as codes with a grid give them."""
    rough = cubic_springs.copy()
    rough[range(8), range(8)] += 0.05 * np.eye(3)
    label = Springs((cubic.supercell, rough))
    found = FiniteDisplacements(STABLE).models([cubic], [300.0], label)["NaCl", 300.0]
    np.testing.assert_allclose(found.force_constants.sum(axis=1), 0, atol=1e-10)
    np.testing.assert_allclose(found.force_constants, cubic_springs, atol=0.051)


def test_failed_displacement(cubic, cubic_springs):
    label = Springs((cubic.supercell, cubic_springs), failing=[1])
    with pytest.raises(ValueError, match=r"1 of 2 displacements have no forces.*all of them"):
        FiniteDisplacements(STABLE).models([cubic], [300.0], label)


@pytest.mark.parametrize("distance", [0.0, -0.03, float("nan")])
def test_displacement_distance_error(distance):
    with pytest.raises(ValueError, match="expected > 0"):
        FiniteDisplacements(STABLE, distance)


def test_settings_of_finite_displacements():
    expected = {"source": "finite displacements", "distance": 0.03, **FLOOR.settings}
    assert FiniteDisplacements(FLOOR).settings == expected


def test_mixed_crystal(alloy):
    """3/4 and 1/4 of the end members' force constants, and masses of its own atoms."""
    mixed, known = alloy
    label = Springs(*((m.supercell, known[m.name]) for m, _ in mixed.end_members))
    models = FiniteDisplacements(FLOOR).models([mixed], [300.0], label)
    assert set(models) == {(mixed.name, 300.0)}
    model = models[mixed.name, 300.0]
    expected = 0.75 * known["Cu3PdAu"] + 0.25 * known["Cu3PtAu"]
    assert np.abs(known["Cu3PdAu"] - known["Cu3PtAu"]).max() > 1
    np.testing.assert_allclose(model.force_constants, expected, atol=1e-8)
    assert list(model.ideal.symbols).count("Pt") == 2
    weights = {"Cu": 63.546, "Pd": 106.42, "Pt": 195.084, "Au": 196.967}
    masses = [weights[s] for s in model.ideal.symbols]
    np.testing.assert_allclose(model.ideal.get_masses(), masses, atol=0.01)
    ideal = model.ideal.copy()
    ideal.set_masses(masses)
    np.testing.assert_allclose(model.frequencies, normal_modes(ideal, expected)[0], rtol=1e-4)
    ((_, jobs),) = label.asked
    assert {job.split()[-1] for job in jobs} == {"Cu3PdAu", "Cu3PtAu"}


def test_mixed_and_pure_crystals_share_forces(alloy):
    mixed, known = alloy
    pure = mixed.end_members[0][0]
    assert [c.name for c in unmixed([mixed, pure, mixed])] == ["Cu3PdAu", "Cu3PtAu"]
    label = Springs(*((m.supercell, known[m.name]) for m, _ in mixed.end_members))
    models = FiniteDisplacements(FLOOR).models([mixed, pure], [300.0], label)
    ((_, jobs),) = label.asked
    assert len(jobs) == len(set(jobs))
    np.testing.assert_allclose(
        models["Cu3PdAu", 300.0].force_constants, known["Cu3PdAu"], atol=1e-8
    )
    weighted = mixed_force_constants(mixed, known)
    np.testing.assert_allclose(models[mixed.name, 300.0].force_constants, weighted, atol=1e-8)


def test_mixed_crystal_with_force_constants_of_its_own(alloy):
    mixed, known = alloy
    own = replace(mixed, own_force_constants=True)
    assert unmixed([own]) == [own]
    k = known["Cu3PtAu"]
    label = Springs((own.supercell, k))
    model = FiniteDisplacements(FLOOR).models([own], [300.0], label)[own.name, 300.0]
    np.testing.assert_allclose(model.force_constants, k, atol=1e-8)


def test_symmetry_of_an_antiferromagnet(layers):
    """Cubic operations, which the moments break, would mix stiff and soft springs."""
    calculator = AseCalculator(MagneticSprings)

    def label(what, jobs):
        return [calculator.label(atoms) for _, atoms in jobs]

    models = FiniteDisplacements(FLOOR, 1e-3).models([layers], [300.0], label)
    model = models[layers.name, 300.0]
    expected = magnetic_force_constants(layers.supercell)
    np.testing.assert_allclose(model.force_constants, expected, atol=2e-3)
    assert not np.allclose(expected, magnetic_force_constants(plain(layers).supercell), atol=1)
    assert (layers.space_group, plain(layers).space_group) == (
        "magnetic, BNS 123.350",  # P_I 4/mmm: up and down by half a body diagonal
        "Fm-3m (225)",
    )


def plain(crystal):
    atoms = crystal.unitcell.copy()
    atoms.set_initial_magnetic_moments(None)
    return replace(crystal, unitcell=atoms)


def test_fit_to_the_symmetry_of_an_antiferromagnet(layers):
    """Of renormalisation, and of phonopy's files with all atoms displaced."""
    expected = magnetic_force_constants(layers.supercell)
    u = np.random.default_rng(0).normal(0, 0.01, (30, 32, 3))
    phonon = layers.phonopy()
    forces = -np.einsum("ijab,njb->nia", expected, u)
    phonon.dataset = {"displacements": u, "forces": forces}
    phonon.produce_force_constants(fc_calculator="symfc", show_drift=False)
    np.testing.assert_allclose(phonon.force_constants, expected, atol=1e-6)


def test_saved_file_gives_phonopy_the_same_frequencies(tmp_path, rock_salt, stable, model):
    path = tmp_path / "new" / "folder" / "phonopy_params.yaml"
    save_phonopy(rock_salt, stable, path)
    loaded = phonopy.load(path, is_compact_fc=False, log_level=0)
    np.testing.assert_allclose(loaded.force_constants, stable, atol=1e-12)
    loaded.run_mesh([2, 2, 2], is_gamma_center=True, is_mesh_symmetry=False)
    theirs = np.sort(loaded.mesh.frequencies.ravel())[3:]
    np.testing.assert_allclose(theirs, model.frequencies, rtol=1e-6)
    assert [p.name for p in path.parent.iterdir()] == ["phonopy_params.yaml"]
    again = read(path, rock_salt)
    np.testing.assert_allclose(again.force_constants, stable, atol=1e-12)


def test_file_is_saved_whole_or_not_at_all(tmp_path, rock_salt, stable, full_disk):
    path = tmp_path / "phonopy_params.yaml"
    save_phonopy(rock_salt, stable, path)
    before = path.read_text()
    with full_disk(5000), pytest.raises(OSError, match="large"):
        save_phonopy(rock_salt, 2 * stable, path)
    assert path.read_text() == before


def neighbour_springs(crystal: Crystal, k: float = 2.0) -> np.ndarray:
    """Force constants of equal springs between neighbours of a simple cubic crystal."""
    atoms = crystal.supercell
    i, j = neighbour_list("ij", atoms, 1.1 * crystal.unitcell.cell.lengths()[0])
    constants = np.zeros((len(atoms), len(atoms), 3, 3))
    np.add.at(constants, (i, j), -k * np.eye(3))
    np.add.at(constants, (i, i), k * np.eye(3))
    return constants


@pytest.mark.parametrize("size", [[3, 3, 3], [[0, 2, 2], [2, 0, 2], [2, 2, 0]]])
def test_interpolation_of_short_springs_is_exact(size):
    """In a cube of two cells each neighbour is there twice, from left and from right."""
    cell = Atoms("Po", cell=[3.3] * 3, pbc=True)
    crystal = Crystal("Po", cell, supercell_matrix([2, 2, 2]))
    other, found = interpolated(crystal, neighbour_springs(crystal), size)
    np.testing.assert_allclose(found, neighbour_springs(other), atol=1e-9)


def test_interpolation_keeps_the_frequencies_of_common_wave_vectors(cubic, cubic_springs):
    other, found = interpolated(cubic, cubic_springs, 2 * np.array(cubic.supercell_matrix))
    here, _ = normal_modes(cubic.supercell, cubic_springs)
    there, _ = normal_modes(other.supercell, found)
    distance = np.abs(here[:, None] - there).min(axis=1)
    np.testing.assert_allclose(distance, 0, atol=1e-6)
