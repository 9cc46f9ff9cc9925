"""Phonopy's files that are broken, or of another crystal, unit or order."""

from dataclasses import replace

import numpy as np
import pytest
from ase import Atoms, units
from phonopy.file_IO import (
    write_FORCE_CONSTANTS,
    write_FORCE_SETS,
)

from schnetpack_phonon.phonons.checks import same_atoms
from schnetpack_phonon.phonons.harmonic import normal_modes
from schnetpack_phonon.phonons.phonopy_files import PhonopyFiles
from schnetpack_phonon.structures.crystals import Antiperovskites
from tests.phonons.force_constants_fixtures import (
    ALLOYS,
    FLOOR,
    magnetic_force_constants,
    no_labels,
    phonopy_of,
    read,
    save,
)
from tests.phonons.phonopy_files.phonopy_files_fixtures import (
    RYDBERG_FORCE,
    cells_beside_force_constants,
    cells_beside_hdf5,
    changed,
    displacements_beside_force_sets,
    pair_springs,
    params_with_force_constants,
    params_with_force_sets,
    with_random_forces,
)


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
