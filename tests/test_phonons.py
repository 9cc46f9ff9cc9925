"""Vibrations of a crystal of springs against closed forms and phonopy."""

from dataclasses import replace
from itertools import pairwise

import numpy as np
import phonopy
import pytest
from ase import Atoms, units
from ase.build import make_supercell
from phonopy.phonon.random_displacements import RandomDisplacements

from schnetpack_phonon.phonons import FiniteDisplacements, Instabilities, harmonic_model

FREEZE = Instabilities("freeze", floor=0.1)
THZ = (units._e * 1e20 / units._amu) ** 0.5 / (2 * np.pi * 1e12)  # of sqrt(eV/Ang^2/amu)


def with_phonopy(crystal, force_constants):
    phonon = crystal.phonopy()
    phonon.force_constants = force_constants
    return phonon


def commensurate_frequencies(phonon) -> np.ndarray:
    mesh = np.diag(phonon.supercell_matrix)
    phonon.run_mesh(mesh, is_gamma_center=True, is_mesh_symmetry=False, with_eigenvectors=True)
    return np.sort(phonon.mesh.frequencies.ravel())


def hessian(force_constants) -> np.ndarray:
    n = len(force_constants)
    return force_constants.transpose(0, 2, 1, 3).reshape(3 * n, 3 * n)


def about_centre(covariance) -> np.ndarray:
    """Covariance of displacements relative to the geometric centre of all atoms."""
    n = len(covariance) // 3
    projector = np.eye(3 * n) - np.kron(np.full((n, n), 1 / n), np.eye(3))
    return projector @ covariance @ projector


def hbar_omega(model) -> np.ndarray:
    """Energies of the quanta in eV."""
    return units._hplanck * model.frequencies * 1e12 / units._e


