"""Arrangements of a CIF file with shared or partly vacant sites."""

import logging
from collections import Counter

import numpy as np
import pytest

from schnetpack_phonon.structures import MixedAntiperovskites, vegard
from schnetpack_phonon.structures.crystals import Crystal
from schnetpack_phonon.structures.disordered import DisorderedCrystal
from tests.structures.formats.test_cif import group, write

CUBIC = (4.8, 4.8, 4.8, 90, 90, 90)
ANTIPEROVSKITE = ["Ag 0.5 0.5 0 1", "S 0.5 0.5 0.5 1"]
HALF = [*ANTIPEROVSKITE, "Br 0 0 0 0.5", "I 0 0 0 0.5"]
SMALL = (2, 2, 1)


@pytest.fixture
def cif(tmp_path):
    def make(sites, tags=None, cell=CUBIC):
        return str(write(tmp_path / "x.cif", cell, tags or group("P m -3 m", 221), sites))

    return make


def draw(path, n_arrangements=6, seed=1, supercell=SMALL, **options) -> list[Crystal]:
    return DisorderedCrystal(path, n_arrangements, seed, supercell, **options).crystals


def symbols(crystal) -> Counter:
    return Counter(crystal.unitcell.get_chemical_symbols())


def test_atoms_and_end_members(cif):
    """Those of Ag3S(Br,I), which is written by hand in another class."""
    crystals = draw(cif(HALF), name="Ag3SBrI")
    (expected,) = MixedAntiperovskites(
        ["Ag3S(Br,I)"], 1, 1, 0.5, SMALL, lattice_constants={"Ag3SBr": 4.8, "Ag3SI": 4.8}
    ).crystals
    for crystal in crystals:
        assert symbols(crystal) == symbols(expected)
        assert [m.name for m, _ in crystal.end_members] == ["Ag3SBr", "Ag3SI"]
        assert [weight for _, weight in crystal.end_members] == [0.5, 0.5]
        assert not crystal.own_force_constants
        np.testing.assert_allclose(crystal.unitcell.cell.array, expected.unitcell.cell.array)
        for member, _ in crystal.end_members:
            assert member.space_group == "Pm-3m (221)"
            there = np.isin(member.supercell.numbers, crystal.unitcell.numbers)
            assert there.all()
            np.testing.assert_allclose(member.supercell.positions, crystal.unitcell.positions)
    iodine = {tuple(np.flatnonzero(crystal.unitcell.symbols == "I")) for crystal in crystals}
    assert len(iodine) > 1  # different arrangements
    assert len({crystal.name for crystal in crystals}) == len(crystals)
    assert {crystal.composition for crystal in crystals} == {"Ag3SBrI"}


def test_equivalent_arrangements_share_a_parent(cif):
    """Two of four corners of a square: edges or the diagonal, whichever they are."""
    families = {}
    for crystal in draw(cif(HALF), n_arrangements=30):
        scaled = crystal.unitcell.get_scaled_positions()[crystal.unitcell.symbols == "I"]
        difference = (scaled[0] - scaled[1]).round(3) % 1
        families.setdefault(int((difference > 0).sum()), set()).add(crystal.parent)
    assert {n: len(parents) for n, parents in families.items()} == {1: 1, 2: 1}
    assert families[1] != families[2]


def test_arrangement_k_is_the_same_however_many_are_drawn(cif):
    few, many = (draw(cif(HALF), n_arrangements=n) for n in (2, 5))
    for one, other in zip(few, many, strict=False):
        assert one.unitcell == other.unitcell
    assert many[0].unitcell != draw(cif(HALF), seed=2)[0].unitcell


def test_sites_of_equal_occupancy_are_of_one_kind(cif):
    """Of a file that lists every atom: half of all, not of each."""
    tags = {"_symmetry_Int_Tables_number": 1}
    sites = [f"{e} {x} 0 0 0.5" for x in (0.0, 0.5) for e in ("Br", "I")]
    crystals = draw(cif([*sites, "Ag 0.25 0.5 0.5 1"], tags), supercell=(1, 1, 1), n_arrangements=9)
    assert {symbols(c)["I"] for c in crystals} == {1}
    assert len({tuple(c.unitcell.numbers) for c in crystals}) == 2


def test_vacancies(cif):
    """They need force constants of their own, since no crystal without them has the same sites."""
    path = cif(["Ag 0.5 0.5 0 1", "S 0.5 0.5 0.5 1", "Br 0 0 0 0.75"])
    for crystal in draw(path):
        assert symbols(crystal) == {"Ag": 12, "S": 4, "Br": 3}
        assert (crystal.end_members, crystal.own_force_constants) == ((), True)
    assert len({crystal.parent for crystal in draw(path)}) == 1  # any one of four is missing
    with pytest.raises(ValueError, match=r"force_constants.*end_members.*own"):
        draw(path, force_constants="end_members")


