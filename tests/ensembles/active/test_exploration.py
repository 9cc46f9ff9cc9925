"""Snapshots of a round of active learning: the farthest first, and none of what escaped."""

from concurrent.futures import ThreadPoolExecutor
from functools import partial

import numpy as np
import pytest
from scipy.spatial.distance import cdist

from schnetpack_phonon.ensembles.active.distance import descriptor, farthest_first
from schnetpack_phonon.ensembles.active.exploration import Exploration
from tests.ensembles.dynamics.dynamics_fixtures import SpringModel, md
from tests.ensembles.ensemble_fixtures import first, hessian


@pytest.fixture
def calculator(nacl):
    return SpringModel(nacl[1].ideal, hessian(nacl[1]))


def explored(calculator, folder, n_snapshots=3, before=(), **options) -> Exploration:
    own = md(calculator, folder, min_interval=0.25, **options)
    return Exploration(own, 1 + len(before), n_snapshots, 1.0, before)


def test_the_farthest_comes_first():
    points = np.array([[0.1], [5.0], [2.0], [4.5]])
    assert farthest_first(points, np.array([[0.0]])) == [1, 2, 3, 0]
    assert farthest_first(points, np.array([[0.0], [5.25]])) == [2, 3, 1, 0]


def test_snapshots(calculator, nacl, tmp_path):
    """Two replicas of 1 ps with a candidate each 0.24 ps: eight."""
    crystal, ideal = nacl[0], nacl[0].supercell
    one = explored(calculator, tmp_path)
    found = list(one.snapshots(crystal, ideal, 300.0))
    assert len(found) == 8
    assert {(s.phonons["replica"], s.phonons["md_time"]) for s in found} == {
        (replica, time) for replica in (0, 1) for time in (0.24, 0.48, 0.72, 0.96)
    }
    assert {(s.phonons["round"], s.phonons["md_ended"]) for s in found} == {(1, 0)}
    assert {s.parent for s in found} == {f"{crystal.name}/active/300.0/1/{k}" for k in (0, 1)}
    species = sorted({*ideal.numbers.tolist()})
    points = np.array([descriptor(s.atoms, species) for s in found])
    from_rest = cdist(points, [descriptor(ideal, species)])[:, 0]
    assert from_rest.argmax() == 0
    np.testing.assert_array_equal(one.chosen(crystal, 300.0)[2].positions, found[2].atoms.positions)
    assert len(one.chosen(crystal, 300.0)) == 3
    # Of the same dynamics, the next round takes others.
    other = first(explored(calculator, tmp_path, before=[one]), crystal, ideal, 1)[0]
    taken = [s.atoms.positions.tolist() for s in found[:3]]
    assert other.atoms.positions.tolist() not in taken
    assert other.phonons["round"] == 2


def test_a_replica_that_escapes_ends_alone(calculator, nacl, tmp_path, caplog):
    """It is logged, its structures before that are candidates, and it is not run again."""
    crystal, ideal = nacl[0], nacl[0].supercell
    calculator.calls["limit"] = 2.5 * 126  # calls of a stretch: in the third that is begun
    options = {"executor": partial(ThreadPoolExecutor, 1)}
    found = list(explored(calculator, tmp_path, **options).snapshots(crystal, ideal, 300.0))
    assert len(found) == 4
    assert {s.phonons["md_ended"] for s in found} == {1}
    assert caplog.text.count("Its structures before that are used") == 2
    assert "round 1: dynamics of NaCl at 300 K, replica 0 after 0.5 ps: Calc" in caplog.text
    n_calls = calculator.calls["n"]
    calculator.calls["limit"] = np.inf
    again = list(explored(calculator, tmp_path, **options).snapshots(crystal, ideal, 300.0))
    assert [s.phonons for s in again] == [s.phonons for s in found]
    assert calculator.calls["n"] == n_calls


def test_settings_hold_all_that_changes_a_snapshot(calculator, tmp_path):
    one = explored(calculator, tmp_path).settings
    assert one["calculator"] == calculator.settings
    assert one["length"] == 1.0
    for options in ({"time_step": 3.0}, {"n_replicas": 3}, {"equilibration": 3.0}):
        assert explored(calculator, tmp_path, **options).settings != one
    assert explored(calculator, tmp_path, n_snapshots=2).settings != one
