"""Effective force constants of quartic crystals, whose self-consistent ones are known."""

import zlib

import numpy as np
import pytest

from schnetpack_phonon.phonons.harmonic import harmonic_model, normal_modes
from schnetpack_phonon.phonons.renormalization import NotConvergedError, Renormalised
from tests.phonons.force_constants_fixtures import THZ, between_two
from tests.phonons.renormalization.renormalization_fixtures import (
    ANY,
    Given,
    K,
    Q,
    Quartic,
    oscillators,
    reduced_mass,
    self_consistent_oscillator,
    steps_of,
    variances,
)


@pytest.mark.parametrize("start", [30.0, 70.0])
@pytest.mark.parametrize(
    ("temperature", "statistics"),
    [(0.0, "quantum"), (300.0, "quantum"), (1200.0, "quantum"), (1200.0, "classical")],
)
def test_double_well(pair, temperature, statistics, start):
    """Imaginary modes, from softer and stiffer starts, to the self-consistent oscillator.

    Its free energy is the lowest of all steps.
    """
    label = Quartic((pair, between_two(K), Q / 8, 2.6))
    options = {"n_samples": 1000, "tolerance": 0.2, "start_floor": start, "statistics": statistics}
    source = Renormalised(Given(LiH=between_two(K)), **options)
    model = source.models([pair], [temperature], label)["LiH", temperature]
    mass = reduced_mass(pair)
    frequency, bound = self_consistent_oscillator(mass, temperature, statistics)
    np.testing.assert_allclose(model.frequencies, [frequency] * 3, rtol=0.02)
    found = [2 * step["free_energy"] for step in steps_of(model)]  # of two atoms
    noise = 0.004
    assert found[-1] == pytest.approx(bound, abs=noise)
    assert found[-1] < found[0]
    assert min(found) > bound - noise


def quartic_salt(crystal, force_constants, **options) -> Quartic:
    return Quartic((crystal, force_constants, 4.0, 2.8), **options)


def self_consistent_crystal(label, crystal, start, temperature, statistics):
    """Solves Phi = K + <d2 V4>; for q |d|^4 that is q (4 tr S + 8 S) of each pair, S = <d d^T>.

    Returns: frequencies and variational free energy per atom.
    """
    ideal, k, q, i, j = label.known[str(crystal.supercell.symbols)]
    n = len(ideal)
    root = np.sqrt(np.repeat(ideal.get_masses(), 3))
    identity = np.eye(3)
    effective = start
    for _ in range(60):
        dynamical = effective.transpose(0, 2, 1, 3).reshape(3 * n, 3 * n) / np.outer(root, root)
        squares, vectors = np.linalg.eigh(dynamical)
        omega, x = np.sqrt(squares[3:]), vectors[:, 3:] / root[:, None]
        covariance = (x * variances(omega, temperature, statistics)) @ x.T
        c = covariance.reshape(n, 3, n, 3).transpose(0, 2, 1, 3)
        pairs = c[i, i] + c[j, j] - c[i, j] - c[j, i]
        traces = np.trace(pairs, axis1=1, axis2=2)
        stiffness = q * (4 * traces[:, None, None] * identity + 8 * pairs)
        new = k.copy()
        for rows, columns, sign in ((i, i, 1), (j, j, 1), (i, j, -1), (j, i, -1)):
            np.add.at(new, (rows, columns), sign * stiffness)
        last, effective = effective, (effective + new) / 2
    np.testing.assert_allclose(effective, last, atol=1e-9)
    fourth = q * (traces**2 + 2 * (pairs @ pairs).trace(axis1=1, axis2=2)).sum()
    second = ((k - effective) * c).sum() / 2
    energy = oscillators(omega, temperature, statistics) + fourth + second
    return omega * THZ, energy / n


