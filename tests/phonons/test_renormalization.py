"""Effective force constants of quartic crystals, whose self-consistent ones are known."""

import logging
import zlib
from dataclasses import replace

import numpy as np
import pytest
from ase import units
from ase.build import bulk
from ase.neighborlist import neighbor_list

from schnetpack_phonon.common import properties
from schnetpack_phonon.phonons.force_constants import FiniteDisplacements
from schnetpack_phonon.phonons.force_pool import ForcePool
from schnetpack_phonon.phonons.harmonic import harmonic_model, normal_modes, to_blocks
from schnetpack_phonon.phonons.instabilities import Instabilities
from schnetpack_phonon.phonons.renormalization import NotConvergedError, Renormalised, _fit, _update
from schnetpack_phonon.structures.crystals import Crystal
from tests.phonons.force_constants_fixtures import THZ, between_two

HBAR = units._hbar / units._e * 1e10 * (units._e / units._amu) ** 0.5  # eV sqrt(amu Ang^2 / eV)
ANY = Instabilities("floor", 0.5)


class Quartic:
    """Crystals of energy u K u / 2 + q sum over pairs |u_i - u_j|^4; keeps what it was asked for.

    Args:
        crystals: (crystal, force constants, q, distance of the pairs) of each.
        failing: calls that fail, counted from 0 over all jobs; the static ones are not counted.
    """

    static = 100.0

    def __init__(self, *crystals, failing=lambda n: False):
        self.known = {}
        for crystal, force_constants, q, distance in crystals:
            ideal = crystal.supercell
            i, j = neighbor_list("ij", ideal, distance + 0.1)
            once = i < j
            known = ideal, force_constants, q, i[once], j[once]
            self.known[str(ideal.symbols)] = known
        self.failing = failing
        self.asked = []
        self.jobs = []

    def __call__(self, what, jobs):
        labels = []
        for text, atoms in jobs:
            self.jobs.append(text)
            if "ideal" in text:
                labels.append(self.label(atoms))
                continue
            failed = self.failing(len(self.asked))
            self.asked.append(atoms.positions.copy())
            labels.append(None if failed else self.label(atoms))
        return labels

    def label(self, atoms):
        ideal, k, q, i, j = self.known[str(atoms.symbols)]
        u = atoms.positions - ideal.positions
        forces = -np.einsum("ijab,jb->ia", k, u)
        apart = u[j] - u[i]
        squares = (apart**2).sum(axis=1)
        energy = self.static - 0.5 * (forces * u).sum() + q * (squares**2).sum()
        pull = 4 * q * squares[:, None] * apart
        np.add.at(forces, i, pull)
        np.add.at(forces, j, -pull)
        return {properties.energy: np.array([energy]), properties.forces: forces}


class Given:
    """A source of force constants that are known."""

    def __init__(self, **force_constants):
        self.force_constants = force_constants
        self.crystals = []

    settings = {"source": "given"}  # noqa: RUF012
    calculator = None

    def models(self, crystals, temperatures, label):
        self.crystals = [crystal.name for crystal in crystals]
        return {
            (c.name, float(t)): harmonic_model(c.supercell, self.force_constants[c.name], ANY)
            for c in crystals
            for t in temperatures
        }


def steps_of(model):
    return model.renormalization.steps


def variances(omega, temperature, statistics):
    """<Q^2> of modes of omega in sqrt(eV/Ang^2/amu), in amu Ang^2."""
    if statistics == "classical":
        return units.kB * temperature / omega**2
    coth = 1 / np.tanh(HBAR * omega / (2 * units.kB * temperature)) if temperature else 1.0
    return HBAR / (2 * omega) * coth


def oscillators(omega, temperature, statistics):
    """Free energy of oscillators in eV."""
    if statistics == "classical":
        kt = units.kB * temperature
        return kt * np.log(HBAR * omega / kt).sum()
    energy = HBAR * omega.sum() / 2
    if temperature:
        kt = units.kB * temperature
        energy += kt * np.log(1 - np.exp(-HBAR * omega / kt)).sum()
    return energy


# Two atoms: their distance r is one particle of the reduced mass in V = k r^2 / 2 + q r^4, an
# isotropic oscillator in three dimensions.

K, Q = -4.0, 30.0


def reduced_mass(crystal) -> float:
    masses = crystal.unitcell.get_masses()
    return masses.prod() / masses.sum()


def self_consistent_oscillator(mass, temperature, statistics, k=K, q=Q):
    """omega^2 m = k + 20 q s, s = <x^2>, and the bound on the free energy; <r^4> = 15 s^2."""
    stiffness = 20.0
    for _ in range(500):
        omega = np.sqrt(stiffness / mass)
        s = variances(omega, temperature, statistics) / mass
        stiffness = (stiffness + k + 20 * q * s) / 2
    anharmonic = 1.5 * (k - stiffness) * s + 15 * q * s**2
    return omega * THZ, oscillators(np.full(3, omega), temperature, statistics) + anharmonic


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


