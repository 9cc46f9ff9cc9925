"""Vibrations of a crystal of springs against closed forms and phonopy."""

import numpy as np
import pytest
from ase import Atoms, units
from ase.build import bulk, make_supercell
from phonopy.phonon.random_displacements import RandomDisplacements

from schnetpack_phonon.phonons.harmonic import (
    free_energy,
    harmonic_model,
    normal_modes,
    to_blocks,
    to_matrix,
)
from schnetpack_phonon.phonons.instabilities import Instabilities
from schnetpack_phonon.structures.crystals import Crystal, supercell_matrix
from tests.phonons.force_constants_fixtures import THZ, rebased
from tests.phonons.harmonic.harmonic_fixtures import FREEZE


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


def test_monatomic_chain(central_springs):
    """N atoms, springs k: omega^2 = 4k/m sin^2(pi j/N); sums over modes in closed form.

    Classical <u^2> = kT (N^2 - 1) / (12 N k); at T = 0 the neighbours' <(u_i - u_i+1)^2> is
    hbar / (N sqrt(mk)) cot(pi / 2N); quantum <u^2> by the sum over modes, in SI.
    """
    k, mass, n = 2.5, 40.0, 8
    ideal = Atoms(f"Ar{n}", [(2.0 * i, 0, 0) for i in range(n)], cell=[2.0 * n, 9, 9], pbc=True)
    ideal.set_masses([mass] * n)
    model = harmonic_model(ideal, central_springs(ideal, {2.0: k}), FREEZE)

    classical = about_centre(model.covariance(300, "classical")).diagonal().reshape(n, 3)
    expected = units.kB * 300 * (n**2 - 1) / (12 * n * k)
    np.testing.assert_allclose(classical, [[expected, 0, 0]] * n, rtol=1e-6, atol=1e-12)

    k_si, m_si = k * units._e * 1e20, mass * units._amu
    at_rest = model.covariance(0)
    difference = at_rest[0, 0] + at_rest[3, 3] - 2 * at_rest[0, 3]
    expected = units._hbar / (n * np.sqrt(m_si * k_si)) / np.tan(np.pi / (2 * n)) * 1e20
    assert difference == pytest.approx(expected, rel=1e-6)

    omega = 2 * np.sqrt(k_si / m_si) * np.sin(np.pi * np.arange(1, n) / n)
    coth = 1 / np.tanh(units._hbar * omega / (2 * units._k * 60))
    expected = np.mean(np.append(units._hbar / (2 * m_si * omega) * coth, 0.0)) * 1e20
    assert model.covariance(60)[0, 0] == pytest.approx(expected, rel=1e-6)


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
    eigenvectors = normal_modes(ideal, held)[1].eigenvectors
    rigid = np.kron(np.sqrt(ideal.get_masses())[:, None], np.eye(3))
    np.testing.assert_allclose(rigid.T @ eigenvectors, 0, atol=1e-10)
    np.testing.assert_allclose(eigenvectors.T @ eigenvectors, np.eye(45), atol=1e-12)


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


@pytest.mark.parametrize("policy", ["error", "abs", "floor", "freeze"])
def test_soft_stable_crystal_moves_as_in_phonopy(central_springs, policy):
    """All modes below 1.5 THz, none imaginary: phonopy's thermal displacements and its sampler's.

    A guard for real modes makes them smaller.
    """
    crystal = Crystal("CsI", bulk("CsI", "cesiumchloride", a=4.5), supercell_matrix([2, 2, 2]))
    springs = central_springs(crystal.supercell, {4.5 * 3**0.5 / 2: 0.1, 4.5: 0.04})
    model = harmonic_model(crystal.supercell, springs, Instabilities(policy))
    assert model.n_imaginary == model.n_changed == 0
    assert model.frequencies.max() < 1.5
    phonon = with_phonopy(crystal, springs)
    commensurate_frequencies(phonon)
    phonon.run_thermal_displacement_matrices(temperatures=[300.0], freq_min=0.01)
    theirs = phonon.thermal_displacement_matrices.thermal_displacement_matrices[0].real
    ours = model.covariance(300).reshape(16, 3, 16, 3)
    sites = [ours[i, :, i] for i in phonon.primitive.p2s_map]
    np.testing.assert_allclose(sites, theirs, rtol=1e-5, atol=1e-9)
    random = RandomDisplacements(phonon.supercell, phonon.primitive, springs)
    random.run_correlation_matrix(300)
    np.testing.assert_allclose(model.covariance(300), hessian(random.uu), rtol=1e-5, atol=1e-9)
    guarded = harmonic_model(crystal.supercell, springs, Instabilities(policy, 1.5, 1.5))
    assert guarded.n_changed == guarded.n_real_changed == model.frequencies.size
    assert np.trace(guarded.covariance(300)) < 0.8 * np.trace(model.covariance(300))
    np.testing.assert_allclose(guarded.unguarded.covariance(300), model.covariance(300))


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
    np.testing.assert_allclose(
        rebased(model).displacement_matrix(300), model.displacement_matrix(300), atol=1e-9
    )


