"""Mixed crystals: how compositions and arrangements are drawn; wrong options."""

import numpy as np
import pytest
from scipy import stats

from schnetpack_phonon.structures.alloys import MixedAntiperovskites, end_member_formulas
from schnetpack_phonon.structures.crystals import (
    Antiperovskites,
    Crystal,
)
from tests.structures.alloys.alloys_fixtures import CONSTANTS, mixed, pattern


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