# Rock salt of 16 atoms: repulsive springs between second neighbours make half of the modes
# imaginary; r^4 between first neighbours holds the crystal together.


@pytest.fixture(scope="module")
def soft(rock_salt, central_springs) -> np.ndarray:
    return central_springs(rock_salt.supercell, {2.8: 2.0, 2.8 * 2**0.5: -0.3})


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


def test_harmonic_crystal_is_left_as_it_is(rock_salt, stable):
    """One step of exact forces; all weights equal."""
    label = Quartic((rock_salt, stable, 0.0, 2.8))
    source = Renormalised(Given(NaCl=stable), n_samples=20)
    model = source.models([rock_salt], [300.0], label)["NaCl", 300.0]
    expected = harmonic_model(rock_salt.supercell, stable, ANY)
    np.testing.assert_allclose(model.frequencies, expected.frequencies, rtol=1e-9)
    np.testing.assert_allclose(model.covariance(300), expected.covariance(300), atol=1e-12)
    (step,) = steps_of(model)
    assert step["n_forces"] == len(label.asked) == 20
    assert step["effective_samples"] == pytest.approx(20)
    assert step["deviation"] == pytest.approx(0, abs=1e-3)
    assert step["r2"] == pytest.approx(1, abs=1e-9)
    assert step["lowest"] == pytest.approx(expected.frequencies[0], abs=1e-3)
    energy = oscillators(expected.frequencies / THZ, 300, "quantum") / 16
    assert step["free_energy"] == pytest.approx(energy, abs=1e-6)


@pytest.mark.parametrize("floor", [7.0, 12.0])
def test_harmonic_crystal_is_found_from_any_start(rock_salt, stable, floor):
    """The fit is exact at each step, however far the samples are from what they should be."""
    label = Quartic((rock_salt, stable, 0.0, 2.8))
    source = Renormalised(Given(NaCl=stable), n_samples=20, tolerance=0.03, start_floor=floor)
    model = source.models([rock_salt], [300.0], label)["NaCl", 300.0]
    expected, _ = normal_modes(rock_salt.supercell, stable)
    assert expected.min() < 6
    assert len(steps_of(model)) > 1
    np.testing.assert_allclose(model.frequencies, expected, atol=0.15)
    assert np.sqrt(np.mean((model.frequencies - expected) ** 2)) < 0.03
    for step in steps_of(model):
        assert step["lowest"] == pytest.approx(expected.min(), abs=1e-3)


def test_start_that_serves_is_what_was_drawn(rock_salt, stable):
    """Modes that the start lifted to its floor stay lifted in the force constants too."""
    lowest = normal_modes(rock_salt.supercell, stable)[0].min()
    label = Quartic((rock_salt, stable, 0.0, 2.8))
    options = {"n_samples": 20, "start_floor": lowest + 0.05, "tolerance": 0.1}
    source = Renormalised(Given(NaCl=stable), **options)
    model = source.models([rock_salt], [300.0], label)["NaCl", 300.0]
    assert len(steps_of(model)) == 1
    assert model.n_changed == 0
    assert model.frequencies.min() == pytest.approx(lowest + 0.05, abs=1e-6)
    found, _ = normal_modes(rock_salt.supercell, model.force_constants)
    np.testing.assert_allclose(found, model.sampled_frequencies, rtol=1e-6)


def test_start_of_finite_displacements(pair):
    """The source asks for its own labels first; a static one and the steps follow."""
    label = Quartic((pair, between_two(K), Q / 8, 2.6))
    source = Renormalised(FiniteDisplacements(ANY, distance=0.01), n_samples=300, tolerance=0.5)
    model = source.models([pair], [300.0], label)["LiH", 300.0]
    np.testing.assert_allclose(model.renormalization.start, between_two(K), atol=0.02)
    assert label.jobs[0] == "displacement 0 of LiH"
    assert [text for text in label.jobs if "ideal" in text] == ["LiH, ideal"]
    frequency, _ = self_consistent_oscillator(reduced_mass(pair), 300, "quantum")
    np.testing.assert_allclose(model.frequencies, [frequency] * 3, rtol=0.04)


def test_failed_structures_are_left_out(pair):
    """Every third; the outcome does not know."""
    label = Quartic((pair, between_two(K), Q / 8, 2.6), failing=lambda n: n % 3 == 0)
    source = Renormalised(Given(LiH=between_two(K)), n_samples=900, tolerance=0.3)
    model = source.models([pair], [300.0], label)["LiH", 300.0]
    steps = steps_of(model)
    assert [step["n_forces"] for step in steps] == [600 * (k + 1) for k in range(len(steps))]
    finished = [positions for n, positions in enumerate(label.asked) if n % 3]
    np.testing.assert_allclose(model.renormalization.positions, finished, rtol=0, atol=1e-12)
    frequency, _ = self_consistent_oscillator(reduced_mass(pair), 300, "quantum")
    np.testing.assert_allclose(model.frequencies, [frequency] * 3, rtol=0.03)


