"""Force constants from phonopy's files: layouts, units, orders, and what is wrong with them."""

from dataclasses import replace
from functools import partial
from pathlib import Path

import ase.io
import h5py
import numpy as np
import pytest
from ase import Atoms, units
from phonopy import Phonopy
from phonopy.file_IO import (
    write_FORCE_CONSTANTS,
    write_force_constants_to_hdf5,
    write_FORCE_SETS,
)
from phonopy.harmonic.force_constants import full_fc_to_compact_fc

from schnetpack_phonon.phonons.checks import same_atoms
from schnetpack_phonon.phonons.force_constants import save_phonopy, with_masses_of
from schnetpack_phonon.phonons.harmonic import normal_modes
from schnetpack_phonon.phonons.phonopy_files import PhonopyFiles
from schnetpack_phonon.structures.crystals import Antiperovskites, Crystal, supercell_matrix
from schnetpack_phonon.structures.files import StructureFile
from tests.phonons.force_constants_fixtures import (
    ALLOYS,
    FLOOR,
    SPRINGS,
    magnetic_force_constants,
    no_labels,
    phonopy_of,
    read,
    save,
)

HARTREE_FORCE, RYDBERG_FORCE = units.Hartree / units.Bohr, units.Rydberg / units.Bohr


def with_random_forces(crystal, force_constants) -> Phonopy:
    """All atoms displaced in each of 20 supercells."""
    phonon = phonopy_of(crystal)
    u = np.random.default_rng(0).normal(0, 0.01, (20, len(phonon.supercell), 3))
    forces = -np.einsum("ijab,njb->nia", force_constants, u)
    phonon.dataset = {"displacements": u, "forces": forces}
    return phonon


# What follows writes a phonopy file, and perhaps others beside it, and returns its path.


def params_with_force_constants(folder, phonon, k):
    save(phonon, folder / "phonopy_params.yaml", force_constants=k)
    return folder / "phonopy_params.yaml"


def params_with_compact_force_constants(folder, phonon, k):
    return params_with_force_constants(folder, phonon, full_fc_to_compact_fc(phonon.primitive, k))


def params_with_force_sets(folder, phonon, k):
    save(phonon, folder / "phonopy_params.yaml", force_sets=True)
    return folder / "phonopy_params.yaml"


def displacements_beside_force_sets(folder, phonon, k):
    write_FORCE_SETS(phonon.dataset, folder / "FORCE_SETS")
    save(phonon, folder / "phonopy_disp.yaml")
    return folder / "phonopy_disp.yaml"


def cells_beside(name, compact, folder, phonon, k):
    write = write_FORCE_CONSTANTS if name == "FORCE_CONSTANTS" else write_force_constants_to_hdf5
    if compact:
        k = full_fc_to_compact_fc(phonon.primitive, k)
        write(k, folder / name, p2s_map=phonon.primitive.p2s_map)
    else:
        write(k, folder / name)
    save(phonon, folder / "phonopy.yaml")
    return folder / "phonopy.yaml"


cells_beside_force_constants = partial(cells_beside, "FORCE_CONSTANTS", False)
cells_beside_compact_force_constants = partial(cells_beside, "FORCE_CONSTANTS", True)
cells_beside_hdf5 = partial(cells_beside, "force_constants.hdf5", False)

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


@pytest.fixture
def folder(tmp_path):
    path = tmp_path / "theirs"
    path.mkdir()
    return path


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


def pair_springs(crystal) -> np.ndarray:
    """A spring for each near pair; its stiffness is the squared distance."""
    atoms = crystal.supercell
    vectors = atoms.get_all_distances(mic=True, vector=True)
    near = (np.linalg.norm(vectors, axis=2) < 2.9)[..., None, None]
    blocks = -vectors[..., :, None] * vectors[..., None, :] * near
    blocks[range(len(atoms)), range(len(atoms))] -= blocks.sum(axis=1)
    return blocks


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


