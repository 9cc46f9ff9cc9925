"""What a snapshot says, which are rejected, settings and wrong options."""

from dataclasses import replace

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk
from ase.calculators.calculator import compare_atoms
from ase.geometry import get_distances
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from schnetpack_phonon.ensembles.sampler import Acceptance
from schnetpack_phonon.structures.crystals import Crystal, supercell_matrix
from tests.ensembles.ensemble_fixtures import (
    first,
    phonon,
    random,
)


def test_what_a_snapshot_says(rock_salt, model):
    """It differs from its ideal crystal by the positions alone, and tells where it comes from."""
    ensemble = phonon(seed=3)
    for index, snapshot in enumerate(first(ensemble, rock_salt, model, 3)):
        assert snapshot.ideal == model.ideal
        assert compare_atoms(snapshot.atoms, model.ideal) == ["positions"]
        assert (snapshot.structure, snapshot.kind) == ("NaCl", "phonon")
        assert (snapshot.parameter_name, snapshot.parameter) == ("temperature", 300.0)
        assert (snapshot.seed, snapshot.index) == (3, index)
        assert snapshot.phonons == {
            "phonon_policy": "error",
            "n_imaginary": 0,
            "lowest_frequency": model.frequencies.min(),
        }
    assert first(random(), rock_salt, model.ideal, 1)[0].phonons == {}


def test_snapshots_share_no_memory(rock_salt, model):
    """Whoever changes one changes no other."""
    one, other = first(random(), rock_salt, model.ideal, 2)
    before = other.atoms.positions.copy()
    one.atoms.positions += 1.0
    one.atoms.cell *= 2
    np.testing.assert_array_equal(other.atoms.positions, before)
    np.testing.assert_array_equal(model.ideal.cell.array, other.atoms.cell.array)


def test_crystal_names_the_family(rock_salt, model):
    """An arrangement out of many: its symmetry equivalents have its parent and composition."""
    crystal = replace(rock_salt, composition="Na(Cl,Br) 0.5", parent="Na(Cl,Br)/0011")
    snapshots = first(random(), crystal, model.ideal, 3)
    assert {s.parent for s in snapshots} == {"Na(Cl,Br)/0011"}
    assert {s.structure for s in snapshots} == {"Na(Cl,Br) 0.5"}
    assert len({s.parent for s in first(random(), rock_salt, model.ideal, 3)}) == 3


@pytest.mark.parametrize("limits", [{"min_distance": 0.7}, {"max_displacement": 0.7}])
def test_rejected_snapshots_keep_their_index(rock_salt, model, limits):
    everything = first(random([0.5]), rock_salt, model.ideal, 90)
    kept = first(random([0.5], **limits), rock_salt, model.ideal, 90)
    assert 5 < kept.count(None) < 85
    for index, (before, snapshot) in enumerate(zip(everything, kept, strict=True)):
        shortest = before.atoms.get_all_distances(mic=True)[np.triu_indices(16, 1)].min()
        longest = np.linalg.norm(before.atoms.positions - before.ideal.positions, axis=1).max()
        wrong = shortest < 0.7 * 2.8 if "min_distance" in limits else longest > 0.7
        assert (snapshot is None) == wrong
        if snapshot:
            np.testing.assert_array_equal(snapshot.atoms.positions, before.atoms.positions)
            assert (snapshot.index, snapshot.seed, snapshot.parameter) == (index, 1, 0.5)


def test_rejected_mirror_image_leaves_its_partner():
    """Distances of a pair differ, so one may go and the other stay; the pairing stays too.

    (In 2x2x2 cells of centrosymmetric crystals they do not: the mirror image is the inverted one.)
    """
    crystal = Crystal("Al", bulk("Al", "fcc", a=4.05), supercell_matrix([3, 3, 3]))
    ensemble = random([0.4], min_distance=0.7, draws="antithetic")
    drawn = first(ensemble, crystal, crystal.supercell, 128)
    pairs = list(zip(drawn[::2], drawn[1::2], strict=True))
    alone = [pair for pair in pairs if (pair[0] is None) != (pair[1] is None)]
    assert len(alone) > 5
    for k, pair in enumerate(pairs):
        for index, snapshot in enumerate(pair, 2 * k):
            assert snapshot is None or snapshot.index == index
            assert snapshot is None or snapshot.parent == f"Al/uniform random/0.4/{2 * k}"


