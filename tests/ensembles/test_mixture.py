"""Numbers of snapshots, settings and streams of mixtures."""

import numpy as np
import pytest

from schnetpack_phonon.ensembles.base import accepted, snapshot_groups
from schnetpack_phonon.ensembles.fixed import ModeEnsemble
from schnetpack_phonon.ensembles.mixture import MixtureEnsemble
from schnetpack_phonon.ensembles.strained import StrainedEnsemble
from tests.ensembles.ensemble_fixtures import first, phonon, random


def test_fractions(rock_salt, model):
    """Of the snapshots of a crystal, shared equally among the parameters of an ensemble."""
    ensemble = MixtureEnsemble(
        {
            "thermal": phonon([100.0, 300.0]),
            "random": random([0.1]),
            "strained": StrainedEnsemble(phonon([200.0]), 0.02, 0),
        },
        {"thermal": 0.5, "random": 0.2, "strained": 0.3},
        n_snapshots=40,
    )
    models = {("NaCl", t): model for t in ensemble.temperatures}
    found = []
    for group in snapshot_groups(ensemble, [rock_salt], models):
        snapshots, _ = accepted(group.stream, group.n_snapshots)
        found += [(s.kind, s.parameter) for s in snapshots]
    counts = {key: found.count(key) for key in dict.fromkeys(found)}
    assert counts == {
        ("phonon", 100.0): 10,
        ("phonon", 300.0): 10,
        ("random", 0.1): 8,
        ("strained", 200.0): 12,
    }
    assert ensemble.temperatures == [100.0, 200.0, 300.0]


def test_small_fraction():
    """At least one snapshot a parameter."""
    ensemble = MixtureEnsemble(
        {"a": phonon([100, 200, 300]), "b": random()}, {"a": 0.01, "b": 0.99}, n_snapshots=100
    )
    assert [m.n_snapshots for m in ensemble.members] == [1, 99]


def test_numbers_are_in_the_settings():
    """Another mixture of the same ensembles is another database."""

    def settings(**fractions):
        ensembles = {
            "plain": phonon(),
            "strained": StrainedEnsemble(phonon(seed=2), 0.02, 0),
            "more": StrainedEnsemble(phonon(seed=3), 0.02, 0),
        }
        return MixtureEnsemble(ensembles, fractions, 100).settings

    one = settings(plain=0.2, strained=0.5, more=0.3)
    assert one == settings(plain=0.2, strained=0.5, more=0.3)
    assert one != settings(plain=0.2, strained=0.3, more=0.5)
    assert one["ensembles"]["strained"]["base"]["n_snapshots"] == 50


def test_members_draw_what_they_draw_alone(rock_salt, model):
    ensemble = MixtureEnsemble({"a": phonon(), "b": random()}, {"a": 0.5, "b": 0.5}, n_snapshots=6)
    models = {("NaCl", 300.0): model}
    groups = snapshot_groups(ensemble, [rock_salt], models)
    for group, (alone, source) in zip(
        groups, ((phonon(), model), (random(), model.ideal)), strict=True
    ):
        snapshots, _ = accepted(group.stream, 3)
        for one, other in zip(snapshots, first(alone, rock_salt, source, 3), strict=True):
            np.testing.assert_array_equal(one.atoms.positions, other.atoms.positions)


def test_ensemble_that_ends(rock_salt, model):
    """Three modes asked for more than three snapshots give three."""
    modes = ModeEnsemble([1.0], 300, [0, 1, 2])
    ensemble = MixtureEnsemble(
        {"modes": modes, "random": random()}, {"modes": 0.5, "random": 0.5}, n_snapshots=20
    )
    group = next(snapshot_groups(ensemble, [rock_salt], {("NaCl", 300.0): model}))
    assert group.n_snapshots == 10
    assert len(accepted(group.stream, group.n_snapshots)[0]) == 3


@pytest.mark.parametrize(
    ("fractions", "named"),
    [
        ({"a": 1.0}, r"names \['a'\].*\['a', 'b'\]"),
        ({"a": 0.5, "b": 0.4}, "expected positive ones of sum 1"),
        ({"a": 1.0, "b": 0.0}, "expected positive"),
        ({"a": 1.5, "b": -0.5}, "expected positive"),
    ],
)
def test_errors(fractions, named):
    with pytest.raises(ValueError, match=named):
        MixtureEnsemble({"a": phonon(), "b": random()}, fractions, 10)