def test_moments_of_file_and_structure(folder, layers):
    """Force constants of another magnetic order, or of none, belong to another crystal."""
    k = magnetic_force_constants(layers.supercell)
    path = params_with_force_constants(folder, layers.phonopy(), k)
    np.testing.assert_allclose(
        read(path, layers, instabilities=FLOOR).force_constants, k, atol=1e-7
    )
    atoms = layers.unitcell.copy()
    for moments in ([0.0] * 4, [1.0] * 4):
        atoms.set_initial_magnetic_moments(moments)
        with pytest.raises(ValueError, match=r"params.yaml has magnetic moments on 32 atoms, the"):
            read(path, replace(layers, unitcell=atoms), instabilities=FLOOR)


SHEARED = [[1, 1, 0], [0, 1, 0], [0, 0, 1]]


def changed(crystal, **changes) -> Crystal:
    atoms = crystal.unitcell.copy()
    if "symbol" in changes:
        atoms.symbols[4] = changes["symbol"]
    if "shift" in changes:
        atoms.positions[4] += changes["shift"]
    if "scale" in changes:
        atoms.set_cell(atoms.cell * changes["scale"], scale_atoms=True)
    matrix = supercell_matrix(changes.get("supercell", [1, 1, 1]))
    return Crystal("mine", atoms, matrix)


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"symbol": "K"}, r"atom 4 \(K at .*is nearest to atom 4 \(Na\) .*0\.000 Ang away"),
        ({"shift": (0.1, 0, 0)}, r"atom 4 \(Na at .*is nearest to atom 4 \(Na\).*0\.100 Ang away"),
        ({"scale": 1.01}, r"supercells differ by 0\.056 Ang.*\[5\.6 .*\[5\.656.*relax=false"),
        ({"supercell": [2, 2, 2]}, r"8 atoms in the file's supercell, 64 here.*supercell"),
        ({"supercell": SHEARED}, r"supercells differ by 5\.600 Ang"),
    ],
)
def test_file_of_another_crystal(folder, cubic, cubic_springs, changes, named):
    path = params_with_force_constants(folder, phonopy_of(cubic), cubic_springs)
    crystal = changed(cubic, **changes)
    with pytest.raises(ValueError, match=named) as caught:
        read(path, crystal)
    assert f"{path} and the structure mine do not match" in str(caught.value)


def test_slightly_different_crystal_is_the_same(folder, cubic, cubic_springs):
    """Files are rounded, and lattice constants relaxed to a thousandth of an Angstrom."""
    path = params_with_force_constants(folder, phonopy_of(cubic), cubic_springs)
    crystal = changed(cubic, scale=1.0005, shift=(0.005, 0, 0))
    np.testing.assert_allclose(read(path, crystal).force_constants, cubic_springs, atol=1e-7)


def test_same_atoms_across_the_boundary():
    here = Atoms("HO", [(0, 0, 0), (1, 1, 1)], cell=[3, 3, 3], pbc=True)
    there = Atoms("OH", [(1, 1, 1), (2.995, 0, 3)], cell=[3, 3, 3], pbc=True)
    np.testing.assert_array_equal(same_atoms(there, here, "both"), [1, 0])


@pytest.mark.parametrize(
    ("content", "named"),
    [
        ("NaCl\n1.0\n5.6 0 0\n0 5.6 0\n0 0 5.6\n", "phonopy cannot read"),
        ("", "phonopy cannot read"),
        ("- 1\n- 2\n", "phonopy cannot read"),
        ("phonopy: [\n", "phonopy cannot read"),
        ("phonopy: {}\nforce_constants:\n  format: full\n", "phonopy cannot read"),
        ("phonopy:\n  version: 4.10\n", r"neither forces nor force constants.*force_sets or"),
    ],
)
def test_not_a_phonopy_file(folder, cubic, content, named):
    path = folder / "phonopy_params.yaml"
    path.write_text(content)
    with pytest.raises(ValueError, match=named) as caught:
        read(path, cubic)
    assert str(path) in str(caught.value)


