"""The data of each round of active learning."""

from itertools import pairwise

import pytest

from schnetpack_phonon.ensembles.active.ensemble import ActiveEnsemble
from schnetpack_phonon.ensembles.independent import RandomEnsemble
from tests.ensembles.dynamics.dynamics_fixtures import SpringModel, md
from tests.ensembles.ensemble_fixtures import hessian


@pytest.fixture
def active(nacl, tmp_path):
    def make(number, **options):
        ideal, matrix = nacl[1].ideal, hessian(nacl[1])
        usual = {"n_snapshots": 2, "length": 0.5, "budget": 6} | options
        return ActiveEnsemble(
            RandomEnsemble([0.1, 0.2], n_snapshots=3, seed=1),
            md(SpringModel(ideal, matrix), tmp_path),
            lambda k: SpringModel(ideal, matrix, 1 + k / 10),
            number,
            **usual,
        )

    return make


def test_rounds_build_on_each_other(active, nacl):
    """The start, then snapshots of the potential of each round before."""
    drawn = [active(number).draw(nacl[0]) for number in range(3)]
    assert [len(own) for own in drawn] == [6, 8, 10]
    for few, many in pairwise(drawn):
        for one, other in zip(few, many, strict=False):
            assert one.atoms.positions.tolist() == other.atoms.positions.tolist()
            assert one.phonons == other.phonons
    assert [s.phonons["round"] for s in drawn[2][6:]] == [1, 1, 2, 2]
    settings = active(2).settings
    assert [r["calculator"]["strength"] for r in settings["rounds"]] == [1.0, 1.1]
    assert settings["start"] == active(0).settings["start"]


def test_budget(active, nacl):
    """Of all rounds; the first is asked for before the start is labelled."""
    crystals = [nacl[0]]
    active(3).check(crystals)
    assert active(0).of_each_round(crystals * 3) == 6
    with pytest.raises(ValueError, match=r"budget is 6; round 4 ends with 8 new labels \(2 in"):
        active(4).check(crystals)
    with pytest.raises(ValueError, match=r"budget is 1; round 1 ends with 2 new labels"):
        active(0, budget=1).check(crystals)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"n_snapshots": 0}, r"n_snapshots is 0; expected >= 1"),
        ({"length": 0}, r"length is 0 ps; expected > 0"),
        ({"budget": -1}, r"budget is -1; expected >= 0"),
    ],
)
def test_options(active, options, message):
    with pytest.raises(ValueError, match=message):
        active(0, **options)