@pytest.fixture(scope="module")
def renormalised_salt(rock_salt, soft):
    """One run at 300 K that several tests look at, and its labels."""
    label = quartic_salt(rock_salt, soft)
    source = Renormalised(Given(NaCl=soft), n_samples=40, tolerance=0.06)
    return source.models([rock_salt], [300.0], label)["NaCl", 300.0], label


def test_self_consistent_crystal(rock_salt, soft, stable, renormalised_salt):
    """Frequencies that start up to 4.5 THz imaginary come to 0.1 THz of the equation's solution."""
    model, label = renormalised_salt
    expected, energy = self_consistent_crystal(label, rock_salt, stable, 300, "quantum")
    harmonic, _ = normal_modes(rock_salt.supercell, soft)
    assert harmonic.min() < -4
    assert (harmonic < 0).sum() > 5
    assert model.frequencies.min() > 3.5
    assert np.sqrt(np.mean((model.frequencies - expected) ** 2)) < 0.1
    assert np.sqrt(np.mean((np.maximum(np.abs(harmonic), 1.5) - expected) ** 2)) > 2
    assert steps_of(model)[-1]["free_energy"] == pytest.approx(energy, abs=1e-3)
    assert steps_of(model)[0]["free_energy"] > energy + 0.02


@pytest.mark.slow
@pytest.mark.parametrize(
    ("temperature", "statistics"),
    [(0.0, "quantum"), (100.0, "quantum"), (900.0, "quantum"), (300.0, "classical")],
)
def test_self_consistent_crystal_closely(rock_salt, soft, stable, temperature, statistics):
    """To 0.03 THz with 300 structures a step."""
    label = quartic_salt(rock_salt, soft)
    source = Renormalised(Given(NaCl=soft), n_samples=300, tolerance=0.02, statistics=statistics)
    model = source.models([rock_salt], [temperature], label)["NaCl", temperature]
    args = label, rock_salt, stable, temperature, statistics
    expected, energy = self_consistent_crystal(*args)
    assert np.sqrt(np.mean((model.frequencies - expected) ** 2)) < 0.03
    assert steps_of(model)[-1]["free_energy"] == pytest.approx(energy, abs=5e-4)


def test_what_a_renormalised_model_tells(rock_salt, soft, renormalised_salt):
    model, label = renormalised_salt
    assert model.policy == "renormalised at 300 K"
    assert model.n_imaginary == model.n_changed == 0
    np.testing.assert_array_equal(model.sampled_frequencies, model.frequencies)
    np.testing.assert_array_equal(model.renormalization.start, soft)
    steps = steps_of(model)
    assert [step["n_forces"] for step in steps] == [40 * (k + 1) for k in range(len(steps))]
    assert len(label.asked) == 40 * len(steps)
    assert all(step["effective_samples"] <= step["n_forces"] * (1 + 1e-9) for step in steps)
    assert steps[0]["effective_samples"] == pytest.approx(40)
    assert steps[1]["effective_samples"] < 0.9 * 80  # of other displacements than now
    assert steps[-1]["effective_samples"] > 2 * 40  # older forces are worth something
    assert all(0 < step["r2"] < 1 for step in steps)
    assert steps[-1]["deviation"] < 0.06 <= min(step["deviation"] for step in steps[:-1])
    assert steps[-1]["lowest"] == pytest.approx(model.frequencies.min(), abs=0.3)
    np.testing.assert_allclose(model.renormalization.positions, label.asked, rtol=0, atol=1e-12)


def test_force_constants_keep_the_symmetry(rock_salt, renormalised_salt):
    """Those of the crystal, those of second derivatives, and the sum rule."""
    found = renormalised_salt[0].force_constants
    np.testing.assert_allclose(found.sum(axis=1), 0, atol=1e-8)
    np.testing.assert_allclose(found, found.transpose(1, 0, 3, 2), atol=1e-8)
    phonon = rock_salt.phonopy()
    rotations = phonon.symmetry.symmetry_operations["rotations"]
    permutations = phonon.symmetry.atomic_permutations
    lattice = rock_salt.supercell.cell.array.T
    assert len(rotations) == 8 * 48
    for rotation, order in zip(rotations, permutations, strict=True):
        r = lattice @ rotation @ np.linalg.inv(lattice)
        np.testing.assert_allclose(found[np.ix_(order, order)], r @ found @ r.T, atol=1e-7)