def test_binary_file(folder, cubic):
    (folder / "phonopy_params.yaml").write_bytes(bytes(range(256)))
    with pytest.raises(ValueError, match="phonopy cannot read"):
        read(folder / "phonopy_params.yaml", cubic)


@pytest.mark.parametrize("name", ["FORCE_SETS", "FORCE_CONSTANTS", "force_constants.hdf5"])
@pytest.mark.parametrize("content", ["", "8\n2\n\n1\n 0.01 0 0\n 0 0", "7 7\n1 1\n0 0 0\n"])
def test_rubbish_beside(folder, cubic, name, content):
    save(phonopy_of(cubic), folder / "phonopy_disp.yaml")
    (folder / name).write_text(content)
    with pytest.raises(ValueError, match=rf"phonopy cannot read {folder / name}"):
        read(folder / "phonopy_disp.yaml", cubic)


def test_force_constants_of_another_supercell(folder, cubic, cubic_springs):
    save(phonopy_of(cubic), folder / "phonopy.yaml")
    write_FORCE_CONSTANTS(cubic_springs[:4, :4], folder / "FORCE_CONSTANTS")
    with pytest.raises(ValueError, match=r"phonopy cannot read|shape \(4, 4, 3, 3\)"):
        read(folder / "phonopy.yaml", cubic)


@pytest.mark.parametrize("option", ["path", "force_sets", "force_constants"])
def test_missing_file(folder, cubic, cubic_springs, option):
    path = params_with_force_constants(folder, phonopy_of(cubic), cubic_springs)
    options = {"path": str(path), option: "nowhere.yaml"}
    message = rf"/nowhere\.yaml: set data\.phonons\.{option}"
    with pytest.raises(ValueError, match=message):
        _ = PhonopyFiles(instabilities=FLOOR, **options).settings
    with pytest.raises(ValueError, match=message):
        read(options.pop("path"), cubic, **options)


def test_one_file_for_each_crystal(folder, central_springs):
    """{name} is the crystal's name, other braces and brackets are themselves."""
    crystals = Antiperovskites(list(ALLOYS), [1, 1, 1], lattice_constants=ALLOYS).crystals
    known = {}
    for stiffness, crystal in enumerate(crystals, 1):
        a = crystal.unitcell.cell[0, 0]
        known[crystal.name] = central_springs(crystal.supercell, {a / 2: stiffness, a / 2**0.5: 1})
        path = folder / "{a}[b]" / f"{crystal.name}.yaml"
        path.parent.mkdir(exist_ok=True)
        save(phonopy_of(crystal), path, force_constants=known[crystal.name])
    pattern = str(folder / "{a}[b]" / "{name}.yaml")
    source = PhonopyFiles(pattern, FLOOR)
    models = source.models(crystals, [100.0], no_labels)
    assert set(models) == {("Cu3PdAu", 100.0), ("Cu3PtAu", 100.0)}
    for (name, _), model in models.items():
        np.testing.assert_allclose(model.force_constants, known[name], atol=1e-7)
    before = source.settings["files"]
    path.write_text(path.read_text() + "# \n")
    assert source.settings["files"] != before
    with pytest.raises(ValueError, match=r"for 2 crystals; write \{name\} .*Cu3PdAu, Cu3PtAu"):
        PhonopyFiles(str(path), FLOOR).models(crystals, [100.0], no_labels)


