"""Structure files: formats, frames, masses, symmetry within a tolerance, and errors."""

from tempfile import TemporaryDirectory

import ase.io
import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk, molecule
from ase.calculators.emt import EMT
from ase.calculators.singlepoint import SinglePointCalculator
from hypothesis import given, settings
from hypothesis import strategies as st

from schnetpack_phonon.common.errors import UnreadableFileError
from schnetpack_phonon.structures.crystals import antiperovskite
from schnetpack_phonon.structures.files import StructureFile, read_frames, read_structure


@pytest.mark.parametrize("name", ["POSCAR", "crystal.cif", "crystal.extxyz"])
def test_structure_file(tmp_path, name):
    atoms = antiperovskite("Ag3SBr")
    ase.io.write(tmp_path / name, atoms)
    (crystal,) = StructureFile(str(tmp_path / name), supercell=[2, 2, 2]).crystals
    assert (crystal.name, len(crystal.supercell)) == ("Ag3SBr", 40)
    assert crystal.space_group == "Pm-3m (221)"
    np.testing.assert_allclose(crystal.unitcell.cell.cellpar(), atoms.cell.cellpar(), rtol=1e-6)


def test_disordered_structure_file(tmp_path):
    """A site shared by Br and I is no crystal of one of them."""
    ase.io.write(tmp_path / "mixed.cif", antiperovskite("Ag3SBr"))
    text = (tmp_path / "mixed.cif").read_text()
    (line,) = (line for line in text.splitlines() if line.split()[:1] == ["Br"])
    shared = "\n".join(line.replace("1.0000", "0.5000").replace("Br", x) for x in ("Br", "I"))
    (tmp_path / "mixed.cif").write_text(text.replace(line, shared))
    with pytest.raises(ValueError, match="occup"):
        StructureFile(str(tmp_path / "mixed.cif"), supercell=[2, 2, 2])


