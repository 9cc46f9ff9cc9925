"""Databases are readable by SchNetPack and complete or absent; differences are named."""

import sqlite3
from contextlib import closing
from pathlib import Path

import ase.db
import numpy as np
import pytest
from ase.build import bulk
from ase.io import read
from schnetpack.data import ASEAtomsData

from schnetpack_phonon.common import properties
from schnetpack_phonon.common.errors import DatabaseError
from schnetpack_phonon.data.database import (
    Row,
    check_settings,
    read_metadata,
    write_database,
    write_db,
)
from schnetpack_phonon.data.export import write_extxyz, write_xyz
from schnetpack_phonon.data.reading import read_labels, read_provenance, read_structures
from tests.data.data_fixtures import copper

SETTINGS = {
    "structure": {"relax": True, "crystals": {"Cu": {"supercell": [[2, 0, 0], [0, 2, 0]]}}},
    "phonons": None,
    "ensemble": {"kind": "random", "amplitudes": [0.1], "n_snapshots": 5},
}
PARENTS = [f"Cu/random/0.1/{i}" for i in range(5)]


@pytest.fixture(scope="session")
def rows(make_snapshots, emt):
    snapshots = make_snapshots(PARENTS)
    return snapshots, [emt.label(s.atoms) for s in snapshots]


@pytest.fixture
def write(rows):
    def write(path: Path) -> Path:
        snapshots, labels = rows
        metadata = {"settings": SETTINGS, "n_rows": len(snapshots)}
        write_database(path, snapshots, labels, {"code": "ase 3"}, metadata)
        return path

    return write


@pytest.fixture
def database(tmp_path, write) -> Path:
    return write(tmp_path / "data.db")


def test_schnetpack_reads_every_row(database, rows):
    """In order, with the shapes that collate and the values that were computed, in any unit."""
    units = {properties.stress: "GPa", properties.energy: "kcal/mol"}
    dataset = ASEAtomsData(str(database), property_units=units)
    assert len(dataset) == 5
    assert dataset.distance_unit == "Ang"
    factor = {properties.stress: 160.21766208, properties.energy: 23.060548}
    for index, (snapshot, labels) in enumerate(zip(*rows, strict=True)):
        item = dataset[index]
        np.testing.assert_array_equal(item["_positions"], snapshot.atoms.positions)
        np.testing.assert_array_equal(item["_cell"][0], snapshot.atoms.cell.array)
        np.testing.assert_array_equal(item["_atomic_numbers"], snapshot.atoms.numbers)
        n = len(snapshot.atoms)
        for key, value in labels.items():
            assert item[key].shape == properties.array_shape(key, n)
            np.testing.assert_allclose(item[key], value * factor.get(key, 1.0), rtol=1e-6)
        np.testing.assert_array_equal(item[properties.ideal_positions], snapshot.ideal.positions)
        np.testing.assert_array_equal(item[properties.ideal_cell], [snapshot.ideal.cell.array])


def test_provenance_and_columns(database, rows):
    table = read_provenance(database)
    assert list(table["parent"]) == PARENTS
    assert list(table["snapshot"]) == list(range(5))
    assert set(table["code"]) == {"ase 3"}
    assert set(table["amplitude"]) == {0.1}
    energies = [labels[properties.energy][0] for labels in rows[1]]
    found = read_labels(database)
    np.testing.assert_array_equal(found[properties.energy], energies)
    assert set(found) == {"energy", "energy_per_atom", "hydrostatic_stress"}
    for snapshot, structure in zip(rows[0], read_structures(database), strict=True):
        assert (structure.displaced, structure.ideal) == (snapshot.atoms, snapshot.ideal)


def test_extxyz_as_ase_reads_it(database, rows, tmp_path):
    """With the ideal positions; energies, forces and stresses are in the tests of the export."""
    target = tmp_path / "data.extxyz"
    write_extxyz(database, target)
    for atoms, snapshot, labels in zip(read(target, ":"), *rows, strict=True):
        np.testing.assert_allclose(atoms.positions, snapshot.atoms.positions, atol=1e-8)
        ideal = atoms.arrays[properties.ideal_positions]
        np.testing.assert_allclose(ideal, snapshot.ideal.positions, atol=1e-8)
        assert atoms.info["parent"] == snapshot.parent
        pressure = atoms.info[properties.hydrostatic_stress]
        assert pressure == pytest.approx(labels[properties.hydrostatic_stress].item())
    assert sorted(p.name for p in tmp_path.iterdir()) == ["data.db", "data.extxyz"]


def test_each_difference_is_named(database):
    other = {
        "structure": {"relax": False, "crystals": {"Cu": {"supercell": [[2, 0, 0], [0, 2, 0]]}}},
        "phonons": {"distance": 0.03},
        "ensemble": {"kind": "random", "amplitudes": [0.1, 0.2], "n_snapshots": 5},
    }
    check_settings(database, {**SETTINGS})
    with pytest.raises(DatabaseError) as error:
        check_settings(database, other)
    lines = {line.strip() for line in str(error.value).splitlines() if line.startswith("  ")}
    assert lines == {
        "structure.relax: True in the database, False requested",
        "phonons: None in the database, {'distance': 0.03} requested",
        "ensemble.amplitudes: [0.1] in the database, [0.1, 0.2] requested",
    }


def cut(path: Path, share: float) -> None:
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * share)])