def test_drift_of_force_constants(folder, cubic, cubic_springs):
    """Little of it is taken away, as phonopy would; more names the atom."""
    rough = cubic_springs.copy()
    rough[range(8), range(8)] += 0.05 * np.eye(3)
    path = params_with_force_constants(folder, phonopy_of(cubic), rough)
    found = read(path, cubic).force_constants
    np.testing.assert_allclose(found.sum(axis=1), 0, atol=1e-10)
    np.testing.assert_allclose(found, cubic_springs, atol=0.051)
    rough[5, 5, 2, 2] += 1.0
    path = params_with_force_constants(folder, phonopy_of(cubic), rough)
    with pytest.raises(ValueError, match=r"sum rule: .* atom 5 \(Cl\) sum to 1\.1 eV/Ang"):
        read(path, cubic)


def test_noise_is_symmetrised_and_warned_of(folder, cubic, cubic_springs, caplog):
    """2 % of the largest constant change frequencies by less than 8 %; 0.2 % go unsaid."""
    noise = np.random.default_rng(0).uniform(-1, 1, cubic_springs.shape)
    noise -= noise.mean(axis=1, keepdims=True)
    expected = normal_modes(cubic.supercell, cubic_springs)[0]
    for size, warnings in [(0.02, 1), (0.002, 0)]:
        caplog.clear()
        rough = cubic_springs + size * np.abs(cubic_springs).max() * noise
        path = params_with_force_constants(folder, phonopy_of(cubic), rough)
        model = read(path, cubic)
        np.testing.assert_allclose(model.frequencies, expected, rtol=4 * size)
        assert len(caplog.records) == warnings
        assert not warnings or "symmetrising changes force constants by up to" in caplog.text


@pytest.mark.parametrize(
    "layout", [params_with_force_constants, cells_beside_force_constants, cells_beside_hdf5]
)
def test_force_constants_in_another_order(folder, rock_salt, stable, layout):
    """Cell by cell, as other codes have them; the supercell's own order is phonopy's."""
    order = np.arange(16).reshape(2, 8).T.ravel()
    path = layout(folder, phonopy_of(rock_salt), stable[np.ix_(order, order)])
    with pytest.raises(
        ValueError, match=r"atoms \d+ \((Na|Cl)\) and .* in another order"
    ) as caught:
        read(path, rock_salt)
    assert str(folder) in str(caught.value)


@pytest.mark.parametrize("in_yaml", [True, False])
def test_forces_that_do_not_determine_force_constants(folder, cubic, in_yaml):
    atoms = cubic.unitcell.copy()
    atoms.rattle(0.1, seed=0)
    glass = replace(cubic, unitcell=atoms)
    phonon = with_random_forces(glass, pair_springs(glass))
    phonon.dataset = {name: found[:20] for name, found in phonon.dataset.items()}
    layout = params_with_force_sets if in_yaml else displacements_beside_force_sets
    path = layout(folder, phonon, None)
    named = r"(params.yaml|SETS): 20 structures .* 231 independent .*; expected at least 21, each"
    with pytest.raises(ValueError, match=named):
        read(path, glass)


def test_force_sets_without_some_displacements(folder, cubic, cubic_springs):
    """Those of the second species are missing."""
    phonon = phonopy_of(cubic, cubic_springs)
    first = phonon.dataset["first_atoms"]
    phonon.dataset = {**phonon.dataset, "first_atoms": first[:1]}
    path = params_with_force_sets(folder, phonon, None)
    with pytest.raises(ValueError, match=r"atom 1 \(Cl\) .* displaced along 0 of 3 directions"):
        read(path, cubic)


@pytest.mark.parametrize("unit", ["Angstrom", "ANGSTROM", "angstrom"])
def test_spelling_of_units(folder, cubic, cubic_springs, unit):
    """Up to phonopy 2.6 it was Angstrom."""
    path = params_with_force_constants(folder, phonopy_of(cubic), cubic_springs)
    text = path.read_text()
    assert text.count("angstrom") == 2
    path.write_text(text.replace("angstrom", unit))
    np.testing.assert_allclose(read(path, cubic).force_constants, cubic_springs, atol=1e-7)