def test_second_run_asks_for_the_same(rock_salt, soft, renormalised_salt):
    """Bit for bit, so that stored labels serve, and with them the outcome is the same."""
    model, first = renormalised_salt
    label = quartic_salt(rock_salt, soft)
    source = Renormalised(Given(NaCl=soft), n_samples=40, tolerance=0.06)
    again = source.models([rock_salt], [300.0], label)["NaCl", 300.0]
    np.testing.assert_array_equal(label.asked, first.asked)
    np.testing.assert_array_equal(again.force_constants, model.force_constants)
    assert label.jobs == first.jobs
    assert len(set(label.jobs)) == len(label.jobs)


def test_more_steps_after_it_was_given_up(rock_salt, soft, renormalised_salt):
    """The message tells what to do, and what was calculated is asked for again unchanged."""
    label = quartic_salt(rock_salt, soft)
    source = Renormalised(Given(NaCl=soft), n_samples=40, tolerance=0.06, max_steps=3)
    with pytest.raises(NotConvergedError) as caught:
        source.models([rock_salt], [300.0], label)
    third = steps_of(renormalised_salt[0])[2]["deviation"]
    reason = f"rms(fitted - sampled) is {third:.3f} THz, more than the tolerance of 0.06 THz"
    assert f"NaCl at 300 K: after 3 steps {reason}: raise" in str(caught.value)
    assert "data.phonons.max_steps" in str(caught.value)
    np.testing.assert_array_equal(label.asked, renormalised_salt[1].asked[: 3 * 40])


def test_crystal_that_nothing_holds(rock_salt, soft):
    """Harmonic and unstable: it has no solution, however large the tolerance."""
    label = Quartic((rock_salt, soft, 0.0, 2.8))
    source = Renormalised(Given(NaCl=soft), n_samples=20, tolerance=50, max_steps=3)
    with pytest.raises(NotConvergedError, match=r"after 3 steps the fit .* \(-4\.51 THz\)"):
        source.models([rock_salt], [300.0], label)


def test_seed_and_temperature_draw_other_structures(rock_salt, soft, renormalised_salt):
    label = quartic_salt(rock_salt, soft)
    ideal = rock_salt.supercell.positions
    for options, temperature in (({"seed": 1}, 300.0), ({}, 301.0)):
        label.asked.clear()
        source = Renormalised(Given(NaCl=soft), n_samples=40, max_steps=1, **options)
        with pytest.raises(NotConvergedError):
            source.models([rock_salt], [temperature], label)
        u = np.array([label.asked, renormalised_salt[1].asked[:40]]) - ideal
        correlation = np.corrcoef(u.reshape(2, -1))[0, 1]
        assert abs(correlation) < 0.1  # of 1920 numbers


def test_structures_in_numbers(rock_salt, stable):
    """Labels in stores depend on u = A z, z of the stream of step and sample, centred."""
    label = quartic_salt(rock_salt, stable, failing=lambda n: True)
    source = Renormalised(Given(NaCl=stable), n_samples=3, seed=7)
    with pytest.raises(NotConvergedError):
        source.models([rock_salt], [300.0], label)
    matrix = harmonic_model(rock_salt.supercell, stable, ANY).displacement_matrix(300)
    for k, positions in enumerate(label.asked):
        key = (zlib.crc32(b"NaCl/renormalisation/300.0"), k)
        z = np.random.default_rng(np.random.SeedSequence(7, spawn_key=key)).standard_normal(48)
        u = (matrix @ z).reshape(16, 3)
        expected = rock_salt.supercell.positions + u - u.mean(axis=0)
        np.testing.assert_allclose(positions, expected, atol=1.1e-6)
