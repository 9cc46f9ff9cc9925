"""Force constants from phonopy's files: layouts, units, orders and masses."""

from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from ase import Atoms, units
from phonopy.file_IO import (
    write_FORCE_CONSTANTS,
    write_force_constants_to_hdf5,
    write_FORCE_SETS,
)
from phonopy.harmonic.force_constants import full_fc_to_compact_fc

from schnetpack_phonon.phonons.force_constants import save_phonopy, with_masses_of
from schnetpack_phonon.phonons.harmonic import normal_modes
from schnetpack_phonon.phonons.phonopy_files import PhonopyFiles
from schnetpack_phonon.structures.crystals import Crystal, supercell_matrix
from tests.phonons.force_constants_fixtures import (
    FLOOR,
    SPRINGS,
    no_labels,
    phonopy_of,
    read,
    save,
)
from tests.phonons.phonopy_files.phonopy_files_fixtures import (
    HARTREE_FORCE,
    RYDBERG_FORCE,
    cells_beside,
    cells_beside_force_constants,
    cells_beside_hdf5,
    displacements_beside_force_sets,
    pair_springs,
    params_with_force_constants,
    params_with_force_sets,
    with_random_forces,
)


def params_with_compact_force_constants(folder, phonon, k):
    return params_with_force_constants(folder, phonon, full_fc_to_compact_fc(phonon.primitive, k))


cells_beside_compact_force_constants = partial(cells_beside, "FORCE_CONSTANTS", True)


LAYOUTS = [
    params_with_force_constants,
    params_with_compact_force_constants,
    params_with_force_sets,
    displacements_beside_force_sets,
    cells_beside_force_constants,
    cells_beside_compact_force_constants,
    cells_beside_hdf5,
    partial(cells_beside, "force_constants.hdf5", True),
]


@pytest.mark.parametrize("layout", LAYOUTS)
def test_layouts_of_phonopy(folder, cubic, cubic_springs, layout):
    """However phonopy's user left them, and whatever else lies in the working directory."""
    wrong = phonopy_of(cubic, 2 * cubic_springs)
    write_FORCE_SETS(wrong.dataset, "FORCE_SETS")
    write_FORCE_CONSTANTS(2 * cubic_springs, "FORCE_CONSTANTS")
    write_force_constants_to_hdf5(2 * cubic_springs, "force_constants.hdf5")
    Path("BORN").write_text("of another crystal")
    path = layout(folder, phonopy_of(cubic, cubic_springs), cubic_springs)
    model = read(path, cubic)
    np.testing.assert_allclose(model.force_constants, cubic_springs, atol=1e-7)
    np.testing.assert_allclose(model.frequencies, normal_modes(cubic.supercell, cubic_springs)[0])
    assert model.policy == "error"


def test_no_primitive_cell_is_given(folder, cubic, cubic_springs):
    """What phonopy does by default is to find one, and to say so; the latter goes unheard."""
    path = cells_beside_compact_force_constants(folder, phonopy_of(cubic), cubic_springs)
    text = path.read_text()
    start = text.index("primitive_matrix:")
    end = text.index("supercell_matrix:")
    path.write_text(text[:start] + text[end:])
    np.testing.assert_allclose(read(path, cubic).force_constants, cubic_springs, atol=1e-7)


@pytest.mark.parametrize("in_yaml", [True, False])
def test_no_primitive_cell_and_constants_of_the_unit_cell(folder, cubic, cubic_springs, in_yaml):
    """As phonopy up to version 3 had them unless it was told of a primitive cell."""
    layout = cells_beside_compact_force_constants
    if in_yaml:
        layout = params_with_compact_force_constants
    double = replace(cubic, supercell_matrix=supercell_matrix([2, 1, 1]))
    springs = pair_springs(double)
    phonon = double.phonopy()
    path = layout(folder, phonon, springs)
    text = path.read_text()
    start, end = text.index("primitive_matrix:"), text.index("supercell_matrix:")
    path.write_text(text[:start] + text[end:])
    model = read(path, double, instabilities=FLOOR)
    np.testing.assert_allclose(model.force_constants, springs, atol=1e-7)


def test_constants_of_another_number_of_atoms(folder, cubic, cubic_springs):
    phonon = phonopy_of(cubic)
    save(phonon, folder / "phonopy.yaml")
    write_FORCE_CONSTANTS(cubic_springs[:3], folder / "FORCE_CONSTANTS", p2s_map=np.arange(3))
    named = r"FORCE_CONSTANTS .* of 3 atoms; expected all 8 of the supercell, or 2 of the prim"
    with pytest.raises(ValueError, match=named):
        read(folder / "phonopy.yaml", cubic)


