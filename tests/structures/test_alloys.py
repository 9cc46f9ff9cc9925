"""Mixed crystals: composition, lattice, masses and families of equivalent arrangements."""

from dataclasses import replace
from itertools import permutations, product

import numpy as np
import pytest
from ase.data import atomic_masses, atomic_numbers
from scipy import stats

from schnetpack_phonon.structures import alloys
from schnetpack_phonon.structures.alloys import MixedAntiperovskites, end_member_formulas, vegard
from schnetpack_phonon.structures.crystals import (
    Antiperovskites,
    Crystal,
    antiperovskite,
    supercell_matrix,
)

CONSTANTS = {"Ag3SBr": 4.8, "Ag3SI": 5.0, "Ag3SeBr": 5.1}


def mixed(names=("Ag3S(Br,I)",), n_arrangements=6, seed=1, **options) -> list[Crystal]:
    options = {"lattice_constants": CONSTANTS} | options
    return MixedAntiperovskites(names, n_arrangements, seed, **options).crystals


@pytest.fixture
def many(monkeypatch):
    """Arrangements by the thousand: in the cell of the first end member, which takes no time."""
    monkeypatch.setattr(alloys, "vegard", lambda crystal, relaxed: crystal)
    return mixed


def pattern(crystal: Crystal, elements=("Br", "I")) -> np.ndarray:
    """True where the second element is, over the shared sites in order of place in the lattice."""
    scaled = crystal.unitcell.get_scaled_positions()
    symbols = np.array(crystal.unitcell.get_chemical_symbols())
    sites = np.flatnonzero(np.isin(symbols, elements))
    order = np.lexsort(scaled[sites].round(6).T)
    return symbols[sites[order]] == elements[1]


def families(shape: tuple[int, int, int]) -> dict[tuple[bool, ...], frozenset]:
    """Each pattern on a cubic lattice of n1 x n2 x n3 sites -> all that symmetry makes of it.

    By hand: translations, inversion of each axis and exchange of axes of equal length.
    """
    sites = sorted(product(*map(range, shape)), key=lambda site: site[::-1])  # as np.lexsort
    place = {site: k for k, site in enumerate(sites)}
    axes = [p for p in permutations(range(3)) if all(shape[i] == shape[k] for k, i in enumerate(p))]
    moves = {
        tuple(
            place[
                tuple(
                    (s * site[i] + t) % n for s, i, t, n in zip(signs, p, shift, shape, strict=True)
                )
            ]
            for site in sites
        )
        for p in axes
        for signs in product((1, -1), repeat=3)
        for shift in sites
    }
    return {
        bits: frozenset(tuple(bits[k] for k in move) for move in moves)
        for bits in product((False, True), repeat=len(sites))
    }


@pytest.mark.parametrize(
    ("shape", "n_families"), [((2, 2, 2), 22), ((2, 2, 1), 6), ((2, 1, 1), 3), ((3, 2, 1), 13)]
)
def test_equivalent_arrangements_share_a_parent(monkeypatch, many, shape, n_families):
    """All of them: 2x2x2 has 22, as many as there are two-colourings of the corners of a cube."""
    expected = families(shape)
    assert len(set(expected.values())) == n_families
    patterns = iter(list(expected))
    monkeypatch.setattr(
        alloys._Sublattice, "pattern", lambda self, stream, fraction: np.array(next(patterns))
    )
    parents = {}
    for crystal in many(n_arrangements=len(expected), supercell=shape):
        parents.setdefault(crystal.parent, set()).add(tuple(pattern(crystal).tolist()))
    assert sorted(map(sorted, parents.values())) == sorted(map(sorted, set(expected.values())))
    assert sum(map(len, parents.values())) == len(expected)


@pytest.mark.parametrize(
    ("name", "elements", "fixed"),
    [
        ("Ag3S(Br,I)", ("Br", "I"), {"Ag": 24, "S": 8}),
        ("Ag3(S,Se)Br", ("S", "Se"), {"Ag": 24, "Br": 8}),
        ("(Ag,Cu)3SBr", ("Ag", "Cu"), {"S": 8, "Br": 8}),
    ],
)
def test_composition(name, elements, fixed):
    """The other sublattices stay, and the label counts the second element."""
    constants = CONSTANTS | {"Cu3SBr": 4.4}
    n_sites = 40 - sum(fixed.values())
    for crystal in mixed([name], lattice_constants=constants):
        symbols = crystal.unitcell.get_chemical_symbols()
        assert {s: symbols.count(s) for s in fixed} == fixed
        n_second = symbols.count(elements[1])
        assert symbols.count(elements[0]) == n_sites - n_second
        assert crystal.composition == f"{name} {n_second / n_sites:g}"
        assert [weight for _, weight in crystal.end_members] == [
            1 - n_second / n_sites,
            n_second / n_sites,
        ]
        assert [m.name for m, _ in crystal.end_members] == end_member_formulas(name)