def test_structure_file_errors(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no structure file at .*nowhere.cif"):
        StructureFile("nowhere.cif", supercell=[1, 1, 1])
    ase.io.write(tmp_path / "water.xyz", molecule("H2O"))
    with pytest.raises(ValueError, match="periodic along 0 of 3"):
        StructureFile(str(tmp_path / "water.xyz"), supercell=[1, 1, 1])


def test_relative_paths_start_where_the_command_was_typed(tmp_path, monkeypatch):
    (tmp_path / "there").mkdir()
    bulk("Cu", cubic=True).write(tmp_path / "there" / "POSCAR")
    monkeypatch.chdir(tmp_path)  # the host changes into the run folder
    crystal = StructureFile("POSCAR", [1, 1, 1], work_dir=str(tmp_path / "there")).crystals[0]
    assert crystal.name == "Cu"


def pw_input(path, more="", masses=(22.99, 35.45), positions="crystal", at=0.5):
    """Rock salt as pw.x reads it, with blanks before the namelists."""
    path.write_text(
        f" &control\n  calculation = 'scf'\n /\n &system\n  ibrav=0, nat=2, ntyp=2{more}\n /\n"
        f" &electrons\n /\nATOMIC_SPECIES\nNa {masses[0]} na.upf\nCl1 {masses[1]} cl.upf\n"
        f"ATOMIC_POSITIONS {positions}\nNa 0 0 0\nCl1 {at} {at} {at}\n"
        "CELL_PARAMETERS angstrom\n0 2.8 2.8\n2.8 0 2.8\n2.8 2.8 0\nK_POINTS gamma\n"
    )
    return path


@pytest.mark.parametrize("name", ["scf.in", "scf", "nacl.inp"])
@pytest.mark.parametrize(("unit", "at"), [("crystal", 0.5), ("angstrom", 2.8)])
def test_input_of_pw(tmp_path, name, unit, at):
    """Which ASE takes for FHI-aims."""
    pw_input(tmp_path / name, positions=unit, at=at)
    (crystal,) = StructureFile(str(tmp_path / name), [2, 2, 2]).crystals
    atoms, expected = crystal.unitcell, bulk("NaCl", "rocksalt", a=5.6)
    assert (crystal.name, crystal.space_group) == ("NaCl", "Fm-3m (225)")
    np.testing.assert_allclose(atoms.cell.array, expected.cell.array)
    np.testing.assert_allclose(atoms.positions, [[0, 0, 0], [2.8, 2.8, 2.8]])
    np.testing.assert_array_equal(atoms.get_masses(), expected.get_masses())


def test_isotopes_of_pw(tmp_path):
    """Masses with few digits are those of the elements; others are meant."""
    atoms = read_structure(pw_input(tmp_path / "scf.in", masses=(22.99, 36.97)))
    np.testing.assert_allclose(atoms.get_masses(), [22.99, 36.97])


def test_magnetisation_of_pw(tmp_path):
    path = pw_input(tmp_path / "scf.in", ", nspin = 2, starting_magnetization(1) = 0.5")
    with pytest.raises(UnreadableFileError, match=r"scf\.in: starting_magnetization\(1\) is a sh"):
        read_structure(path)


def broken(name):
    """A file of this name that ASE has no words for."""
    if name == "isotope.extxyz":
        return '1\nLattice="3 0 0 0 3 0 0 0 3" Properties=species:S:1:pos:R:3\nD 0 0 0\n'
    return {"empty.cif": "", "prose.txt": "no structure\n", "half.vasp": "Cu\n1.0\n3.6 0"}[name]


@pytest.mark.parametrize("name", ["isotope.extxyz", "prose.txt", "half.vasp"])
def test_every_error_names_the_file_and_the_option(tmp_path, name):
    (tmp_path / name).write_text(broken(name))
    named = rf"cannot read .*{name}: .*; set data\.structure\.format if"
    with pytest.raises(UnreadableFileError, match=named):
        StructureFile(str(tmp_path / name), [1, 1, 1])
    with pytest.raises(UnreadableFileError, match=rf"cannot read .*{name}: "):
        list(read_frames(tmp_path / name))


def test_isotopes_are_told_as_such(tmp_path):
    for symbol in "DT":
        bulk("LiH", "rocksalt", a=4.0).write(tmp_path / "POSCAR")
        text = (tmp_path / "POSCAR").read_text()
        (tmp_path / "POSCAR").write_text(text.replace(" H", f" {symbol}"))
        with pytest.raises(UnreadableFileError, match=rf"POSCAR: {symbol} is an isotope; expec"):
            read_structure(tmp_path / "POSCAR")
    (tmp_path / "x.extxyz").write_text(broken("isotope.extxyz").replace("D 0", "Xx 0"))
    with pytest.raises(UnreadableFileError, match="KeyError: 'Xx'"):
        read_structure(tmp_path / "x.extxyz")


def test_empty_file(tmp_path):
    (tmp_path / "empty.cif").write_text("")
    with pytest.raises(UnreadableFileError, match=r"empty\.cif has no structure|Empty file"):
        read_structure(tmp_path / "empty.cif")


def test_format_that_the_name_does_not_tell(tmp_path):
    cell = bulk("Cu", cubic=True)
    cell.write(tmp_path / "copper.dat", format="vasp")
    with pytest.raises(UnreadableFileError, match=r"set data\.structure\.format"):
        StructureFile(str(tmp_path / "copper.dat"), [1, 1, 1])
    crystal = StructureFile(str(tmp_path / "copper.dat"), [1, 1, 1], format="vasp").crystals[0]
    np.testing.assert_allclose(crystal.unitcell.positions, cell.positions, atol=1e-9)
    with pytest.raises(UnreadableFileError, match="vsap"):
        read_structure(tmp_path / "copper.dat", format="vsap")


def test_no_part_of_a_path_is_an_index(tmp_path):
    (tmp_path / "run@2").mkdir()
    bulk("Cu", cubic=True).write(tmp_path / "run@2" / "cu@1.extxyz")
    assert len(read_structure("run@2/cu@1.extxyz")) == 4


def test_several_structures(tmp_path):
    """One of them is chosen, or none."""
    frames = [bulk("MgO", "rocksalt", a=4.21), bulk("CaO", "rocksalt", a=4.81)]
    path = tmp_path / "both.extxyz"
    ase.io.write(path, frames)
    named = r"both\.extxyz has 2 structures \(MgO, CaO\).*set data\.structure\.frame, 0 for the f"
    with pytest.raises(ValueError, match=named):
        StructureFile(str(path), [2, 2, 2])
    names = [StructureFile(str(path), [2, 2, 2], frame=k).crystals[0].name for k in (0, 1, -1)]
    assert names == ["MgO", "CaO", "CaO"]
    with pytest.raises(ValueError, match=r"frame is 2; .* has 2 structures, the first is 0"):
        StructureFile(str(path), [2, 2, 2], frame=2)


@pytest.mark.parametrize("index", [":", "1::2", "-1:", "0:0"])
def test_frames(tmp_path, index):
    frames = [bulk("Cu", a=3.6 + k / 10) for k in range(4)]
    ase.io.write(tmp_path / "md.extxyz", frames)
    found = [atoms.cell[0, 1] for atoms in read_frames(tmp_path / "md.extxyz", index)]
    parts = [int(part) if part else None for part in index.split(":")]
    np.testing.assert_allclose(found, [atoms.cell[0, 1] for atoms in frames[slice(*parts)]])


def test_atoms_on_each_other(tmp_path):
    atoms = Atoms("Cu2", [(0, 0, 0), (0, 0, 0.2)], cell=[3, 3, 3], pbc=True)
    atoms.write(tmp_path / "POSCAR")
    with pytest.raises(
        ValueError,
        match=r"POSCAR has atoms 0 \(Cu\) and 1 \(Cu\) 0\.200 Ang apart; expected at least",
    ):
        StructureFile("POSCAR", [1, 1, 1])


def test_symmetry_within_a_tolerance(tmp_path, caplog):
    """Four digits: without the option the hexagonal symmetry is lost, and said to be."""
    atoms = bulk("Mg", "hcp", a=3.21, c=5.21)
    atoms.set_scaled_positions([[0, 0, 0], [0.3336, 0.6667, 0.5]])
    atoms.write(tmp_path / "mg.extxyz")
    as_it_is = StructureFile("mg.extxyz", [2, 2, 2]).crystals[0]
    assert as_it_is.space_group != "P6_3/mmc (194)"
    assert "but P6_3/mmc within 0.01 Ang" in caplog.text
    assert "data.structure.symmetry_tolerance=0.01" in caplog.text
    caplog.clear()
    crystal = StructureFile("mg.extxyz", [2, 2, 2], symmetry_tolerance=0.01).crystals[0]
    assert crystal.space_group == "P6_3/mmc (194)"
    assert np.abs(crystal.unitcell.positions - atoms.positions).max() < 0.01
    assert not caplog.text
    with pytest.raises(ValueError, match=r"symmetry_tolerance is 0 Ang; expected > 0"):
        StructureFile("mg.extxyz", [2, 2, 2], symmetry_tolerance=0)


def test_labels_stay(tmp_path):
    """Of frames that are read to test models."""
    atoms = bulk("Cu", cubic=True)
    atoms.calc = EMT()
    energy = atoms.get_potential_energy()
    atoms.write(tmp_path / "cu.extxyz")
    (frame,) = read_frames(tmp_path / "cu.extxyz")
    assert frame.get_potential_energy() == pytest.approx(energy)


@pytest.mark.parametrize("calculated", [False, True])
def test_moments_of_a_file(tmp_path, calculated):
    """Initial ones as they are; those of a calculation rounded, where nothing else is said."""
    atoms = bulk("Cr", a=2.9, cubic=True)
    if calculated:
        atoms.calc = SinglePointCalculator(atoms, energy=0.0, magmoms=[1.2345, -1.2341])
    else:
        atoms.set_initial_magnetic_moments([1.234, -1.234])
    ase.io.write(tmp_path / "cr.extxyz", atoms)
    (crystal,) = StructureFile(str(tmp_path / "cr.extxyz"), [2, 1, 1]).crystals
    moment = 1.23 if calculated else 1.234
    expected = [moment, moment, -moment, -moment]
    np.testing.assert_array_equal(crystal.supercell.get_initial_magnetic_moments(), expected)


def test_noise_is_no_moment(tmp_path):
    atoms = bulk("Cr", a=2.9, cubic=True)
    atoms.calc = SinglePointCalculator(atoms, energy=0.0, magmoms=[0.001, -0.004])
    ase.io.write(tmp_path / "cr.extxyz", atoms)
    (crystal,) = StructureFile(str(tmp_path / "cr.extxyz"), [2, 1, 1]).crystals
    assert "initial_magmoms" not in crystal.supercell.arrays


@st.composite
def crystals(draw) -> Atoms:
    """One to four atoms, more than 1 Ang apart, in any cell and any place."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    cell = np.diag(rng.uniform(3.5, 6.0, 3))
    cell[np.tril_indices(3, -1)] = rng.uniform(-1.5, 1.5, 3)
    n = draw(st.integers(1, 4))
    sites = [(0, 0, 0), (0.5, 0.5, 0.5), (0.5, 0.0, 0.5), (0, 0.5, 0.0)][:n]
    symbols = draw(st.lists(st.sampled_from(["H", "Na", "Cl", "Ag"]), min_size=n, max_size=n))
    scaled = sites + rng.uniform(-0.05, 0.05, (n, 3))
    return Atoms(symbols, scaled_positions=scaled, cell=cell, pbc=True)


def check_round_trip(atoms: Atoms, name: str, format: str) -> None:
    """Lengths, angles and fractional positions of each atom; some formats turn the cell."""
    with TemporaryDirectory() as folder:
        if format == "espresso-in":
            pseudopotentials = dict.fromkeys(set(atoms.symbols), "any.upf")
            atoms.write(f"{folder}/{name}", format=format, pseudopotentials=pseudopotentials)
        else:
            atoms.write(f"{folder}/{name}", format=format)
        found = read_structure(f"{folder}/{name}")
    np.testing.assert_array_equal(found.numbers, atoms.numbers)
    np.testing.assert_allclose(found.cell.cellpar(), atoms.cell.cellpar(), rtol=1e-5)
    steps = found.get_scaled_positions() - atoms.get_scaled_positions()
    np.testing.assert_allclose(steps - steps.round(), 0, atol=1e-5)
    np.testing.assert_allclose(found.get_masses(), atoms.get_masses(), rtol=1e-3)
    assert found.pbc.all()


FORMATS = [
    ("POSCAR", "vasp"),
    ("x.cif", "cif"),
    ("x.extxyz", "extxyz"),
    ("x.in", "espresso-in"),
    ("x.pwi", "espresso-in"),
    ("x.traj", "traj"),
    ("x.json", "json"),
    ("x.db", "db"),
    ("x.xsf", "xsf"),
    ("x.gen", "gen"),
    ("x.res", "res"),
]


@settings(max_examples=40, deadline=None, derandomize=True)
@given(atoms=crystals(), written=st.sampled_from(FORMATS))
def test_random_crystals_in_all_formats(atoms, written):
    check_round_trip(atoms, *written)


@pytest.mark.slow
@settings(max_examples=2000, deadline=None)
@given(atoms=crystals(), written=st.sampled_from(FORMATS))
def test_many_random_crystals_in_all_formats(atoms, written):
    check_round_trip(atoms, *written)