def test_all_structures_of_a_step_fail(pair):
    label = Quartic((pair, between_two(K), Q / 8, 2.6), failing=lambda n: n >= 20)
    source = Renormalised(Given(LiH=between_two(K)), n_samples=20, tolerance=1e-3)
    with pytest.raises(NotConvergedError, match=r"LiH at 300 K, step 2: all 20 .* failed"):
        source.models([pair], [300.0], label)


def test_ideal_crystal_fails(pair):
    source = Renormalised(Given(LiH=between_two(K)))
    with pytest.raises(NotConvergedError, match=r"LiH at 300 K: .*ideal crystal failed"):
        source.models([pair], [300.0], lambda what, jobs: [None] * len(jobs))


def test_steps_are_logged(pair, caplog):
    label = Quartic((pair, between_two(K), Q / 8, 2.6))
    with caplog.at_level(logging.INFO, "schnetpack_phonon"):
        source = Renormalised(Given(LiH=between_two(K)), n_samples=300, tolerance=0.5)
        model = source.models([pair], [300.0], label)["LiH", 300.0]
    lines = [r.getMessage() for r in caplog.records if r.name.endswith("renormalization")]
    assert len(lines) == len(steps_of(model))
    last = steps_of(model)[-1]
    assert lines[-1].startswith(f"LiH at 300 K, step {len(lines)}: rms {last['deviation']:.3f} THz")
    assert f"free energy {1e3 * last['free_energy']:.2f} meV/atom" in lines[-1]


def test_fit_heeds_the_weights(rock_salt, stable, soft):
    """Forces of one crystal that weigh nothing beside those of another."""
    model = harmonic_model(rock_salt.supercell, stable, ANY)
    pool = ForcePool(300.0, "quantum")
    for k in (stable, soft):
        label = Quartic((rock_salt, k, 0.0, 2.8))
        structures = []
        for seed in range(15):
            atoms = rock_salt.supercell
            z = np.random.default_rng(seed).standard_normal(48)
            atoms.positions += (model.displacement_matrix(300) @ z).reshape(16, 3)
            structures.append((atoms, label.label(atoms)[properties.forces], 0.0))
        pool.add(model, structures)
    weights = np.repeat([1.0, 0.0], 15) / 15
    np.testing.assert_allclose(_fit(rock_salt, pool, weights), stable, atol=1e-8)
    np.testing.assert_allclose(_fit(rock_salt, pool, weights[::-1]), soft, atol=1e-8)
    # The same displacements twice: the fit is the weighted mean.
    weights = np.repeat([0.75, 0.25], 15) / 15
    expected = 0.75 * stable + 0.25 * soft
    np.testing.assert_allclose(_fit(rock_salt, pool, weights), expected, atol=1e-8)


# Steps


@pytest.mark.parametrize("number", [0, 4, 5, 20])
def test_step_stays_positive_whatever_the_fit(rock_salt, stable, number):
    """And moves no direction's stiffness by more than its bounds."""
    model = harmonic_model(rock_salt.supercell, stable, ANY)
    rng = np.random.default_rng(number)
    low, high = (0.6, 1.6) if number < 5 else (0.7, 1.4)
    root = np.sqrt(np.repeat(model.ideal.get_masses(), 3))
    space = model.eigenvectors / model.frequencies
    for size in (1.0, 100.0):
        noise = rng.normal(0, size, (48, 48))
        moved = _update(model, to_blocks(noise + noise.T), number)
        assert moved.frequencies.min() > 0.7 * model.frequencies.min()
        matrix = moved.force_constants.transpose(0, 2, 1, 3).reshape(48, 48)
        relative = space.T @ (matrix / np.outer(root, root)) @ space * THZ**2
        ratios = np.linalg.eigvalsh(relative)
        assert ratios.min() > low - 1e-6
        assert ratios.max() < high + 1e-6
        if size == 100.0:
            assert ratios.min() < low + 1e-3
            assert ratios.max() > high - 1e-3


@pytest.mark.parametrize("number", [0, 5, 12])
def test_step_of_a_known_length(rock_salt, stable, number):
    """Where the fit is stiffer by a tenth, by a half of that at first, then by less and less."""
    model = harmonic_model(rock_salt.supercell, stable, ANY)
    unmoved = _update(model, stable, number)
    np.testing.assert_allclose(unmoved.force_constants, stable, atol=1e-9)
    length = {0: 0.5, 5: 0.4, 12: 0.4 / 4.5}[number]
    moved = _update(model, 1.1 * stable, number)
    expected = (1 + 0.1 * length) * stable
    np.testing.assert_allclose(moved.force_constants, expected, rtol=1e-6, atol=1e-9)


