"""Several crystals from files: their names, supercells, and errors."""

import ase.io
import pytest
from ase import Atoms
from ase.build import bulk

from schnetpack_phonon.structures.crystals import antiperovskite
from schnetpack_phonon.structures.files import formula
from schnetpack_phonon.structures.several_files import StructureFiles

CELLS = {"MgO": bulk("MgO", "rocksalt", a=4.21), "CaO": bulk("CaO", "rocksalt", a=4.81)}


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """The same crystals as single files, in folders, and in one file."""
    for name, atoms in CELLS.items():
        atoms.write(tmp_path / f"{name}.vasp", format="vasp")
        (tmp_path / name).mkdir()
        atoms.write(tmp_path / name / "POSCAR", format="vasp")
    ase.io.write(tmp_path / "both.extxyz", list(CELLS.values()))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def names(*arguments, **options):
    return [crystal.name for crystal in StructureFiles(*arguments, **options).crystals]


@pytest.mark.parametrize(
    ("paths", "expected"),
    [
        ({"a": "MgO.vasp", "b": "CaO/POSCAR"}, ["a", "b"]),
        (["MgO.vasp", "CaO.vasp"], ["MgO", "CaO"]),
        ("*.vasp", ["CaO", "MgO"]),
        ("*/POSCAR", ["CaO", "MgO"]),
        ("{name}/POSCAR", ["CaO", "MgO"]),
        ("both.extxyz", ["MgO", "CaO"]),
        (["MgO/POSCAR"], ["MgO"]),
    ],
    ids=str,
)
def test_names(folder, paths, expected):
    assert names(paths) == expected


def test_names_in_paths_and_names_of_files(folder):
    (folder / "MgO.vasp").rename(folder / "POSCAR-rocksalt")
    (folder / "CaO.vasp").rename(folder / "mp-2605.vasp")
    assert names(["POSCAR-rocksalt", "mp-2605.vasp"]) == ["rocksalt", "mp-2605"]
    for name in CELLS:
        (folder / name / "POSCAR").rename(folder / name / f"{name}.poscar")
    (folder / "MgO" / "other.poscar").write_text("")
    assert names("{name}/{name}.poscar", format="vasp") == ["CaO", "MgO"]


def test_names_of_structures_in_one_file(folder):
    frames = [CELLS["MgO"].copy(), CELLS["MgO"].copy()]
    ase.io.write("twice.extxyz", frames)
    with pytest.raises(ValueError, match=r"2 crystals are called MgO \(twice\.extxyz\); expected"):
        names("twice.extxyz")
    for atoms, name in zip(frames, ("small", "large"), strict=True):
        atoms.info["name"] = name
    ase.io.write("twice.extxyz", frames)
    assert names("twice.extxyz") == ["small", "large"]


@pytest.mark.parametrize(
    ("symbols", "expected"),
    [
        ("O3SrTi", "SrTiO3"),
        ("BrSAg3", "Ag3SBr"),
        ("OMg", "MgO"),
        ("Mg4O4", "MgO"),
        ("LiFePO4", "LiFePO4"),
        ("CSi", "SiC"),
        ("Cu3Au", "Cu3Au"),
        ("CCaO3", "CaCO3"),
    ],
)
def test_formulas_as_chemists_write_them(symbols, expected):
    assert formula(Atoms(symbols)) == expected


def test_supercells(folder, caplog):
    caplog.set_level("INFO")
    made = StructureFiles("*.vasp", {"CaO": [3, 3, 3]}, min_length=4.0)
    assert [len(crystal.supercell) for crystal in made.crystals] == [54, 8]
    assert "MgO (MgO.vasp): supercell [[-1, 1, 1], [1, -1, 1], [1, 1, -1]] of 8 at" in caplog.text
    assert [len(c.supercell) for c in StructureFiles("*.vasp", "auto", 4.0, 9).crystals] == [64] * 2
    assert [len(c.supercell) for c in StructureFiles("*.vasp", [2, 2, 1]).crystals] == [8, 8]


def test_errors(folder):
    for paths, error in (
        ({"oxides": "both.extxyz"}, r"both\.extxyz of the crystal oxides has 2 structures; expec"),
        ("*.cif", r"no structure file at .*/\*\.cif: set data\.structure\.paths"),
        ("{name}.cif", r"no structure file at .*name}\.cif"),
        ("nowhere", r"no structure file at .*nowhere"),
        ({"a": "nowhere"}, r"no structure file at .*nowhere"),
        ([], r"data\.structure\.paths is empty"),
        (["MgO.vasp", "MgO/POSCAR"], r"2 crystals are called MgO \(MgO\.vasp, MgO/POSCAR\)"),
        ({"a/b": "MgO.vasp"}, r"the name of a crystal is 'a/b'"),
    ):
        with pytest.raises((ValueError, FileNotFoundError), match=error):
            names(paths)
    with pytest.raises(ValueError, match=r"supercell names SrO; the crystals are CaO, MgO"):
        names("*.vasp", {"SrO": [2, 2, 2]})


def test_paths_start_where_the_command_was_typed(folder, tmp_path_factory, monkeypatch):
    monkeypatch.chdir(tmp_path_factory.mktemp("run"))
    for paths in ("*.vasp", "{name}.vasp", ["CaO.vasp", "MgO.vasp"]):
        assert names(paths, work_dir=str(folder)) == ["CaO", "MgO"]


def test_crystals_are_those_of_single_files(folder):
    antiperovskite("Ag3SBr").write("POSCAR_own", format="vasp")
    (crystal,) = StructureFiles("POSCAR_own", [2, 2, 2]).crystals
    assert (crystal.name, crystal.space_group) == ("own", "Pm-3m (221)")
    with pytest.raises(ValueError, match=r"symmetry_tolerance is 0 Ang"):
        StructureFiles("POSCAR_own", symmetry_tolerance=0)
