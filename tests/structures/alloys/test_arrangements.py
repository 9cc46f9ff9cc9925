"""Mixed crystals: families of equivalent arrangements, composition, lattice and masses."""

from dataclasses import replace
from itertools import permutations, product

import numpy as np
import pytest
from ase.data import atomic_masses, atomic_numbers

from schnetpack_phonon.structures import alloys
from schnetpack_phonon.structures.alloys import MixedAntiperovskites, end_member_formulas, vegard
from schnetpack_phonon.structures.crystals import (
    Crystal,
    antiperovskite,
    supercell_matrix,
)
from tests.structures.alloys.alloys_fixtures import CONSTANTS, mixed, pattern


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
