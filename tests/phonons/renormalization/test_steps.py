"""Steps of a renormalisation: starts, failures, fits; mixed crystals."""

import logging
from dataclasses import replace

import numpy as np
import pytest
from ase.build import bulk

from schnetpack_phonon.common import properties
from schnetpack_phonon.phonons.force_constants import FiniteDisplacements
from schnetpack_phonon.phonons.force_pool import ForcePool
from schnetpack_phonon.phonons.harmonic import harmonic_model, normal_modes, to_blocks
from schnetpack_phonon.phonons.renormalization import NotConvergedError, Renormalised, _fit, _update
from schnetpack_phonon.structures.crystals import Crystal
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
)


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
