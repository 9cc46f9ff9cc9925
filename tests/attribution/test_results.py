"""Variance shares against closed forms, totals of types and shells, files of bonds."""

from __future__ import annotations

import ase.io
import numpy as np
import pandas as pd
import pytest

from schnetpack_phonon.attribution import results
from schnetpack_phonon.attribution.bond_attribution import attribute
from schnetpack_phonon.attribution.results import group_shares, shares, why_no_shares
from schnetpack_phonon.data.reading import Structure
from schnetpack_phonon.models.heads import Intensive
from tests.models.model_fixtures import potential, thermal


@pytest.fixture(scope="module")
def found():
    structures = [Structure(*thermal(seed, strain=0.03), 10 + seed, "Ag3SBr") for seed in range(4)]
    return attribute(potential(Intensive(16, "y")), structures, "y", unit="eV")


def test_bonds_hold_the_even_part_and_totals_the_whole(found):
    one = found[0]
    table = one.bonds()
    np.testing.assert_array_equal(table["attribution"], one.even)
    assert set(table["part"]) == {"even"}
    assert set(table["unit"]) == {"eV"}
    assert set(table["index"]) == {10}
    assert not table.duplicated(["i", "j", "image_x", "image_y", "image_z"]).any()
    totals = one.totals()
    assert totals["sum"].sum() == pytest.approx(one.attribution.sum())
    assert totals["n_bonds"].sum() == len(table)
    by_type = totals.groupby("bond_type")["sum"].sum()
    pd.testing.assert_series_equal(by_type, one.by_type(), check_names=False)


def test_shells_of_a_type_add_up_to_it(found):
    totals = pd.concat(
        a.totals().assign(model="trained", index=a.index, structure=a.structure) for a in found
    )
    structures = pd.DataFrame([{"model": "trained", **a.summary()} for a in found])
    by_type = group_shares(totals, structures, ["bond_type"], 50)
    by_shell = group_shares(totals, structures, ["bond_type", "shell"], 50)
    assert by_type["share"].sum() == pytest.approx(1, abs=0.01)
    sums = by_shell.groupby("bond_type")[["sum", "share"]].sum()
    expected = by_type.set_index("bond_type")[["sum", "share"]]
    pd.testing.assert_frame_equal(sums, expected, atol=1e-9)
    assert {"low", "high", "ideal_distance", "n_bonds", "unit"} <= set(by_shell.columns)


def test_variance_shares_are_covariances():
    """Cov(A_t, df) / Var(df) by numpy; a type that a structure lacks counts as zero."""
    a, b, c = np.random.default_rng(0).normal(size=(3, 40)) * [[1.0], [0.5], [0.2]]
    c[:5] = 0
    change = a + b + c
    table = pd.DataFrame({"Ag-S": a, "Ag-Br": b, "Br-S": np.where(c == 0, np.nan, c)})
    found = shares(table, change)
    for name, values in (("Ag-S", a), ("Ag-Br", b), ("Br-S", c)):
        expected = np.cov(values, change)[0, 1] / np.var(change, ddof=1)
        assert found.loc[name, "share"] == pytest.approx(expected, rel=1e-6)
        assert found.loc[name, "low"] < expected < found.loc[name, "high"]
    assert found["share"].sum() == pytest.approx(1)


def test_interval_has_the_width_of_a_regression_slope():
    """A = w df + noise: the share is a slope, with standard error s_noise / (s_df sqrt(n))."""
    n, w, noise = 400, 0.7, 0.5
    change, rest = np.random.default_rng(2).normal(size=(2, n)) * [[1.0], [noise]]
    terms = w * change + rest
    found = shares(pd.DataFrame({"Ag-S": terms, "Ag-Br": change - terms}), change)
    width = found.loc["Ag-S", "high"] - found.loc["Ag-S", "low"]
    assert width == pytest.approx(2 * 1.96 * noise / np.sqrt(n), rel=0.2)


@pytest.mark.parametrize("n", [9, 10])
def test_few_structures_have_no_interval(n):
    """The verdict calls them too few; a table beside it may not give one."""
    change, rest = np.random.default_rng(2).normal(size=(2, n))
    found = shares(pd.DataFrame({"Ag-S": change + rest, "Ag-Br": -rest}), change)
    assert found["share"].sum() == pytest.approx(1)
    assert found[["low", "high"]].isna().all(axis=None) == (n < 10)


@pytest.mark.parametrize(
    ("change", "why"),
    [([1.0, 2.0], "structures: 2"), ([0.0] * 5, "undefined"), ([0.3] * 5, "undefined")],
    ids=["two structures", "no change", "one and the same change"],
)
def test_variance_shares_are_missing_where_they_mean_nothing(change, why):
    assert why in why_no_shares(np.array(change))
    small = np.array([1e-9, 2e-9, 4e-9])  # whatever the unit
    assert why_no_shares(small) == why_no_shares(small, np.full(3, np.nan)) == ""
    assert why_no_shares(small, small / 100) == ""
    assert "residual of 3e-09: shares are undefined" in why_no_shares(small, small[::-1])
    found = shares(pd.DataFrame({"Ag-S": change, "Ag-Br": change}), change)
    assert found[["share", "low", "high"]].isna().all(axis=None)
    assert found["sum"].notna().all()


@pytest.fixture(scope="module")
def displaced_and_bonds(found):
    displaced = [(a.index, a.path.displaced) for a in found[:2]]
    return displaced, pd.concat([a.bonds() for a in found[:2]], ignore_index=True)


def test_csv_always_and_parquet_with_pyarrow(displaced_and_bonds, tmp_path, monkeypatch):
    _, bonds = displaced_and_bonds
    with monkeypatch.context() as patch:
        patch.setattr(results, "find_spec", lambda _: None)
        results.write_table(bonds, tmp_path / "bonds.csv")
    assert [p.name for p in tmp_path.iterdir()] == ["bonds.csv"]
    pd.testing.assert_frame_equal(pd.read_csv(tmp_path / "bonds.csv"), bonds, check_dtype=False)
    pytest.importorskip("pyarrow")
    results.write_table(bonds, tmp_path / "bonds.csv")
    pd.testing.assert_frame_equal(pd.read_parquet(tmp_path / "bonds.parquet"), bonds)


def test_extxyz_has_half_of_each_bond_on_its_atoms(displaced_and_bonds, tmp_path):
    structures, bonds = displaced_and_bonds
    results.write_bond_extxyz(tmp_path / "x.extxyz", structures, bonds)
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


def test_dump_local_has_every_bond_and_the_box(displaced_and_bonds, tmp_path):
    structures, bonds = displaced_and_bonds
    results.write_dump_local(tmp_path / "x.dump", structures, bonds)
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
