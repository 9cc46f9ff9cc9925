"""Files of bonds hold the numbers of their table."""

from __future__ import annotations

import ase.io
import numpy as np
import pandas as pd
import pytest

from schnetpack_phonon.attribution import results as bond_export
from schnetpack_phonon.attribution.bond_attribution import attribute
from schnetpack_phonon.data.reading import Structure
from schnetpack_phonon.models.heads import Intensive
from tests.models.model_fixtures import potential, thermal


@pytest.fixture(scope="module")
def found():
    structures = [Structure(*thermal(seed, strain=0.03), seed) for seed in (3, 5)]
    tables = [
        a.bonds() for a in attribute(potential(Intensive(16, "y")), structures, "y", unit="eV")
    ]
    return [(s.index, s.displaced) for s in structures], pd.concat(tables, ignore_index=True)


def test_csv_always_and_parquet_with_pyarrow(found, tmp_path, monkeypatch):
    _, bonds = found
    monkeypatch.setattr(bond_export, "find_spec", lambda _: None)
    bond_export.write_table(bonds, tmp_path / "bonds.csv")
    assert [p.name for p in tmp_path.iterdir()] == ["bonds.csv"]
    pd.testing.assert_frame_equal(pd.read_csv(tmp_path / "bonds.csv"), bonds, check_dtype=False)


def test_parquet(found, tmp_path):
    pytest.importorskip("pyarrow")
    bond_export.write_table(found[1], tmp_path / "bonds.csv")
    pd.testing.assert_frame_equal(pd.read_parquet(tmp_path / "bonds.parquet"), found[1])


def test_extxyz_has_half_of_each_bond_on_its_atoms(found, tmp_path):
    structures, bonds = found
    bond_export.write_bond_extxyz(tmp_path / "x.extxyz", structures, bonds)
    frames = ase.io.read(tmp_path / "x.extxyz", ":")
    for (index, atoms), frame in zip(structures, frames, strict=True):
        own = bonds[bonds["index"] == index]
        expected = np.zeros(len(atoms))
        for i, j, a in zip(own["i"], own["j"], own["attribution"], strict=True):
            expected[i] += a / 2
            expected[j] += a / 2
        np.testing.assert_allclose(frame.arrays["bond_attribution"], expected, atol=1e-8)
        np.testing.assert_allclose(frame.positions, atoms.positions, atol=1e-7)
        assert frame.info["index"] == index


def test_dump_local_has_every_bond_and_the_box(found, tmp_path):
    structures, bonds = found
    bond_export.write_dump_local(tmp_path / "x.dump", structures, bonds)
    frames = (tmp_path / "x.dump").read_text().split("ITEM: TIMESTEP\n")[1:]
    for k, ((index, atoms), frame) in enumerate(zip(structures, frames, strict=True)):
        lines = frame.splitlines()
        own = bonds[bonds["index"] == index]
        assert (int(lines[0]), int(lines[2])) == (k, len(own))
        (lx, hx, xy), (ly, hy, xz), (lz, hz, yz) = np.loadtxt(lines[4:7])
        lx, hx = lx - min(0, xy, xz, xy + xz), hx - max(0, xy, xz, xy + xz)
        ly, hy = ly - min(0, yz), hy - max(0, yz)
        assert (hx - lx) * (hy - ly) * (hz - lz) == pytest.approx(atoms.get_volume())
        names = lines[7].removeprefix("ITEM: ENTRIES ").split()
        table = pd.DataFrame(np.loadtxt(lines[8:]), columns=names)
        np.testing.assert_array_equal(table["batom1"] - 1, own["i"])
        np.testing.assert_array_equal(table["batom2"] - 1, own["j"])
        images = ["image_x", "image_y", "image_z"]
        np.testing.assert_array_equal(table[images], own[images])
        np.testing.assert_allclose(table["attribution"], own["attribution"], rtol=1e-6)
        np.testing.assert_allclose(table["distance"], own["distance"], atol=1e-5)
