"""Groups of snapshots, how streams of them are read, and where displaced atoms end."""

from collections import Counter
from dataclasses import replace

import numpy as np
import pytest

from schnetpack_phonon.ensembles.base import accepted, planned_parents, snapshot_groups
from schnetpack_phonon.ensembles.fixed import SpecialEnsemble
from schnetpack_phonon.ensembles.mixture import MixtureEnsemble
from schnetpack_phonon.ensembles.strained import StrainedEnsemble
from schnetpack_phonon.structures.crystals import displaced_positions
from tests.ensembles.ensemble_fixtures import ROUNDING, first, phonon, random


def test_displaced_positions(model):
    """A rigid shift is no displacement; what is left ends at 1e-6 Ang."""
    u = np.random.default_rng(0).normal(0, 0.1, (5, 16, 3))
    moved = displaced_positions(model.ideal, u)
    np.testing.assert_allclose(displaced_positions(model.ideal, u + 3.0), moved, atol=1.1e-6)
    centred = u - u.mean(axis=1)[:, None]
    np.testing.assert_allclose(moved - model.ideal.positions, centred, atol=ROUNDING)
    np.testing.assert_array_equal(moved, moved.round(6))


def test_accepted_ones_are_counted(rock_salt, model):
    """Two calls go on where the first one stopped."""
    ensemble = random([0.5], min_distance=0.75)
    everything = first(ensemble, rock_salt, model.ideal, 300)
    stream = ensemble.snapshots(rock_salt, model.ideal, 0.5)
    (one, rejected), (two, rejected_then) = accepted(stream, 7), accepted(stream, 9)
    indices = [s.index for s in one + two]
    assert indices == [s.index for s in everything if s][:16]
    assert rejected + rejected_then == indices[-1] - 15
    assert rejected > 0


def test_end_of_a_stream(rock_salt, model):
    some = first(random(), rock_salt, model.ideal, 3)
    snapshots, rejected = accepted(iter([some[0], None, *some[1:]]), 10)
    assert snapshots == some
    assert rejected == 1
    assert accepted(iter([]), 10) == ([], 0)


def test_hopeless_displacements(rock_salt, model):
    ensemble = random([0.5], max_displacement=0.01)
    stream = ensemble.snapshots(rock_salt, model.ideal, 0.5)
    with pytest.raises(
        ValueError, match=r"201 of 201 snapshots had two atoms too close .*amplitude"
    ):
        accepted(stream, 2)


@pytest.mark.parametrize("draws", ["independent", "antithetic"])
def test_parents_are_known_before_snapshots_are_drawn(rock_salt, model, draws):
    """How many structures each has, of a mixture of two crystals, one of many arrangements."""
    arranged = replace(rock_salt, name="other", parent="arrangement")
    members = {
        "phonon": phonon([100.0, 300.0], draws=draws),
        "strained": StrainedEnsemble(random([0.2], draws=draws), 0.02, 0),
        "special": SpecialEnsemble([100.0]),
    }
    ensemble = MixtureEnsemble(members, {"phonon": 0.5, "strained": 0.25, "special": 0.25}, 8)
    crystals = [rock_salt, arranged]
    models = {(crystal.name, t): model for crystal in crystals for t in ensemble.temperatures}
    drawn = [
        snapshot.parent
        for group in snapshot_groups(ensemble, crystals, models)
        for snapshot in accepted(group.stream, group.n_snapshots)[0]
    ]
    planned = planned_parents(ensemble, crystals)
    assert [*Counter(planned).values()] == [*Counter(drawn).values()]


def test_groups_of_a_database(rock_salt, model):
    """Crystal by crystal, member by member, parameter by parameter, each with its own model."""
    other = replace(rock_salt, name="other")
    cold = replace(model, policy="cold")
    ensemble = MixtureEnsemble(
        {"phonon": phonon([100.0, 300.0]), "random": random([0.2])},
        {"phonon": 0.5, "random": 0.5},
        n_snapshots=8,
    )
    models = {
        (name, t): m for name in ("NaCl", "other") for t, m in ((100.0, cold), (300.0, model))
    }
    groups = list(snapshot_groups(ensemble, [rock_salt, other], models))
    assert [(g.crystal, g.ensemble.kind, g.parameter, g.n_snapshots) for g in groups] == [
        (name, *rest)
        for name in ("NaCl", "other")
        for rest in (("phonon", 100.0, 2), ("phonon", 300.0, 2), ("random", 0.2, 4))
    ]
    assert groups[0].source is cold
    assert groups[4].source is model
    assert groups[2].source == rock_salt.supercell
    for group in groups:
        snapshot = next(group.stream)
        assert (snapshot.structure, snapshot.parameter) == (group.crystal, group.parameter)
        assert snapshot.kind == group.ensemble.kind
    assert next(snapshot_groups(random(), [rock_salt], {})).n_snapshots == 5


def test_models_are_asked_for(model):
    assert phonon([300, 100.0]).temperatures == [100.0, 300.0]
    assert random().temperatures == []
    assert phonon().temperature(300.0) == 300.0
    assert random().temperature(0.2) is None