def test_two_mixed_sublattices(cif):
    """Weights of end members are products, and their elements come to the composition."""
    sites = ["Ag 0.5 0.5 0 1", "S 0.5 0.5 0.5 0.25", "Se 0.5 0.5 0.5 0.75"]
    (crystal,) = draw(cif([*sites, "Br 0 0 0 0.5", "I 0 0 0 0.5"]), n_arrangements=1)
    weights = {member.name: weight for member, weight in crystal.end_members}
    assert weights == {"Ag3SBr": 0.125, "Ag3SI": 0.125, "Ag3SeBr": 0.375, "Ag3SeI": 0.375}
    assert symbols(crystal) == {"Ag": 12, "S": 1, "Se": 3, "Br": 2, "I": 2}


def test_exchanged_elements_have_names_of_their_own(cif):
    """Both end members with one of each are AgSeS."""
    shares = [("S", 0, 0.75), ("Se", 0, 0.25), ("S", 0.5, 0.25), ("Se", 0.5, 0.75)]
    sites = [f"{element} {x} 0 0 {share}" for element, x, share in shares]
    tags = {"_symmetry_Int_Tables_number": 1}
    (crystal,) = draw(cif([*sites, "Ag 0.25 0.5 0.5 1"], tags), 1, supercell=(2, 2, 1))
    names = [member.name for member, _ in crystal.end_members]
    assert sorted(names) == ["AgS2", "AgSe2", "AgSeS_S-Se-Ag", "AgSeS_Se-S-Ag"]


def test_positions_are_the_mean_of_the_end_members(cif):
    """A free coordinate that relaxes to 0.24 and 0.28 is 0.26 at half of each."""
    tags = group("P 4/m m m", 123)
    cell = (4.0, 4.0, 8.0, 90, 90, 90)
    path = cif(["Ag 0 0 0.25 1", "Br 0 0 0 0.5", "I 0 0 0 0.5"], tags, cell)
    (crystal,) = draw(path, n_arrangements=1, supercell=(2, 1, 1))
    relaxed = {}
    for (member, _), z in zip(crystal.end_members, (0.24, 0.28), strict=True):
        unitcell = member.unitcell.copy()
        scaled = unitcell.get_scaled_positions()
        scaled[unitcell.symbols == "Ag", 2] = z, 1 - z
        unitcell.set_scaled_positions(scaled)
        relaxed[member.name] = Crystal(member.name, unitcell, member.supercell_matrix)
    mixed = vegard(crystal, relaxed)
    heights = mixed.unitcell.get_scaled_positions()[mixed.unitcell.symbols == "Ag", 2]
    np.testing.assert_allclose(sorted(heights), [0.26, 0.26, 0.74, 0.74], atol=1e-12)
    np.testing.assert_allclose(
        vegard(mixed, relaxed).unitcell.positions, mixed.unitcell.positions, atol=1e-12
    )


def test_nearest_composition_is_said(cif, caplog):
    with caplog.at_level(logging.WARNING):
        crystals = draw(cif([*ANTIPEROVSKITE, "Br 0 0 0 0.7", "I 0 0 0 0.3"]))
    assert "Br 0.7, I 0.3 is taken as Br 3, I 1 of 4 sites" in caplog.text
    assert {symbols(crystal)["I"] for crystal in crystals} == {1}


@pytest.mark.parametrize(
    ("sites", "named"),
    [
        ([*ANTIPEROVSKITE, "Br 0 0 0 0.9", "I 0 0 0 0.1"], "takes Br 4, I 0; expected at least"),
        ([*ANTIPEROVSKITE, "Br 0 0 0 0.7", "I 0 0 0 0.7"], "0, 0, 0 has Br 0.7, I 0.7; expected"),
        ([*ANTIPEROVSKITE, "Br 0 0 0 0"], "expected positive occupancies"),
        ([*ANTIPEROVSKITE, "Br 0 0 0 1"], "one atom on each site.*structure=file"),
        ([*ANTIPEROVSKITE, "Br 0.02 0 0 0.5", "I 0 0 0 0.5"], "all sites full.*Ang apart"),
        ([*ANTIPEROVSKITE, "D 0 0 0 0.5"], "deuterium"),
    ],
)
def test_refused(cif, sites, named):
    with pytest.raises(ValueError, match=named):
        draw(cif(sites))


def test_no_file(tmp_path):
    with pytest.raises(FileNotFoundError, match="no structure file at"):
        draw(str(tmp_path / "x.cif"))