def test_simple_cubic_dispersion(central_springs):
    """Springs k along the edges: omega^2 = (2k/m) (1 - cos q_x a) for polarisation x, and so on."""
    k, mass, n = 3.0, 64.0, (4, 3, 2)
    cell = Atoms("Cu", cell=[2.0] * 3, pbc=True, masses=[mass])
    ideal = make_supercell(cell, np.diag(n))
    model = harmonic_model(ideal, central_springs(ideal, {2.0: k}), FREEZE)
    branch = [2 * k / mass * (1 - np.cos(2 * np.pi * np.arange(m) / m)) for m in n]
    expected = np.sort(np.concatenate([np.repeat(b, np.prod(n) // len(b)) for b in branch]))
    squares = np.sign(model.frequencies) * model.frequencies**2
    np.testing.assert_allclose(squares, expected[3:] * THZ**2, atol=1e-6, rtol=1e-6)


@pytest.mark.parametrize("springs", ["stable", "unstable"])
def test_frequencies_of_phonopy(request, rock_salt, springs):
    """Supercell Gamma modes are the commensurate ones, imaginary ones negative."""
    force_constants = request.getfixturevalue(springs)
    model = harmonic_model(rock_salt.supercell, force_constants, FREEZE)
    theirs = commensurate_frequencies(with_phonopy(rock_salt, force_constants))
    acoustic = np.argsort(np.abs(theirs))[:3]
    np.testing.assert_allclose(model.frequencies, np.delete(theirs, acoustic), rtol=1e-6)
    assert model.n_imaginary == (theirs < -0.1).sum()
    assert (model.n_imaginary > 0) == (springs == "unstable")


def test_translations_are_left_out(rock_salt, unstable):
    """By their eigenvector, not by frequency: here other modes are lower, and no sum rule holds."""
    ideal = rock_salt.supercell
    held = unstable.copy()
    held[range(16), range(16)] += 0.5 * np.eye(3)
    model = harmonic_model(ideal, held, FREEZE)
    rigid = np.kron(np.sqrt(ideal.get_masses())[:, None], np.eye(3))
    np.testing.assert_allclose(rigid.T @ model.eigenvectors, 0, atol=1e-10)
    np.testing.assert_allclose(model.eigenvectors.T @ model.eigenvectors, np.eye(45), atol=1e-12)


@pytest.mark.parametrize("temperature", [0.0, 300.0, 2000.0])
def test_mode_amplitudes(model, temperature):
    """Quantum: sigma^2 = hbar/(2 omega) coth(hbar omega / 2kT); classical: kT/omega^2; in SI."""
    omega = 2e12 * np.pi * model.frequencies
    coth = 1 / np.tanh(units._hbar * omega / (2 * units._k * temperature)) if temperature else 1.0
    square_metres = {
        "quantum": units._hbar / (2 * omega) * coth,
        "classical": units._k * temperature / omega**2,
    }
    for statistics, expected in square_metres.items():
        sigma = model.mode_amplitudes(temperature, statistics)
        np.testing.assert_allclose(sigma**2, expected / units._amu * 1e20, rtol=1e-6)


@pytest.mark.parametrize(
    ("springs", "statistics", "temperature"),
    [
        ("stable", "quantum", 0.0),
        ("stable", "quantum", 300.0),
        ("stable", "classical", 2000.0),
        ("unstable", "quantum", 300.0),
    ],
)
def test_covariance_of_phonopy(request, rock_salt, springs, statistics, temperature):
    """Imaginary modes as phonopy takes them: policy "abs"."""
    force_constants = request.getfixturevalue(springs)
    model = harmonic_model(rock_salt.supercell, force_constants, Instabilities("abs"))
    phonon = with_phonopy(rock_salt, force_constants)
    random = RandomDisplacements(
        phonon.supercell, phonon.primitive, force_constants, dist_func=statistics
    )
    random.run_correlation_matrix(temperature)
    ours = model.covariance(temperature, statistics)
    np.testing.assert_allclose(ours, hessian(random.uu), rtol=1e-5, atol=1e-9)


@pytest.mark.parametrize("temperature", [0.0, 300.0, 2000.0])
def test_thermal_displacements_of_phonopy(rock_salt, stable, model, temperature):
    """The 3x3 block of each atom is its mean square displacement tensor."""
    phonon = with_phonopy(rock_salt, stable)
    commensurate_frequencies(phonon)
    theirs = phonon.run_thermal_displacement_matrices(temperatures=[temperature], freq_min=0.01)
    blocks = model.covariance(temperature).reshape(16, 3, 16, 3)[range(16), :, range(16)]
    index = [phonon.primitive.p2p_map[i] for i in phonon.primitive.s2p_map]
    expected = theirs.thermal_displacement_matrices[0][index]
    np.testing.assert_allclose(blocks, expected, rtol=1e-5, atol=1e-10)


@pytest.mark.parametrize("temperature", [0.0, 300.0, 2000.0])
def test_energy_of_the_ensemble(model, stable, temperature):
    """1/2 Tr(K C): kT/2 for each mode classically, hbar omega / 4 coth(...) in quantum theory."""
    energy = {
        s: np.sum(hessian(stable) * model.covariance(temperature, s)) / 2
        for s in ("classical", "quantum")
    }
    assert energy["classical"] == pytest.approx(45 * units.kB * temperature / 2, rel=1e-6)
    quanta = hbar_omega(model)
    coth = 1 / np.tanh(quanta / (2 * units.kB * temperature)) if temperature else 1.0
    assert energy["quantum"] == pytest.approx((quanta / 4 * coth).sum(), rel=1e-6)


def test_quantum_meets_classical(model):
    """At 5000 K but for x^2/3 of x = hbar omega / 2kT; at 1 K only zero-point motion is left."""
    ratio = (model.mode_amplitudes(5000) / model.mode_amplitudes(5000, "classical")) ** 2
    x = hbar_omega(model) / (2 * units.kB * 5000)
    np.testing.assert_allclose(ratio, 1 + x**2 / 3, atol=1e-5)
    np.testing.assert_allclose(model.mode_amplitudes(1), model.mode_amplitudes(0), rtol=1e-9)


def test_isotopes(rock_salt, stable):
    """Classically C = kT K^-1 whatever the masses; at T = 0 the lighter atom moves more."""
    ideal = rock_salt.supercell
    masses = ideal.get_masses()
    masses[0] /= 4
    ideal.set_masses(masses)
    light = harmonic_model(ideal, stable, FREEZE)
    expected = units.kB * 300 * np.linalg.pinv(hessian(stable), rcond=1e-9)
    classical = about_centre(light.covariance(300, "classical"))
    np.testing.assert_allclose(classical, expected, rtol=1e-5, atol=1e-9)
    spread = about_centre(light.covariance(0)).diagonal().reshape(16, 3).sum(axis=1)
    same_species = np.flatnonzero(ideal.numbers == ideal.numbers[0])
    assert spread[0] > 1.5 * spread[same_species[1:]].max()


def test_basis_of_degenerate_modes_does_not_matter(model):
    """A seed gives the same displacements whatever eigenvectors LAPACK returns."""
    rng = np.random.default_rng(0)
    vectors = model.eigenvectors.copy()
    levels = np.flatnonzero(np.diff(model.frequencies, prepend=0, append=1e9) > 1e-6)
    for start, stop in pairwise(levels):
        rotation = np.linalg.qr(rng.normal(size=(stop - start, stop - start))).Q
        vectors[:, start:stop] = vectors[:, start:stop] @ rotation
    assert np.diff(levels).max() > 3
    assert np.abs(vectors - model.eigenvectors).max() > 0.1
    np.testing.assert_allclose(
        replace(model, eigenvectors=vectors).displacement_matrix(300),
        model.displacement_matrix(300),
        atol=1e-9,
    )


@pytest.mark.parametrize(
    ("policy", "sampled"),
    [
        ("abs", [3.0, 0.5, 0.5, 4.0]),
        ("floor", [3.0, 1.5, 1.5, 4.0]),
        ("freeze", [0.0, 0.0, 0.0, 4.0]),
    ],
)
def test_policies(policy, sampled):
    frequencies = np.array([-3.0, -0.5, 0.5, 4.0])
    np.testing.assert_array_equal(Instabilities(policy, 1.5).apply(frequencies), sampled)


@pytest.mark.parametrize(
    ("policy", "frequencies", "named"),
    [
        ("error", [-2.0, 0.5, 3.0], "1 imaginary modes, the lowest at -2.00 THz, and 2 of 3"),
        ("error", [0.5, 3.0], "0 imaginary modes, .* 1 of 2 modes below 1.5 THz"),
        ("abs", [-2.0, 0.004, 3.0], "mode 1 has 0.0040 THz.*diverge"),
    ],
)
def test_policies_that_refuse(policy, frequencies, named):
    with pytest.raises(ValueError, match=named):
        Instabilities(policy, 1.5).apply(np.array(frequencies))


def test_policies_accept_a_stable_crystal():
    frequencies = np.array([1.6, 4.0])
    for policy in ("error", "abs", "floor", "freeze"):
        np.testing.assert_array_equal(Instabilities(policy, 1.5).apply(frequencies), frequencies)


@pytest.mark.parametrize("policy", ["abs", "floor", "freeze"])
def test_spread_along_imaginary_modes(rock_salt, unstable, policy):
    """Variance e^T M^1/2 C M^1/2 e along each mode is kT over the sampled frequency squared."""
    model = harmonic_model(rock_salt.supercell, unstable, Instabilities(policy, floor=3.0))
    weighted = model.eigenvectors.T * np.sqrt(np.repeat(model.ideal.get_masses(), 3))
    variance = np.einsum("ki,ij,kj->k", weighted, model.covariance(300, "classical"), weighted)
    signed = model.frequencies
    sampled = {
        "abs": np.abs(signed),
        "floor": np.maximum(np.abs(signed), 3.0),
        "freeze": np.where(signed < 3.0, np.inf, signed),
    }[policy]
    expected = units.kB * 300 / (sampled / THZ) ** 2
    np.testing.assert_allclose(variance, expected, rtol=1e-6, atol=1e-9)
    assert ((signed > -3.0) & (signed < 0)).any()
    assert model.n_changed == (sampled != signed).sum()


@pytest.mark.parametrize("settings", [("drop", 1.5), ("floor", 0.0), ("floor", float("nan"))])
def test_instabilities_errors(settings):
    with pytest.raises(ValueError, match=r"unknown policy 'drop'.*freeze|expected > 0"):
        Instabilities(*settings)


@pytest.mark.parametrize(
    ("temperature", "statistics"), [(-1, "quantum"), (float("nan"), "quantum"), (300, "bose")]
)
def test_amplitude_errors(model, temperature, statistics):
    with pytest.raises(ValueError, match=r"expected >= 0|there are quantum, classical"):
        model.covariance(temperature, statistics)


def test_force_constant_errors(rock_salt, stable):
    ideal = rock_salt.supercell
    asymmetric, missing = stable.copy(), stable.copy()
    asymmetric[0, 1, 0, 2] += 0.1
    missing[3, 3, 0, 0] = np.nan
    for wrong, named in [
        (stable[:2], r"shape \(2, 16, 3, 3\).*needs \(16, 16, 3, 3\)"),
        (asymmetric, "by 0.1 eV/Ang"),
        (missing, "hold NaN"),
    ]:
        with pytest.raises(ValueError, match=named):
            harmonic_model(ideal, wrong, FREEZE)


def test_finite_displacements_find_the_springs(tmp_path, rock_salt, stable, model):
    """Forces -K u give K back; the stored file gives phonopy the same frequencies."""
    source = FiniteDisplacements(model.instabilities, distance=0.02)
    displaced = source.displaced(rock_salt)
    displacements = np.array([a.positions for a in displaced]) - rock_salt.supercell.positions
    np.testing.assert_allclose(np.linalg.norm(displacements, axis=2).max(axis=1), 0.02)
    forces = -np.einsum("ijab,njb->nia", stable, displacements)
    path = tmp_path / "phonons" / "phonopy_params.yaml"
    found = source.model(rock_salt, forces, path)
    np.testing.assert_allclose(found.covariance(300), model.covariance(300), atol=1e-9)
    loaded = phonopy.load(path, is_compact_fc=False, primitive_matrix="P", log_level=0)
    np.testing.assert_allclose(loaded.force_constants, stable, atol=1e-9)
    theirs = commensurate_frequencies(loaded)[3:]
    np.testing.assert_allclose(theirs, model.frequencies, rtol=1e-6)
    assert [p.name for p in path.parent.iterdir()] == ["phonopy_params.yaml"]


@pytest.mark.parametrize("distance", [0.0, -0.03, float("nan")])
def test_displacement_distance_error(distance):
    with pytest.raises(ValueError, match="expected > 0"):
        FiniteDisplacements(FREEZE, distance)