def test_only_the_shared_sites_are_mixed():
    """Of the antiperovskite: iodine on corners, sulfur in body centres, silver on faces."""
    for crystal in mixed(n_arrangements=4):
        scaled = (2 * crystal.unitcell.get_scaled_positions()).round(6) % 1
        halves = (np.abs(scaled - 0.5) < 1e-6).sum(axis=1)
        symbols = crystal.unitcell.get_chemical_symbols()
        assert {(s, h) for s, h in zip(symbols, halves.tolist(), strict=True)} <= {
            ("Ag", 2),
            ("S", 3),
            ("Br", 0),
            ("I", 0),
        }


def test_element_of_another_sublattice():
    """Selenium on the corners stays where sulfur and selenium share the body centres."""
    constants = {"Ag3SeSe": 5.2, "Ag3SSe": 5.0}
    for crystal in mixed(["Ag3(Se,S)Se"], n_arrangements=4, lattice_constants=constants):
        scaled = (2 * crystal.unitcell.get_scaled_positions()).round(6) % 1
        corners = np.abs(scaled).max(axis=1) < 1e-6
        assert corners.sum() == 8
        assert set(crystal.unitcell.symbols[corners]) == {"Se"}
        share = list(crystal.unitcell.symbols).count("S") / 8
        assert crystal.composition == f"Ag3(Se,S)Se {share:g}"


@pytest.mark.parametrize("name", ["Ag3S(Br,I)", "(Ag,Cu)3SBr"])
def test_masses_follow_the_species(name):
    """Of the crystal and of its supercell, which the vibrations take."""
    constants = CONSTANTS | {"Cu3SBr": 4.4}
    crystals = mixed([name], lattice_constants=constants)
    for crystal in crystals:
        expected = [atomic_masses[atomic_numbers[s]] for s in crystal.unitcell.symbols]
        np.testing.assert_allclose(crystal.unitcell.get_masses(), expected)
        np.testing.assert_allclose(crystal.supercell.get_masses(), expected)
        np.testing.assert_array_equal(crystal.supercell.numbers, crystal.unitcell.numbers)
    assert max(len(set(c.unitcell.numbers)) for c in crystals) == 4


def test_vegard():
    """The lattice constant is linear in composition, and atoms keep their places in the cell."""
    found = set()
    for crystal in mixed(n_arrangements=8):
        x = pattern(crystal).mean()
        found.add(x)
        a = 2 * ((1 - x) * 4.8 + x * 5.0)
        np.testing.assert_allclose(crystal.unitcell.cell.array, a * np.eye(3), atol=1e-9)
        for member, _ in crystal.end_members:
            np.testing.assert_allclose(
                crystal.supercell.get_scaled_positions(),
                member.supercell.get_scaled_positions(),
                atol=1e-9,
            )
    assert len(found) > 3


def test_vegard_of_relaxed_end_members():
    """Only those that were relaxed change; the arrangement stays."""
    (crystal,) = mixed(n_arrangements=1, fraction=0.25)
    larger = Crystal("Ag3SI", antiperovskite("Ag3SI", 5.4), supercell_matrix([2, 2, 2]))
    relaxed = vegard(crystal, {"Ag3SI": larger, "other": larger})
    np.testing.assert_allclose(
        relaxed.unitcell.cell.array, 2 * (0.75 * 4.8 + 0.25 * 5.4) * np.eye(3), atol=1e-9
    )
    assert relaxed.end_members[1] == (larger, 0.25)
    assert relaxed.end_members[0] == crystal.end_members[0]
    np.testing.assert_array_equal(relaxed.unitcell.numbers, crystal.unitcell.numbers)
    np.testing.assert_array_equal(relaxed.unitcell.get_masses(), crystal.unitcell.get_masses())
    np.testing.assert_allclose(
        relaxed.unitcell.get_scaled_positions(), crystal.unitcell.get_scaled_positions(), atol=1e-9
    )
    assert (relaxed.name, relaxed.parent) == (crystal.name, crystal.parent)


def test_given_lattice():
    """Of the mixture: neither Vegard's law nor a relaxation of the end members touches it."""
    source = MixedAntiperovskites(
        ["Ag3S(Br,I)"], 1, 0, 0.5, lattice_constants={"Ag3S(Br,I)": 4.9, "Ag3SBr": 4.7}
    )
    (crystal,) = source.crystals
    np.testing.assert_allclose(crystal.supercell.cell.array, 9.8 * np.eye(3), atol=1e-12)
    np.testing.assert_allclose(
        crystal.supercell.get_scaled_positions(),
        crystal.end_members[0][0].supercell.get_scaled_positions(),
        atol=1e-12,
    )
    relaxed = replace(crystal.end_members[0][0], unitcell=antiperovskite("Ag3SBr", 5.5))
    again = vegard(crystal, {"Ag3SBr": relaxed})
    np.testing.assert_allclose(again.supercell.cell.array, 9.8 * np.eye(3), atol=1e-12)
    assert again.end_members[0][0] is relaxed
    with pytest.raises(ValueError, match=r"Ag3S\(Br,I\) is -1 Ang; expected > 0"):
        MixedAntiperovskites(["Ag3S(Br,I)"], 1, 0, 0.5, lattice_constants={"Ag3S(Br,I)": -1})