@st.composite
def crowded_crystals(draw):
    """Two to five atoms in a cell of any shape, some displaced far; positions of 6 snapshots."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    cell = np.diag(rng.uniform(2.0, 6.0, 3))
    skew = draw(st.sampled_from([0.0, 0.5, 2.5]))
    cell[np.tril_indices(3, -1)] = skew * rng.uniform(-3, 3, 3)
    n = draw(st.integers(2, 5))
    outside = draw(st.sampled_from([0, 1]))
    scaled = rng.uniform(0, 1, (n, 3)) + outside * rng.integers(-2, 3, (n, 3))
    ideal = Atoms(f"Cu{n}", scaled_positions=scaled, cell=cell, pbc=True)
    width = draw(st.sampled_from([0.05, 0.3, 1.0])) * rng.uniform(0.1, 1, (6, 1, 1))
    return ideal, ideal.positions + width * rng.normal(size=(6, n, 3))


def shortest(positions, ideal: Atoms) -> float:
    _, distances = get_distances(positions, cell=ideal.cell, pbc=True)
    return distances[np.triu_indices(len(ideal), 1)].min()


@settings(max_examples=150, deadline=None)
@given(
    crystal=crowded_crystals(),
    min_distance=st.floats(0, 0.99),
    max_displacement=st.none() | st.floats(0.01, 2),
)
def test_acceptance_by_brute_force(crystal, min_distance, max_displacement):
    """All pairs and images, by ASE; the same whether snapshots come together or one by one."""
    ideal, moved = crystal
    limit = min_distance * shortest(ideal.positions, ideal)
    distances = np.array([shortest(p, ideal) for p in moved])
    steps = np.sqrt(((moved - ideal.positions) ** 2).sum(axis=2)).max(axis=1)
    assume(np.abs(distances - limit).min() > 1e-9)
    expected = distances >= limit
    if max_displacement is not None:
        assume(np.abs(steps - max_displacement).min() > 1e-9)
        expected &= steps <= max_displacement
    accept = Acceptance(ideal, min_distance, max_displacement)
    one_by_one = [accept(p[None])[0] for p in moved]
    np.testing.assert_array_equal(one_by_one, expected)
    np.testing.assert_array_equal(accept(moved), expected)
    np.testing.assert_array_equal(
        Acceptance(ideal, min_distance, max_displacement)(moved), expected
    )


def test_distant_atoms_that_meet():
    """Half-way between sites 6 Ang apart, after snapshots that moved little."""
    sites = [(0, 0, 0), (1, 0, 0), (0, 7, 0), (6, 7, 0)]
    ideal = Atoms("Cu4", sites, cell=[15, 16, 17], pbc=True)
    accept = Acceptance(ideal, 0.5, None)
    np.testing.assert_array_equal(accept(ideal.positions[None]), [True])
    meeting = ideal.positions + np.array([[[0, 0, 0], [0, 0, 0], [2.9, 0, 0], [-2.9, 0, 0]]])
    passing = ideal.positions + np.array([[[0, 0, 0], [0, 0, 0], [2.9, 0.5, 0], [-2.9, 0, 0]]])
    np.testing.assert_array_equal(accept(np.concatenate([meeting, passing])), [False, True])
    across = ideal.positions + np.array([[[0, 0, 0], [0, 0, 0], [-4.4, 0, 0], [4.4, 0, 0]]])
    np.testing.assert_array_equal(accept(across), [False])  # through the face of the cell


def test_acceptance_of_one_atom():
    """It has no other to come close to; its own images move with it."""
    ideal = bulk("Cu")
    moved = ideal.positions + np.array([[[0.0, 0, 0]], [[0.5, 0, 0]]])
    np.testing.assert_array_equal(Acceptance(ideal, 0.6, None)(moved), [True, True])
    np.testing.assert_array_equal(Acceptance(ideal, 0.0, 0.4)(moved), [True, False])


def test_settings_hold_whatever_changes_a_snapshot():
    """So a database made with others is not taken for this one."""
    options = {
        "n_snapshots": 6,
        "seed": 2,
        "draws": "sobol",
        "min_distance": 0.5,
        "max_displacement": 1.0,
    }
    for make, own in (
        (phonon, {"temperatures": [100], "statistics": "classical"}),
        (random, {"amplitudes": [0.1], "distribution": "gaussian"}),
    ):
        before = make().settings
        for name, value in {**options, **own}.items():
            after = make(**{name: value}).settings
            assert [key for key in before if before[key] != after[key]] == [name]


@pytest.mark.parametrize("make", [phonon, random])
@pytest.mark.parametrize(
    ("parameters", "named"),
    [
        ([], "s is empty"),
        ([300.0, 300], "repeat a value"),
        ([100.0, -1.0], "-1.0 .*; expected >"),
        ([100.0, float("nan")], "nan .*; expected >"),
        ([100.0, float("inf")], "inf .*; expected >"),
    ],
)
def test_parameter_errors(make, parameters, named):
    with pytest.raises(ValueError, match=named):
        make(parameters)


@pytest.mark.parametrize(
    ("wrong", "named"),
    [
        ({"n_snapshots": 0}, "n_snapshots is 0; expected >= 1"),
        ({"seed": -1}, "seed is -1"),
        ({"seed": 1.5}, "seed is 1.5; expected an integer"),
        ({"draws": "halton"}, "'halton'; expected independent, antithetic, sobol"),
        ({"min_distance": 1.0}, "min_distance is 1.0; expected 0 <= x < 1"),
        ({"min_distance": -0.1}, "min_distance is -0.1"),
        ({"min_distance": float("nan")}, "min_distance is nan"),
        ({"max_displacement": 0}, "max_displacement is 0; expected > 0"),
        ({"max_displacement": float("nan")}, "max_displacement is nan"),
    ],
)
def test_option_errors(wrong, named):
    for make in (phonon, random):
        with pytest.raises(ValueError, match=named):
            make(**wrong)