@pytest.mark.parametrize("in_yaml", [True, False])
def test_forces_of_random_displacements(folder, cubic, cubic_springs, in_yaml):
    layout = params_with_force_sets if in_yaml else displacements_beside_force_sets
    path = layout(folder, with_random_forces(cubic, cubic_springs), None)
    np.testing.assert_allclose(read(path, cubic).force_constants, cubic_springs, atol=1e-6)


@pytest.mark.parametrize("option", ["force_sets", "force_constants", "force_constants.hdf5"])
@pytest.mark.parametrize(
    "layout", [params_with_force_constants, params_with_force_sets, cells_beside_force_constants]
)
def test_forces_elsewhere(tmp_path, folder, cubic, cubic_springs, layout, option):
    """What the user names is what is read, whatever the yaml file or its folder hold."""
    path = layout(folder, phonopy_of(cubic, 2 * cubic_springs), 2 * cubic_springs)
    elsewhere = tmp_path / "elsewhere.hdf5" if "hdf5" in option else tmp_path / "elsewhere"
    if option == "force_sets":
        write_FORCE_SETS(phonopy_of(cubic, cubic_springs).dataset, elsewhere)
    elif option == "force_constants":
        write_FORCE_CONSTANTS(cubic_springs, elsewhere)
    else:
        write_force_constants_to_hdf5(cubic_springs, elsewhere)
    model = read(path, cubic, **{option.removesuffix(".hdf5"): str(elsewhere)})
    np.testing.assert_allclose(model.force_constants, cubic_springs, atol=1e-7)


@pytest.mark.parametrize(
    "layout", [params_with_compact_force_constants, displacements_beside_force_sets]
)
@pytest.mark.parametrize(
    ("calculator", "length", "force"),
    [
        ("qe", units.Bohr, RYDBERG_FORCE),
        ("wien2k", units.Bohr, RYDBERG_FORCE / 1000),
        ("abinit", units.Bohr, 1.0),
        ("cp2k", 1.0, HARTREE_FORCE),
        ("elk", units.Bohr, HARTREE_FORCE),
        ("aims", 1.0, 1.0),
    ],
)
def test_units_of_other_codes(folder, cubic, cubic_springs, layout, calculator, length, force):
    phonon = phonopy_of(cubic, cubic_springs, calculator, length, force)
    model = read(layout(folder, phonon, cubic_springs * length / force), cubic)
    np.testing.assert_allclose(model.force_constants, cubic_springs, rtol=1e-6, atol=1e-6)
    np.testing.assert_allclose(model.ideal.positions, cubic.supercell.positions)


def test_unit_in_hdf5(folder, cubic, cubic_springs):
    """force_constants.hdf5 may name a unit that is not the calculator's."""
    phonon = phonopy_of(cubic, None, "qe", units.Bohr, RYDBERG_FORCE)
    path = cells_beside_hdf5(folder, phonon, cubic_springs)
    where = folder / "force_constants.hdf5"
    write_force_constants_to_hdf5(cubic_springs, where, physical_unit="eV/angstrom^2")
    np.testing.assert_allclose(
        read(path, cubic).force_constants, cubic_springs, rtol=1e-6, atol=1e-6
    )


@pytest.mark.parametrize(
    "layout",
    [params_with_force_constants, params_with_force_sets, cells_beside_compact_force_constants],
)
def test_atoms_in_another_order(folder, layout):
    """And one of them in another image of the cell; no symmetry makes up for a wrong order."""
    positions = [(0.1, 0, 0), (2.2, 1.0, 0.4), (0.7, 2.4, 1.9)]
    atoms = Atoms("NaClNa", positions, cell=[[3.9, 0, 0.3], [0.2, 4.1, 0], [0, 0.4, 3.7]], pbc=True)
    here = Crystal("glass", atoms, supercell_matrix([2, 2, 2]))
    other = atoms[[2, 0, 1]]
    other.positions[1] -= other.cell[0]
    there = replace(here, unitcell=other)
    k = pair_springs(there)
    expected = pair_springs(here)
    assert np.abs(k - expected).max() > 1
    model = read(layout(folder, phonopy_of(there, k), k), here, instabilities=FLOOR)
    np.testing.assert_allclose(model.force_constants, expected, atol=1e-6)