@pytest.mark.parametrize("unit", ["au", "nm"])
def test_units_of_another_code(folder, cubic, cubic_springs, unit):
    path = params_with_force_constants(folder, phonopy_of(cubic), cubic_springs)
    path.write_text(path.read_text().replace('"angstrom"', f'"{unit}"'))
    with pytest.raises(ValueError, match=rf"{path}(.|\n)*length_unit = {unit}\n.*angstrom"):
        read(path, cubic)


def test_drift_is_judged_in_our_units(folder, cubic, cubic_springs):
    """1 eV/Ang^2 is little in Ry/Bohr^2."""
    rough = cubic_springs.copy()
    rough[5, 5, 2, 2] += 1.0
    scale = units.Bohr / RYDBERG_FORCE
    phonon = phonopy_of(cubic, None, "qe", units.Bohr, RYDBERG_FORCE)
    path = params_with_force_constants(folder, phonon, rough * scale)
    with pytest.raises(ValueError, match=r"sum rule: .* atom 5 \(Cl\) sum to 1 eV/Ang"):
        read(path, cubic)


def test_settings_know_the_content(folder, cubic, cubic_springs):
    """Not the place: the same files elsewhere give the same, other content does not."""
    path = displacements_beside_force_sets(folder, phonopy_of(cubic, cubic_springs), cubic_springs)
    source = PhonopyFiles(str(path), FLOOR)
    first = source.settings
    assert {k: first[k] for k in ("source", "policy", "floor")} == {
        "source": "phonopy",
        "policy": "floor",
        "floor": 0.5,
    }
    assert source.settings == first
    moved = folder.rename(folder.with_name("moved"))
    source = PhonopyFiles(str(moved / path.name), FLOOR)
    assert source.settings == first
    write_FORCE_SETS(phonopy_of(cubic, 1.001 * cubic_springs).dataset, moved / "FORCE_SETS")
    second = source.settings
    save(phonopy_of(changed(cubic, scale=1.001)), moved / path.name)
    third = source.settings
    write_FORCE_CONSTANTS(cubic_springs, "elsewhere")
    options = {"instabilities": FLOOR, "force_constants": "elsewhere"}
    source = PhonopyFiles(str(moved / path.name), **options)
    fourth = source.settings
    write_FORCE_CONSTANTS(2 * cubic_springs, "elsewhere")
    digests = [s["files"] for s in (first, second, third, fourth, source.settings)]
    assert len(set(digests)) == 5


def test_mixed_crystal_of_phonopy_files(folder, alloy):
    mixed, known = alloy
    for member, _ in mixed.end_members:
        path = folder / f"{member.name}.yaml"
        save(phonopy_of(member), path, force_constants=known[member.name])
    model = read(folder / "{name}.yaml", mixed, instabilities=FLOOR)
    expected = 0.75 * known["Cu3PdAu"] + 0.25 * known["Cu3PtAu"]
    np.testing.assert_allclose(model.force_constants, expected, atol=1e-8)


def test_saved_file_of_an_ordered_alloy_is_read(tmp_path, alloy):
    """Its unit cell is our whole supercell, where phonopy's default would take a smaller one."""
    mixed, known = alloy
    ordered = replace(mixed, unitcell=mixed.end_members[0][0].supercell, end_members=())
    save_phonopy(ordered, known["Cu3PdAu"], tmp_path / "phonopy_params.yaml")
    found = read(tmp_path / "phonopy_params.yaml", ordered, instabilities=FLOOR)
    np.testing.assert_allclose(found.force_constants, known["Cu3PdAu"], atol=1e-12)


def rows(vectors, indent):
    return "\n".join(f"{indent}- [ {x:.16f}, {y:.16f}, {z:.16f} ]" for x, y, z in vectors)


