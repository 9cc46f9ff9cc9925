"""Files of other versions of phonopy, of phono3py, of mixed crystals; what reading them costs."""

from dataclasses import replace

import ase.io
import h5py
import numpy as np
import pytest
from ase import units
from phonopy.file_IO import (
    write_FORCE_CONSTANTS,
    write_force_constants_to_hdf5,
    write_FORCE_SETS,
)
from phonopy.harmonic.force_constants import full_fc_to_compact_fc

from schnetpack_phonon.phonons.force_constants import save_phonopy
from schnetpack_phonon.phonons.phonopy_files import PhonopyFiles
from schnetpack_phonon.structures.crystals import supercell_matrix
from schnetpack_phonon.structures.files import StructureFile
from tests.phonons.force_constants_fixtures import (
    FLOOR,
    phonopy_of,
    read,
    save,
)
from tests.phonons.phonopy_files.phonopy_files_fixtures import (
    RYDBERG_FORCE,
    params_with_force_constants,
    params_with_force_sets,
    with_random_forces,
)


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
