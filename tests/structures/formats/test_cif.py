"""CIF files: settings, special positions, and what a file says of its content."""

import numpy as np
import pytest
import spglib
from ase.build import bulk

from schnetpack_phonon.structures.crystals import shortest_distance
from schnetpack_phonon.structures.formats.cif import read_cif

CELLS = {"cubic": (5.43, 5.43, 5.43, 90, 90, 90), "hexagonal": (3.2, 3.2, 5.2, 90, 90, 120)}
SILICON = {"_chemical_formula_sum": "'Si8'", "_cell_formula_units_Z": 8}


def write(path, cell, tags, sites, operations=(), more=""):
    """``sites``: type, x, y, z, occupancy of each."""
    names = [*(f"length_{x}" for x in "abc"), *(f"angle_{x}" for x in ("alpha", "beta", "gamma"))]
    lines = ["data_crystal", *(f"_cell_{n} {x}" for n, x in zip(names, cell, strict=True))]
    lines += [f"{tag} {value}" for tag, value in tags.items()]
    if operations:
        lines += ["loop_", "_space_group_symop_operation_xyz", *(f"'{o}'" for o in operations)]
    columns = ("type_symbol", "fract_x", "fract_y", "fract_z", "occupancy")
    lines += ["loop_", "_atom_site_label", *(f"_atom_site_{c}" for c in columns), *more.split()]
    lines += [f"{site.split()[0]}{k} {site}" for k, site in enumerate(sites, 1)]
    path.write_text("\n".join(lines) + "\n")
    return path


def group(name, number):
    return {"_symmetry_space_group_name_H-M": f"'{name}'", "_symmetry_Int_Tables_number": number}


def found(atoms):
    cell = (atoms.cell.array, atoms.get_scaled_positions(), atoms.numbers)
    return spglib.get_symmetry_dataset(cell, symprec=1e-5).number


@pytest.mark.parametrize(
    ("name", "site"),
    [
        ("F d -3 m :2", "Si 0.125 0.125 0.125 1"),
        ("F d -3 m :1", "Si 0 0 0 1"),
        ("F d -3 m :S", "Si 0 0 0 1"),
        ("Fd-3m", "Si 0.125 0.125 0.125 1"),
        ("F d -3 m", "Si 0 0 0 1"),
        ("F d -3 m :2", "Si 0.375 0.375 0.375 1"),
    ],
)
def test_origin_choices(tmp_path, name, site):
    """Diamond: eight atoms, each with four neighbours at a sqrt(3)/4, whatever the origin."""
    path = write(tmp_path / "si.cif", CELLS["cubic"], SILICON | group(name, 227), [site])
    (atoms,) = read_cif(path)
    assert (len(atoms), found(atoms)) == (8, 227)
    assert shortest_distance(atoms) == pytest.approx(5.43 * 3**0.5 / 4)


@pytest.mark.parametrize("digits", [3, 4, 6])
def test_thirds_of_few_digits(tmp_path, digits):
    """Close-packed: two atoms on the exact special position, not six."""
    third, two_thirds = f"{1 / 3:.{digits}f}", f"{2 / 3 - 0.5 * 10**-digits:.{digits}f}"
    sites = [f"Mg {third} {two_thirds} 0.25 1"]
    path = write(tmp_path / "mg.cif", CELLS["hexagonal"], group("P 63/m m c", 194), sites)
    (atoms,) = read_cif(path)
    assert (len(atoms), found(atoms)) == (2, 194)
    expected = [[1 / 3, 2 / 3, 0.25], [2 / 3, 1 / 3, 0.75]]
    scaled = atoms.get_scaled_positions()
    np.testing.assert_allclose(scaled[scaled[:, 2].argsort()], expected, atol=1e-9)


def test_all_atoms_with_listed_operations(tmp_path):
    """As ASE's own reader where this one is right."""
    expected = bulk("NaCl", "rocksalt", a=5.6, cubic=True)
    expected.write(tmp_path / "nacl.cif")
    (atoms,) = read_cif(tmp_path / "nacl.cif")
    np.testing.assert_array_equal(atoms.numbers, expected.numbers)
    np.testing.assert_allclose(atoms.positions, expected.positions, atol=1e-9)


@pytest.mark.parametrize(
    ("name", "number", "angles", "image"),
    [
        ("P 1 21/n 1", 14, (90, 100, 90), (0.4, 0.7, 0.2)),
        ("P 21/n", 14, (90, 100, 90), (0.4, 0.7, 0.2)),
        ("P 21/c", 14, (90, 100, 90), (0.9, 0.7, 0.2)),
        ("P 1 21/a 1", 14, (90, 100, 90), (0.4, 0.7, 0.7)),
        ("P 1 1 21/b", 14, (90, 90, 100), (0.9, 0.3, 0.8)),
    ],
)
def test_monoclinic_settings(tmp_path, name, number, angles, image):
    """Where the screw axis takes (0.1, 0.2, 0.3): International Tables A, number 14."""
    tags = group(name, number)
    path = write(tmp_path / "x.cif", (5, 6, 7, *angles), tags, ["Si 0.1 0.2 0.3 1"])
    (atoms,) = read_cif(path)
    assert (len(atoms), found(atoms)) == (4, 14)
    steps = atoms.get_scaled_positions() - image
    assert min(np.abs(steps - steps.round()).max(axis=1)) < 1e-9