def old_cell(name, atoms, reduced_to):
    points = "\n".join(
        f"  - symbol: {symbol} # {i}\n    coordinates: [ {x:.15f}, {y:.15f}, {z:.15f} ]\n"
        f"    mass: {mass:.6f}\n    reduced_to: {reduced_to[i - 1]}"
        for i, (symbol, (x, y, z), mass) in enumerate(
            zip(atoms.symbols, atoms.get_scaled_positions(), atoms.get_masses(), strict=True), 1
        )
    )
    return f"{name}:\n  lattice:\n{rows(atoms.cell, '  ')}\n  points:\n{points}\n"


def old_file(crystal, displacements):
    """phonopy_params.yaml as phonopy 2.12 wrote it.

    It differs from today's in that the version is a bare number, units are the masses' alone,
    and Born charges stand at the top instead of below "nac", their unit in the header.
    """
    supercell = crystal.supercell
    header = (
        "phonopy:\n  version: 2.12.0\n  frequency_unit_conversion_factor: 15.633302\n"
        "  symmetry_tolerance: 1.00000e-05\n  nac_unit_conversion_factor: 14.399652\n\n"
        'physical_unit:\n  atomic_mass: "AMU"\n\n'
        'space_group:\n  type: "Fm-3m"\n  number: 225\n  Hall_symbol: "-F 4 2 3"\n\n'
    )
    matrices = (
        "primitive_matrix:\n- [ 0.0, 0.5, 0.5 ]\n- [ 0.5, 0.0, 0.5 ]\n- [ 0.5, 0.5, 0.0 ]\n\n"
        f"supercell_matrix:\n{rows(crystal.supercell_matrix, '').replace('.' + 16 * '0', '')}\n\n"
    )
    born = "".join(f"- # {i}\n{rows(z * np.eye(3), '  ')}\n" for i, z in ((1, 1.1), (2, -1.1)))
    first = {s: 1 + list(supercell.symbols).index(s) for s in ("Na", "Cl")}
    cells = old_cell("unit_cell", crystal.unitcell, [first[s] for s in crystal.unitcell.symbols])
    cells += "\n" + old_cell("supercell", supercell, [first[s] for s in supercell.symbols])
    nac = f"born_effective_charge:\n{born}\ndielectric_constant:\n{rows(2.4 * np.eye(3), '  ')}\n"
    return f"{header}{matrices}{cells}\n{nac}\n{displacements}"


def one_atom_displaced(phonon):
    text = "displacements:\n"
    for entry in phonon.dataset["first_atoms"]:
        u = ", ".join(f"{x:.16f}" for x in entry["displacement"])
        text += f"- atom: {entry['number'] + 1:4d}\n  displacement:\n    [ {u} ]\n  forces:\n"
        text += rows(entry["forces"], "  ") + "\n"
    return text


def all_atoms_displaced(phonon):
    """Before phonopy 2.24: one list of atoms for each supercell, below "displacements"."""
    text = "displacements:\n"
    for u, forces in zip(phonon.dataset["displacements"], phonon.dataset["forces"], strict=True):
        text += "- # \n"
        for x, f in zip(u, forces, strict=True):
            text += f"  - displacement:\n      [ {x[0]:.16f}, {x[1]:.16f}, {x[2]:.16f} ]\n"
            text += f"    force:\n      [ {f[0]:.16f}, {f[1]:.16f}, {f[2]:.16f} ]\n"
    return text


@pytest.mark.parametrize("kind", ["one", "all"])
def test_file_of_phonopy_2(folder, cubic, cubic_springs, kind):
    if kind == "one":
        displacements = one_atom_displaced(phonopy_of(cubic, cubic_springs))
    else:
        displacements = all_atoms_displaced(with_random_forces(cubic, cubic_springs))
    path = folder / "phonopy_params.yaml"
    path.write_text(old_file(cubic, displacements))
    np.testing.assert_allclose(read(path, cubic).force_constants, cubic_springs, atol=1e-6)