def test_canonical_eigenvectors(model, stable):
    """Orthonormal, eigenvectors, and the same whatever LAPACK returns."""
    canonical = model.canonical_eigenvectors()
    np.testing.assert_allclose(canonical.T @ canonical, np.eye(45), atol=1e-12)
    root = np.sqrt(np.repeat(model.ideal.get_masses(), 3))
    dynamical = hessian(stable) / np.outer(root, root)
    squares = (model.frequencies / THZ) ** 2
    np.testing.assert_allclose(dynamical @ canonical, canonical * squares, atol=1e-7)
    # Signs too are those of the fixed random matrix, not of LAPACK's QR.
    fixed = np.random.default_rng(0).standard_normal(canonical.shape)
    assert ((canonical * fixed).sum(axis=0) > 0).all()
    for seed in range(3):
        np.testing.assert_allclose(
            rebased(model, seed).canonical_eigenvectors(), canonical, atol=1e-9
        )


def test_sampled_force_constants(rock_salt, stable, unstable, model):
    """Those of a stable crystal come back; a floored one has the modes that are drawn."""
    np.testing.assert_allclose(model.sampled_force_constants, stable, atol=1e-9)
    floored = harmonic_model(rock_salt.supercell, unstable, Instabilities("floor", 7.0, 7.0))
    assert floored.n_changed == floored.n_imaginary + floored.n_real_changed
    assert floored.n_imaginary > 0
    assert floored.n_real_changed > 0
    again = harmonic_model(rock_salt.supercell, floored.sampled_force_constants, FREEZE)
    np.testing.assert_allclose(again.frequencies, np.sort(floored.sampled_frequencies), rtol=1e-9)
    np.testing.assert_allclose(again.covariance(300), floored.covariance(300), atol=1e-12)


def test_sampled_force_constants_have_no_acoustic_part(rock_salt, stable):
    """What pushes back a crystal that is moved as a whole is left out, the rest is kept."""
    held = stable.copy()
    held[range(16), range(16)] += 0.01 * np.eye(3)  # less than what is refused
    found = harmonic_model(rock_salt.supercell, held, FREEZE).sampled_force_constants
    np.testing.assert_allclose(found.sum(axis=1), 0, atol=1e-10)
    np.testing.assert_allclose(found, stable, atol=0.011)
    assert np.abs(found - stable).max() > 0.005


def test_mode_frequencies(rock_salt, stable, unstable, model):
    """Own force constants: own frequencies; others: their curvature along the same motion."""
    np.testing.assert_allclose(model.mode_frequencies(stable), model.frequencies, rtol=1e-9)
    np.testing.assert_allclose(model.mode_frequencies(4 * stable), 2 * model.frequencies)
    np.testing.assert_allclose(model.mode_frequencies(-stable), -model.frequencies)
    found = model.mode_frequencies(unstable)
    u = (model.eigenvectors / np.sqrt(np.repeat(model.ideal.get_masses(), 3))[:, None]).T
    u = u.reshape(-1, 16, 3)
    squares = np.einsum("kia,ijab,kjb->k", u, unstable, u) * THZ**2
    assert (squares < 0).any()
    np.testing.assert_allclose(np.sign(found) * found**2, squares, rtol=1e-6)


def test_matrix_and_blocks():
    """Row 3i + a, column 3j + b is d2E / du_ia du_jb."""
    rng = np.random.default_rng(0)
    blocks = rng.normal(size=(4, 4, 3, 3))
    matrix = to_matrix(blocks)
    assert matrix[3 * 2 + 1, 3 * 3 + 2] == blocks[2, 3, 1, 2]
    np.testing.assert_array_equal(to_blocks(matrix), blocks)


@pytest.mark.parametrize("statistics", ["quantum", "classical"])
def test_free_energy_of_phonopy(rock_salt, stable, model, statistics):
    phonon = with_phonopy(rock_salt, stable)
    commensurate_frequencies(phonon)
    temperatures = [0.0, 1.0, 300.0, 2000.0]
    theirs = phonon.run_thermal_properties(
        temperatures=temperatures, cutoff_frequency=0.01, classical=statistics == "classical"
    ).free_energy  # kJ/mol of primitive cells, of which there are 8
    ours = [free_energy(model.frequencies, t, statistics) for t in temperatures]
    np.testing.assert_allclose(ours, 8 * theirs * units.kJ / units.mol, rtol=5e-6)