# Mixed crystals


@pytest.fixture(scope="module")
def mixed(pair):
    """A quarter of sodium hydride in lithium hydride, if there were such a cell."""
    heavy = replace(pair, name="NaH", unitcell=bulk("NaH", "cesiumchloride", a=3.0))
    between = pair.unitcell.copy()
    between.set_masses([0.75 * 6.94 + 0.25 * 22.99, 1.008])
    return Crystal("mixed", between, pair.supercell_matrix, ((pair, 0.75), (heavy, 0.25)))


def test_mixed_crystal_takes_the_mean_of_its_end_members(pair, mixed):
    """Renormalised ones, at each temperature, with its own masses; they alone are calculated."""
    heavy = mixed.end_members[1][0]
    stiffer = 2 * Q
    given = Given(LiH=between_two(K), NaH=between_two(2 * K))
    label = Quartic(
        (pair, between_two(K), Q / 8, 2.6), (heavy, between_two(2 * K), stiffer / 8, 2.6)
    )
    source = Renormalised(given, n_samples=300, tolerance=0.5)
    models = source.models([mixed, pair], [300.0, 900.0], label)
    assert set(models) == {(name, t) for name in ("mixed", "LiH") for t in (300.0, 900.0)}
    assert given.crystals == ["LiH", "NaH"]
    assert {job.split(" ")[0].rstrip(",") for job in label.jobs} == {"LiH", "NaH"}
    both = Renormalised(Given(**given.force_constants), n_samples=300, tolerance=0.5)
    pure = both.models([pair, heavy], [300.0, 900.0], label)
    for t in (300.0, 900.0):
        model = models["mixed", t]
        members = pure["LiH", t].force_constants, pure["NaH", t].force_constants
        expected = 0.75 * members[0] + 0.25 * members[1]
        np.testing.assert_allclose(model.force_constants, expected)
        frequencies, _ = normal_modes(mixed.supercell, expected)
        np.testing.assert_allclose(model.frequencies, frequencies)
        assert model.n_changed == 0
        assert model.policy == f"renormalised at {t:g} K"
        np.testing.assert_array_equal(
            models["LiH", t].force_constants, pure["LiH", t].force_constants
        )
    stiffness = [models["mixed", t].force_constants[0, 0, 0, 0] for t in (300.0, 900.0)]
    assert stiffness[1] > 1.1 * stiffness[0]


def test_mixed_crystal_of_its_own(pair, mixed):
    """own_force_constants: it is renormalised itself."""
    own = replace(mixed, own_force_constants=True)
    label = Quartic((own, between_two(K), Q / 8, 2.6))
    source = Renormalised(Given(mixed=between_two(K)), n_samples=600, tolerance=0.5)
    model = source.models([own], [300.0], label)["mixed", 300.0]
    frequency, _ = self_consistent_oscillator(reduced_mass(own), 300, "quantum")
    np.testing.assert_allclose(model.frequencies, [frequency] * 3, rtol=0.03)
    assert all("mixed" in job for job in label.jobs)


# Options


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"n_samples": 1}, "n_samples is 1; expected >= 2"),
        ({"tolerance": 0.0}, "tolerance is 0 THz; expected > 0"),
        ({"tolerance": float("nan")}, "tolerance is nan THz; expected > 0"),
        ({"max_steps": 0}, "max_steps is 0; expected >= 1"),
        ({"statistics": "bose"}, "statistics is 'bose'; expected quantum, classical"),
        ({"start_floor": 0.0}, "floor is 0 THz; expected > 0"),
    ],
)
def test_bad_options(options, named):
    with pytest.raises(ValueError, match=named):
        Renormalised(Given(), **options)


def test_classical_crystal_at_rest(pair):
    """At 0 K it does not move, so there is nothing to fit; said before any label is made."""
    label = Quartic((pair, between_two(K), Q / 8, 2.6))
    source = Renormalised(Given(LiH=between_two(K)), statistics="classical")
    with pytest.raises(ValueError, match=r"classical.* 0 K.*quantum"):
        source.models([pair], [300.0, 0.0], label)
    assert label.jobs == []


def test_settings():
    """All that changes a model, the start's settings too."""
    first = Renormalised(Given()).settings
    assert first["source"] == "renormalised"
    assert first["start"] == {"source": "given"}
    for options in (
        {"n_samples": 33},
        {"tolerance": 0.2},
        {"max_steps": 41},
        {"statistics": "classical"},
        {"seed": 1},
        {"start_floor": 2.0},
    ):
        (key,) = options
        settings = Renormalised(Given(), **options).settings
        assert settings == first | options
        assert settings[key] != first[key]