def test_tags_of_a_file_run_nothing(tmp_path, cubic):
    """As they do with phonopy's own loader."""
    path = tmp_path / "phonopy_params.yaml"
    path.write_text(f"phonopy: !!python/object/apply:os.mkdir [{tmp_path / 'made'}]\n")
    with pytest.raises(ValueError, match=r"cannot read .*could not determine a constructor"):
        read(path, cubic)
    assert not (tmp_path / "made").exists()


def poscar(folder, crystal, name="POSCAR"):
    ase.io.write(folder / name, crystal.unitcell, format="vasp")
    return folder / name


@pytest.mark.parametrize(
    "name", ["FORCE_SETS", "FORCE_CONSTANTS", "compact", "force_constants.hdf5"]
)
def test_no_yaml_file(folder, rock_salt, stable, name):
    """What phonopy was given and what it gave, without its own file: a cell and forces."""
    phonon = phonopy_of(rock_salt, stable)
    if name == "FORCE_SETS":
        write_FORCE_SETS(phonon.dataset, folder / name)
    elif name == "compact":
        k = full_fc_to_compact_fc(phonon.primitive, stable)
        write_FORCE_CONSTANTS(k, folder / "FORCE_CONSTANTS", p2s_map=phonon.primitive.p2s_map)
    elif name == "FORCE_CONSTANTS":
        write_FORCE_CONSTANTS(stable, folder / name)
    else:
        write_force_constants_to_hdf5(stable, folder / name)
    model = read(poscar(folder, rock_salt), rock_salt)
    np.testing.assert_allclose(model.force_constants, stable, atol=1e-7)


def test_no_yaml_file_and_another_supercell(folder, rock_salt, stable):
    write_FORCE_CONSTANTS(stable, folder / "FORCE_CONSTANTS")
    other = replace(rock_salt, supercell_matrix=supercell_matrix([2, 2, 1]))
    with pytest.raises(ValueError, match=r"FORCE_CONSTANTS.*of 16 atoms; expected all 8"):
        read(poscar(folder, rock_salt), other)


def test_no_file_is_named():
    with pytest.raises(ValueError, match=r"data.phonons.path is null"):
        PhonopyFiles(None, FLOOR)


@pytest.mark.parametrize("own", [True, False], ids=["own supercell", "that of the third order"])
def test_files_of_phono3py(folder, rock_salt, stable, own):
    """Force constants of second order, in the supercell that phono3py has for them."""
    phonon = phonopy_of(rock_salt)
    save(phonon, folder / "phonopy_disp.yaml")
    text = (folder / "phonopy_disp.yaml").read_text().replace("phonopy:", "phono3py:", 1)
    if own:
        text = text.replace("supercell_matrix:", "phonon_supercell_matrix:", 1)
        text += "\nsupercell_matrix:\n- [ 1, 0, 0 ]\n- [ 0, 1, 0 ]\n- [ 0, 0, 1 ]\n"
    (folder / "phono3py_disp.yaml").write_text(text)
    (folder / "phonopy_disp.yaml").unlink()
    with pytest.raises(ValueError, match=r"phono3py_disp.yaml has neither .*fc2.hdf5"):
        read(folder / "phono3py_disp.yaml", rock_salt)
    with h5py.File(folder / "fc2.hdf5", "w") as file:
        file["fc2"] = full_fc_to_compact_fc(phonon.primitive, stable)
        file["p2s_map"] = phonon.primitive.p2s_map
    model = read(folder / "phono3py_disp.yaml", rock_salt)
    np.testing.assert_allclose(model.force_constants, stable, atol=1e-7)
    structure = StructureFile(str(folder / "phono3py_disp.yaml"))
    assert structure.crystals[0].supercell_matrix == rock_salt.supercell_matrix


