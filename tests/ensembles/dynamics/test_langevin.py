"""The dynamics of a harmonic crystal against its classical ensemble."""

import numpy as np
import pytest
from ase.units import kB

from schnetpack_phonon.common.random import snapshot_stream
from schnetpack_phonon.ensembles.dynamics.langevin import Langevin, advance, initial_state
from schnetpack_phonon.structures.crystals import shortest_distance
from tests.ensembles.dynamics.dynamics_fixtures import SpringModel
from tests.ensembles.ensemble_fixtures import hessian

TEMPERATURE = 300.0


def records(model, dynamics: Langevin, n_stretches: int, skip: int = 4) -> dict[str, np.ndarray]:
    """Of all stretches but the first ones, shape=(n_stretches, n_records, ...)."""
    ideal = model.ideal
    calculator = SpringModel(ideal, hessian(model)).ase_calculator()
    state = initial_state(ideal, dynamics.temperature, snapshot_stream(1, "start", 0))
    found = []
    for number in range(n_stretches + skip):
        stream = snapshot_stream(1, "run", number)
        stretch = advance(ideal, calculator, dynamics, state, stream)
        state = stretch.end
        found.append(stretch)
    names = ("positions", "velocities", "temperatures", "conserved")
    return {name: np.array([getattr(one, name) for one in found[skip:]]) for name in names}


@pytest.mark.slow
def test_mean_squares_are_those_of_the_classical_ensemble(nacl):
    """For hard and soft modes alike, with a time step of 1/8 of the shortest period."""
    model = nacl[1]
    dynamics = Langevin(TEMPERATURE, 1e3 / model.frequencies.max() / 8, friction=10.0)
    found = records(model, dynamics, 100)
    root = np.sqrt(np.repeat(model.ideal.get_masses(), 3))
    omega_squared, vectors = np.linalg.eigh(hessian(model) / np.outer(root, root))
    u = (found["positions"] - model.ideal.positions).reshape(100, -1, len(root))
    energies = ((u * root) @ vectors[:, 3:]) ** 2 * omega_squared[3:]
    ratio = energies / (kB * TEMPERATURE)
    for modes in (slice(0, 20), slice(20, None)):
        of_stretches = ratio[..., modes].mean(axis=(1, 2)).reshape(20, 5).mean(axis=1)
        error = of_stretches.std(ddof=1) / np.sqrt(20)
        assert error < 0.05
        assert abs(of_stretches.mean() - 1) < 4.5 * error
    assert np.abs(found["positions"].mean(axis=(0, 1)) - model.ideal.positions).max() < 0.05


def test_energy_without_the_heat_is_conserved(nacl):
    """And the temperature is that of the bath; both fail with a larger time step."""
    model, highest = nacl[1], nacl[1].frequencies.max()
    drifts, temperatures = [], []
    for divisor in (40, 5):
        found = records(model, Langevin(TEMPERATURE, 1e3 / highest / divisor, 10.0), 8, 2)
        drifts.append(np.ptp(found["conserved"]) / len(model.ideal) / (kB * TEMPERATURE))
        temperatures.append(found["temperatures"].mean() / TEMPERATURE)
    assert drifts[0] < 0.05 < drifts[1]
    assert temperatures[0] == pytest.approx(1, abs=0.1)
    assert temperatures[1] < temperatures[0] - 0.05


@pytest.mark.slow
def test_spectrum_of_velocities_is_the_density_of_states(nacl):
    """Each mode has the same kinetic energy: the integrated spectrum counts the modes."""
    model = nacl[1]
    dynamics = Langevin(TEMPERATURE, 5.0, friction=1.0)
    velocities = records(model, dynamics, 80)["velocities"].reshape(-1, len(model.ideal), 3)
    v = velocities * np.sqrt(model.ideal.get_masses())[:, None]
    blocks = v.reshape(8, -1, v.shape[1] * 3)
    window = np.hanning(blocks.shape[1])[None, :, None]
    power = (np.abs(np.fft.rfft(blocks * window, axis=1)) ** 2).sum(axis=(0, 2))
    frequencies = np.fft.rfftfreq(blocks.shape[1], dynamics.record_time)
    assert frequencies.max() > 1.2 * model.frequencies.max()
    integrated = power.cumsum() / power.sum()
    counted = np.searchsorted(np.sort(model.frequencies), frequencies) / 45
    assert np.abs(integrated - counted).mean() < 0.03
    shifted = np.searchsorted(1.1 * np.sort(model.frequencies), frequencies) / 45
    assert np.abs(integrated - shifted).mean() > 0.03


def test_a_stretch_depends_on_the_state_before_it_only(nacl):
    model, dynamics = nacl[1], Langevin(TEMPERATURE, 4.0, 10.0)
    calculator = SpringModel(model.ideal, hessian(model)).ase_calculator()
    start = initial_state(model.ideal, TEMPERATURE, snapshot_stream(1, "start", 0))
    momentum = (model.ideal.get_masses()[:, None] * start.velocities).sum(axis=0)
    np.testing.assert_allclose(momentum, 0, atol=1e-12)
    one, other = (
        advance(model.ideal, calculator, dynamics, start, snapshot_stream(1, "run", 0))
        for _ in range(2)
    )
    np.testing.assert_array_equal(one.positions, other.positions)
    assert len(one.positions) == dynamics.n_records
    assert dynamics.stretch_time == pytest.approx(0.5)
    atoms = model.ideal.copy()
    for positions, distance in zip(one.positions[::5], one.distances[::5], strict=True):
        atoms.positions = positions
        assert distance == pytest.approx(shortest_distance(atoms))
    drift = np.average(one.positions - model.ideal.positions, 1, model.ideal.get_masses())
    np.testing.assert_allclose(drift, 0, atol=1e-9)