def test_pure_arrangements_are_the_end_members():
    for fraction, name in ((0.0, "Ag3SBr"), (1.0, "Ag3SI")):
        (crystal,) = mixed(n_arrangements=1, fraction=fraction)
        (pure,) = Antiperovskites([name], lattice_constants=CONSTANTS).crystals
        np.testing.assert_array_equal(crystal.supercell.numbers, pure.supercell.numbers)
        np.testing.assert_allclose(crystal.supercell.positions, pure.supercell.positions)
        np.testing.assert_allclose(crystal.supercell.get_masses(), pure.supercell.get_masses())


def test_compositions_are_drawn_uniformly(many):
    """Nine compositions, and each site as often as any other; chi-square at 1e-6."""
    patterns = np.array([pattern(c) for c in many(n_arrangements=1800)])
    counts = np.bincount(patterns.sum(axis=1), minlength=9)
    assert stats.chisquare(counts).pvalue > 1e-6
    one = patterns[patterns.sum(axis=1) == 1]
    assert stats.chisquare(one.sum(axis=0)).pvalue > 1e-6
    assert abs(patterns.mean() - 0.5) < 5 * 0.33 / np.sqrt(1800)
    assert len(np.unique(patterns, axis=0)) > 180


def test_given_fraction(many):
    crystals = many(n_arrangements=60, fraction=0.375)
    assert {int(pattern(c).sum()) for c in crystals} == {3}
    assert len({tuple(pattern(c)) for c in crystals}) > 20


def same(one: Crystal, other: Crystal) -> bool:
    return one.unitcell == other.unitcell and one == other


def test_seed_and_order(many):
    """A crystal depends on seed, formula and number, not on how many there are nor on others."""
    first = many(n_arrangements=12)
    for others in (many(n_arrangements=12), many(n_arrangements=40)[:12]):
        assert all(same(a, b) for a, b in zip(first, others, strict=True))
    both = many(["Ag3(S,Se)Br", "Ag3S(Br,I)"], n_arrangements=12)
    assert all(same(a, b) for a, b in zip(first, both[12:], strict=True))
    assert [c.name for c in both] == [
        f"{name}-{k}" for name in ("Ag3(S,Se)Br", "Ag3S(Br,I)") for k in range(12)
    ]
    elsewhere = many(n_arrangements=12, seed=2)
    assert sum(same(a, b) for a, b in zip(first, elsewhere, strict=True)) < 6
    shared = [
        (pattern(a) == pattern(b, ("S", "Se"))).all() for a, b in zip(first, both[:12], strict=True)
    ]
    assert sum(shared) < 6


def test_own_force_constants():
    assert [c.own_force_constants for c in mixed(n_arrangements=2)] == [False, False]
    own = mixed(n_arrangements=2, force_constants="own")
    assert [c.own_force_constants for c in own] == [True, True]
    structure = MixedAntiperovskites(["Ag3S(Br,I)"], 1, 0, relax=False)
    assert not structure.relax


def test_formulas():
    assert end_member_formulas("Ag3S(Br,I)") == ["Ag3SBr", "Ag3SI"]
    assert end_member_formulas("Ag3(S,Se)Br") == ["Ag3SBr", "Ag3SeBr"]
    assert end_member_formulas("(Ag,Cu)3SBr") == ["Ag3SBr", "Cu3SBr"]


@pytest.mark.parametrize(
    ("name", "named"),
    [
        ("Ag3SBr", "not a mixed antiperovskite .*Ag3S\\(Br,I\\)"),
        ("Ag3(S,Se)(Br,I)", "not a mixed antiperovskite with one pair"),
        ("Ag3S(Br,I,Cl)", "not a mixed antiperovskite"),
        ("Ag3S(Br, I)", "not a mixed antiperovskite"),
        ("Ag2S(Br,I)", "not a mixed antiperovskite"),
        ("Ag3S(Br,Br)", "mixes Br with itself"),
        ("Ag3S(Br,Xx)", "'Ag3SXx' is not a cubic antiperovskite"),
        ("Ag3S(Br,Cl)", "lattice_constants.Ag3SCl"),
    ],
)
def test_formula_errors(name, named):
    with pytest.raises(ValueError, match=named):
        mixed([name])


@pytest.mark.parametrize(
    ("wrong", "named"),
    [
        ({"fraction": 0.3}, "fraction is 0.3, 2.4 of 8 sites .*multiple of 1/8"),
        ({"fraction": 1.5}, "fraction is 1.5; expected 0 <= x <= 1"),
        ({"fraction": float("nan")}, "fraction is nan"),
        ({"n_arrangements": 0}, "n_arrangements is 0; expected >= 1"),
        ({"names": []}, r"names is \[\]; expected different formulas"),
        ({"names": ["Ag3S(Br,I)"] * 2}, "expected different formulas"),
        ({"force_constants": "mean"}, "'mean'; expected end_members, own"),
    ],
)
def test_option_errors(wrong, named):
    with pytest.raises(ValueError, match=named):
        mixed(**wrong)