@pytest.mark.parametrize("form", ["one atom", "all atoms", "in the yaml"])
def test_forces_of_phono3py(folder, cubic, cubic_springs, form):
    """In the supercell of the second order, as phono3py --cf2 or --sp writes them."""
    phonon = phonopy_of(cubic, cubic_springs)
    path = params_with_force_sets(folder, phonon, None)
    text = path.read_text().replace("phonopy:", "phono3py:", 1)
    text = text.replace("supercell_matrix:", "phonon_supercell_matrix:", 1)
    text = text.replace("\ndisplacements:", "\nphonon_displacements:")
    sets = phonon.dataset["first_atoms"]
    if form != "in the yaml":
        text = text[: text.index("phonon_displacements:")]
        lines = []
        for k, own in enumerate(sets):
            lines += [f"# File: {k + 1}"]
            if form == "one atom":
                vector = " ".join(map(str, own["displacement"]))
                lines += [f"# {own['number'] + 1}  {vector}"]
            for atom, force in enumerate(own["forces"]):
                moved = own["displacement"] * (atom == own["number"])
                both = [*force] if form == "one atom" else [*moved, *force]
                lines.append(" ".join(map(str, both)))
        (folder / "FORCES_FC2").write_text("\n".join(lines))
    path.unlink()
    path = folder / "phono3py_params.yaml"
    path.write_text(text)
    np.testing.assert_allclose(read(path, cubic).force_constants, cubic_springs, atol=1e-6)


def test_the_file_is_the_structure(folder, cubic, cubic_springs):
    """With its supercell and its unit of length."""
    phonon = phonopy_of(cubic, cubic_springs, "qe", units.Bohr, RYDBERG_FORCE)
    path = params_with_force_sets(folder, phonon, None)
    (crystal,) = StructureFile(str(path), relax=False).crystals
    np.testing.assert_allclose(crystal.supercell.positions, cubic.supercell.positions, atol=1e-6)
    assert crystal.supercell_matrix == cubic.supercell_matrix
    PhonopyFiles(str(path), FLOOR).check([crystal], relax=False)


def test_force_constants_are_checked_before_anything_is_calculated(folder, cubic, cubic_springs):
    path = params_with_force_constants(folder, phonopy_of(cubic), cubic_springs)
    source = PhonopyFiles(str(path), FLOOR)

    def changed(change, **kwargs):
        atoms = cubic.unitcell.copy()
        change(atoms)
        return replace(cubic, unitcell=atoms, **kwargs)

    larger = changed(lambda atoms: atoms.set_cell(1.05 * atoms.cell, scale_atoms=True))
    other = changed(lambda atoms: atoms.symbols.__setitem__(atoms.numbers == 11, "K"))
    source.check([cubic], relax=False)
    with pytest.raises(ValueError, match=r"supercells differ by 0.280 Ang"):
        source.check([larger], relax=False)
    source.check([larger], relax=True)  # it may relax to that of the file
    with pytest.raises(ValueError, match=r"match, until it is relaxed: .*relax=false"):
        source.check([cubic], relax=True)
    for relax in (True, False):
        with pytest.raises(ValueError, match=r"do not match: atom 0 \(K at"):
            source.check([other], relax)


def test_tolerance_of_the_symmetry(folder, cubic, cubic_springs):
    """Displacements of a crystal that is cubic within 0.01 Ang only."""
    write_FORCE_SETS(phonopy_of(cubic, cubic_springs).dataset, folder / "FORCE_SETS")
    atoms = cubic.unitcell.copy()
    atoms.positions[1, 0] += 0.005
    crystal = replace(cubic, unitcell=atoms)
    path = str(poscar(folder, crystal))
    with pytest.raises(ValueError, match=r"of 3 directions"):
        PhonopyFiles(path, FLOOR).check([crystal], relax=False)
    near = PhonopyFiles(path, FLOOR, symmetry_tolerance=0.02)
    near.check([crystal], relax=False)
    assert near.settings["symmetry_tolerance"] == 0.02
    assert "symmetry_tolerance" not in PhonopyFiles(path, FLOOR).settings