@pytest.mark.parametrize(
    ("cell", "n_atoms"), [((4.0, 4.0, 10.0, 90, 90, 120), 3), ((4, 4, 4, 60, 60, 60), 1)]
)
def test_rhombohedral_axes_are_those_of_the_cell(tmp_path, cell, n_atoms):
    (atoms,) = read_cif(write(tmp_path / "x.cif", cell, group("R -3 m", 166), ["As 0 0 0 1"]))
    assert len(atoms) == n_atoms


def test_symbol_that_fits_two_crystals(tmp_path):
    """Eight atoms by either origin, not at the same places, and no Z."""
    sites = ["Si 0 0 0 1", "Si 0.125 0.125 0.125 1"]
    path = write(tmp_path / "x.cif", (9.0,) * 3 + (90,) * 3, group("F d -3 m", 227), sites)
    with pytest.raises(ValueError, match="2 settings fit; list the operations"):
        read_cif(path)


@pytest.mark.parametrize(
    ("tags", "sites", "named"),
    [
        (SILICON | group("F d -3 m :1", 227), ["Si 0.125 0.125 0.125 1"], "Si16 in its cell.*Z is"),
        ({"_chemical_formula_sum": "'Si O2'"} | group("P 1", 1), ["Si 0 0 0 1"], "Si in its.*O2"),
        (group("P 1", 1), ["Si 0 0 0 1", "Si 0.01 0 0 1"], "0.054 Ang apart"),
        (group("P 1", 1), ["Si 0 0 0 0.5"], r"partial occupancy \(Si1: 0.5\).*structure=files"),
        (group("P 1", 1), ["Xx 0 0 0 1"], "'Xx' is no chemical element"),
        (group("P 1", 1), ["Si ? 0 0 1"], "could not convert string to float"),
        ({}, ["Si 0 0 0 1"], "neither symmetry operations nor a space group"),
        (group("P q", 1), ["Si 0 0 0 1"], "is no setting that spglib knows"),
        (group("P 6", 168), ["Si 0 0 0 1"], "does not have the symmetry of P 6"),
        (group("P 1", 1) | {"_space_group_magn.number_BNS": "1.1"}, ["Si 0 0 0 1"], "magnetic"),
        (group("P 1", 1) | {"_cell_modulation_dimension": 1}, ["Si 0 0 0 1"], "modulated"),
    ],
)
def test_refused(tmp_path, tags, sites, named):
    with pytest.raises(ValueError, match=named):
        read_cif(write(tmp_path / "x.cif", CELLS["cubic"], tags, sites))


@pytest.mark.parametrize(
    ("column", "value", "named"),
    [
        ("_atom_site_disorder_group", "1", "disorder .Si1 in group 1"),
        ("_atom_site_calc_flag", "dum", "Si1 is a dummy atom"),
    ],
)
def test_disorder_and_dummies(tmp_path, column, value, named):
    site = f"Si 0 0 0 1 {value}"
    path = write(tmp_path / "x.cif", CELLS["cubic"], group("P 1", 1), [site], more=column)
    with pytest.raises(ValueError, match=named):
        read_cif(path)


@pytest.mark.parametrize("n", [1, 4])
def test_formula_units_of_either_formula(tmp_path, n):
    """Z counts units of the sum: 4 NaCl, or, where the sum is of the cell, Na4Cl4 with Z = 4."""
    tags = {"_chemical_formula_sum": f"'Na{n} Cl{n}'", "_cell_formula_units_Z": 4}
    sites = ["Na1+ 0 0 0 1", "CL1- 0.5 0.5 0.5 ."]
    path = write(tmp_path / "x.cif", CELLS["cubic"], tags | group("F m -3 m", 225), sites)
    (atoms,) = read_cif(path)
    assert atoms.get_chemical_formula() == "Cl4Na4"


def test_deuterium(tmp_path):
    sites = ["Li 0 0 0 1", "D 0.5 0.5 0.5 1"]
    tags = {"_chemical_formula_sum": "'Li D'", "_cell_formula_units_Z": 4}
    path = write(tmp_path / "x.cif", CELLS["cubic"], tags | group("F m -3 m", 225), sites)
    (atoms,) = read_cif(path)
    assert atoms.get_chemical_formula() == "H4Li4"
    lithium, hydrogen = atoms.numbers == 3, atoms.numbers == 1
    np.testing.assert_array_equal(atoms.get_masses()[lithium], [6.94] * 4)
    np.testing.assert_allclose(atoms.get_masses()[hydrogen], 2.014, atol=1e-3)
