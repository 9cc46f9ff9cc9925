"""Trajectories are kept, continued, and do not depend on who runs them."""

from concurrent.futures import ThreadPoolExecutor
from functools import partial

import numpy as np
import pytest

from schnetpack_phonon.ensembles.dynamics.checks import DynamicsError
from tests.ensembles.dynamics.dynamics_fixtures import SpringModel, md
from tests.ensembles.ensemble_fixtures import hessian


@pytest.fixture
def calculator(nacl):
    return SpringModel(nacl[1].ideal, hessian(nacl[1]))


def run(calculator, nacl, folder, **options):
    return md(calculator, folder, **options).trajectories(nacl[0], 300.0)


def positions(found) -> np.ndarray:
    return np.array([[s.positions for s in stretches[:6]] for stretches in found.replicas])


def test_an_interrupted_dynamics_continues(calculator, nacl, tmp_path):
    """The same as in one go, with one worker or several."""
    one = run(calculator, nacl, tmp_path / "one", executor=partial(ThreadPoolExecutor, 3))
    one.ensure(6)
    n_calls = calculator.calls["n"]
    assert n_calls == 2 * 6 * (25 * 5 + 1)
    calculator.calls["limit"] = n_calls + 700  # in the third stretch of a replica
    broken = run(calculator, nacl, tmp_path / "two")
    with pytest.raises(
        DynamicsError, match=r"replica \d after \d.* ps: CalculationFailed: no conv"
    ):
        broken.ensure(6)
    assert 6 > sum(map(len, broken.replicas)) > 1
    calculator.calls["limit"] = np.inf
    again = run(calculator, nacl, tmp_path / "two")
    again.ensure(6)
    np.testing.assert_array_equal(positions(again), positions(one))
    n_calls = calculator.calls["n"]
    read = run(calculator, nacl, tmp_path / "two")
    read.ensure(6)
    np.testing.assert_array_equal(positions(read), positions(one))
    assert calculator.calls["n"] == n_calls


@pytest.mark.parametrize(
    ("options", "same"),
    [
        ({"n_snapshots": 9}, True),
        ({"min_interval": 1.0}, True),
        ({"frames_per_parent": 5}, True),
        ({"temperatures": [300, 400]}, True),
        ({"seed": 4}, False),
        ({"time_step": 2.0}, False),
        ({"friction": 1.0}, False),
        ({"min_distance": 0.5}, False),
    ],
)
def test_files_are_of_one_dynamics(calculator, nacl, tmp_path, options, same):
    found = run(calculator, nacl, tmp_path, **options)
    assert (found.folder == run(calculator, nacl, tmp_path).folder) == same
    assert found.folder != run(SpringModel(nacl[1].ideal, 1, 2.0), nacl, tmp_path, **options).folder


def test_masses_are_part_of_a_dynamics(calculator, nacl, tmp_path):
    heavy = nacl[0].with_masses(2 * nacl[0].supercell.get_masses())
    one, other = run(calculator, nacl, tmp_path), run(calculator, (heavy,), tmp_path)
    assert one.folder != other.folder


def test_samples_are_two_correlation_times_apart(calculator, nacl, tmp_path, caplog):
    """A soft crystal needs longer; the shortest interval is kept."""
    one = run(calculator, nacl, tmp_path)
    longest = max(one.correlation_times.values())
    every = one.dynamics.record_time
    assert one.interval == max(np.ceil(max(0.1, 2 * longest) / every), 1)
    assert run(calculator, nacl, tmp_path, min_interval=3.0).interval == 150
    times = [one.sample(1, k)[1] for k in range(3)]
    np.testing.assert_allclose(np.diff(times), one.interval * every)
    assert times[0] == pytest.approx(2.0 + one.interval * every)
    np.testing.assert_array_equal(
        one.sample(0, 2)[0], run(calculator, nacl, tmp_path).sample(0, 2)[0]
    )