def overwrite_middle(path: Path) -> None:
    content = bytearray(path.read_bytes())
    middle = len(content) // 2
    content[middle - 4096 : middle + 4096] = bytes(8192)
    path.write_bytes(content)


def delete_row(path: Path) -> None:
    with ase.db.connect(path) as db:
        db.delete([2])


def newer_format(path: Path) -> None:
    with ase.db.connect(path) as db:
        db.metadata = {**db.metadata, "schnetpack_phonon": {"format": 2}}


@pytest.mark.parametrize(
    ("damage", "named"),
    [
        (lambda path: cut(path, 0.9), "damaged|truncated"),
        (lambda path: cut(path, 0.5), "damaged|truncated"),
        (lambda path: cut(path, 0.01), "damaged|truncated"),
        (lambda path: cut(path, 0.0), "data.db"),
        (overwrite_middle, "damaged|truncated"),
        (delete_row, "has 4 rows; expected 5"),
        (newer_format, "has format 2; expected 1"),
        (lambda path: path.write_text("energy,forces\n"), "is not an ASE database"),
        (lambda path: path.unlink(), "no database at /"),
    ],
)
def test_damaged_database(database, damage, named):
    damage(database)
    before = database.read_bytes() if database.exists() else None
    with pytest.raises(DatabaseError, match=named):
        check_settings(database, SETTINGS)
    assert (database.read_bytes() if database.exists() else None) == before
    assert set(database.parent.iterdir()) <= {database, database.with_name("data.db.lock")}


def test_ase_database_of_another_program(tmp_path):
    with ase.db.connect(tmp_path / "ase.db") as db:
        db.write(bulk("Cu"))
    for read_it in (read_metadata, lambda path: write_extxyz(path, tmp_path / "out.extxyz")):
        with pytest.raises(DatabaseError, match=r"was not made by .*data.datapath"):
            read_it(tmp_path / "ase.db")
    assert not (tmp_path / "out.extxyz").exists()


def test_sqlite_file_of_another_program(tmp_path):
    """It is refused, and not written to."""
    path = tmp_path / "bookmarks.db"
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("CREATE TABLE bookmarks (url TEXT)")
        connection.commit()
    before = path.read_bytes()
    with pytest.raises(DatabaseError):
        read_metadata(path)
    assert path.read_bytes() == before


@pytest.mark.parametrize("name", ["a b", "run #1", "a%20b", "what?"])
def test_any_folder_name(tmp_path, write, name):
    path = write(tmp_path / name / "data.db")
    assert read_metadata(path)["n_rows"] == 5
    assert list(tmp_path.iterdir()) == [path.parent]


def test_existing_file_is_not_overwritten(database, write):
    before = database.read_bytes()
    with pytest.raises(DatabaseError, match="exists already"):
        write(database)
    assert database.read_bytes() == before


@pytest.mark.parametrize("room", [0, 3000, 20000])
def test_full_disk_leaves_nothing(tmp_path, write, full_disk, room):
    path = tmp_path / "data" / "data.db"
    with full_disk(room), pytest.raises(DatabaseError, match=r"cannot write .*labels are safe"):
        write(path)
    assert not list(path.parent.iterdir())
    write(path)
    assert [p.name for p in path.parent.iterdir()] == ["data.db"]


@pytest.mark.parametrize("place", ["file", "proc"])
def test_folder_that_cannot_be_made(tmp_path, write, place):
    (tmp_path / "file").touch()
    path = {"file": tmp_path / "file" / "data.db", "proc": Path("/proc/data/data.db")}[place]
    with pytest.raises(DatabaseError, match="cannot write"):
        write(path)


def test_labels_that_do_not_fit_leave_nothing(tmp_path, rows):
    """One snapshot without labels: no database of the others."""
    snapshots, labels = rows
    with pytest.raises(ValueError, match="shorter"):
        write_database(tmp_path / "data.db", snapshots, labels[:-1], {}, {})
    assert not list(tmp_path.iterdir())


def plain_rows(n, fail=False):
    for number in range(n):
        yield Row(copper(number), {"vbm": np.array([0.1 * number])}, {"parent": f"p{number}"})
    if fail:
        raise KeyboardInterrupt


def test_rows_of_an_iterator(tmp_path):
    """Written as they come, with the units of what they hold."""
    write_db(tmp_path / "data.db", plain_rows(3), {"ours": 1})
    write_xyz(tmp_path / "data.extxyz", plain_rows(3))
    with ase.db.connect(tmp_path / "data.db") as db:
        assert db.metadata["_property_unit_dict"] == {"vbm": "eV"}
        assert (db.metadata["_distance_unit"], db.metadata["ours"]) == ("Ang", 1)
        found = list(db.select())
    for number, (row, atoms) in enumerate(zip(found, read("data.extxyz", ":"), strict=True)):
        assert row.toatoms() == copper(number)
        np.testing.assert_allclose(atoms.positions, copper(number).positions, atol=1e-7)
        assert row.parent == atoms.info["parent"] == f"p{number}"
        assert row.data["vbm"].item() == atoms.info["vbm"] == 0.1 * number
        assert atoms.calc is None


@pytest.mark.parametrize("write", [lambda path, rows: write_db(path, rows, {}), write_xyz])
def test_interrupted_writing_leaves_nothing(write, tmp_path):
    with pytest.raises(KeyboardInterrupt):
        write(tmp_path / "data.db", plain_rows(3, fail=True))
    assert list(tmp_path.iterdir()) == []