def test_same_supercell_of_another_unit_cell(folder, rock_salt, stable, central_springs):
    """The unit cell of the file is the supercell."""
    whole = Crystal("NaCl", rock_salt.supercell[::-1], supercell_matrix([1, 1, 1]))
    k = central_springs(whole.supercell, SPRINGS)
    path = params_with_force_constants(folder, phonopy_of(whole, k), k)
    np.testing.assert_allclose(read(path, rock_salt).force_constants, stable, atol=1e-7)


def heavier(crystal, factor=4.0) -> Crystal:
    atoms = crystal.unitcell.copy()
    atoms.set_masses(factor * atoms.get_masses())
    return replace(crystal, unitcell=atoms)


def test_masses_of_the_structure(folder, cubic, cubic_springs):
    """Those of phonopy's files are those of the natural elements where its user gave none."""
    path = params_with_force_constants(folder, phonopy_of(cubic), cubic_springs)
    np.testing.assert_allclose(
        read(path, heavier(cubic)).frequencies, read(path, cubic).frequencies / 2, rtol=1e-9
    )


@pytest.mark.parametrize("layout", [params_with_force_constants, displacements_beside_force_sets])
def test_masses_of_the_file(folder, cubic, cubic_springs, layout):
    """Isotopes of chlorine, in another order of atoms: phonopy's frequencies and amplitudes."""
    order = [7, 2, 0, 5, 1, 3, 6, 4]
    atoms = cubic.unitcell[order]
    atoms.set_masses(np.where(atoms.symbols == "Cl", [35.0, 37.0] * 4, atoms.get_masses()))
    there = replace(cubic, unitcell=atoms)
    k = cubic_springs[np.ix_(order, order)]
    path = layout(folder, phonopy_of(there, k), k)
    model = read(path, cubic)
    np.testing.assert_allclose(model.ideal.get_masses()[order], atoms.get_masses(), rtol=1e-6)
    phonon = there.phonopy()  # its primitive cell is not reduced to two atoms
    phonon.force_constants = k
    phonon.run_mesh([1, 1, 1], with_eigenvectors=True, is_mesh_symmetry=False)
    np.testing.assert_allclose(model.frequencies, phonon.mesh.frequencies[0, 3:], atol=1e-5)
    phonon.run_thermal_displacement_matrices(t_min=300, t_max=300, t_step=1, freq_min=0.1)
    theirs = phonon.thermal_displacement_matrices.thermal_displacement_matrices[0]
    ours = model.covariance(300.0).reshape(8, 3, 8, 3)[np.arange(8), :, np.arange(8)]
    np.testing.assert_allclose(ours[order], theirs, atol=1e-6)


def test_other_masses_in_the_structure(folder, cubic, cubic_springs):
    path = params_with_force_constants(folder, phonopy_of(heavier(cubic, 2.0)), cubic_springs)
    with pytest.raises(ValueError, match=r"Cl.* has 70.9 amu in the file and 141.8 amu in the"):
        read(path, heavier(cubic))
    rounded = heavier(cubic, 2.0001)
    assert read(path, rounded).ideal.get_masses() == pytest.approx(rounded.unitcell.get_masses())


def test_masses_of_the_files_of_end_members(tmp_path, alloy):
    """Each atom of a mixed crystal has the mass of its element in the file of an end member."""
    mixed, known = alloy
    for factor, (member, _) in zip((2.0, 3.0), mixed.end_members, strict=True):
        atoms = heavier(member, factor).unitcell
        atoms.set_masses(np.where(atoms.symbols == "Cu", 65.0, atoms.get_masses()))
        heavy = replace(member, unitcell=atoms)
        save_phonopy(heavy, known[member.name], tmp_path / f"{member.name}.yaml")
    source = PhonopyFiles(str(tmp_path / "{name}.yaml"), FLOOR)
    models = source.models([mixed], [300.0], no_labels)
    ideal = models[mixed.name, 300.0].ideal
    natural = dict(zip(mixed.unitcell.symbols, mixed.unitcell.get_masses(), strict=True))
    expected = {"Cu": 65.0, "Pd": 2 * natural["Pd"], "Pt": 3 * natural["Pt"]}
    for symbol, mass in expected.items():
        np.testing.assert_allclose(ideal.get_masses()[ideal.symbols == symbol], mass, rtol=1e-6)
    for crystals in ([mixed], [member for member, _ in mixed.end_members]):
        (crystal,) = with_masses_of([mixed], source.models(crystals, [300.0], no_labels))
        np.testing.assert_array_equal(crystal.supercell.get_masses(), ideal.get_masses())
