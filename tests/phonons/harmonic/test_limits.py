"""Vibrations of permuted and rotated crystals; what is too soft, too wild or too hot."""

import numpy as np
import pytest
from ase import Atoms, units
from scipy.spatial.transform import Rotation

from schnetpack_phonon.phonons.harmonic import (
    harmonic_model,
)
from schnetpack_phonon.phonons.instabilities import Instabilities
from schnetpack_phonon.structures.crystals import shortest_distance
from tests.phonons.force_constants_fixtures import SPRINGS, THZ
from tests.phonons.harmonic.harmonic_fixtures import FREEZE


def test_covariance_of_permuted_atoms(rock_salt, stable, model):
    order = np.random.default_rng(0).permutation(16)
    permuted = harmonic_model(rock_salt.supercell[order], stable[np.ix_(order, order)], FREEZE)
    rows = (3 * order[:, None] + range(3)).ravel()
    np.testing.assert_allclose(
        permuted.covariance(300), model.covariance(300)[np.ix_(rows, rows)], atol=1e-10
    )


def test_covariance_of_a_rotated_crystal(rock_salt, central_springs, model):
    """The springs are laid anew in the rotated crystal; C -> R C R^T."""
    rotation = Rotation.random(rng=np.random.default_rng(0)).as_matrix()
    ideal = rock_salt.supercell
    ideal.set_cell(ideal.cell.array @ rotation.T)
    ideal.positions = ideal.positions @ rotation.T
    rotated = harmonic_model(ideal, central_springs(ideal, SPRINGS), FREEZE)
    np.testing.assert_allclose(rotated.frequencies, model.frequencies, rtol=1e-6)
    each = np.kron(np.eye(16), rotation)
    expected = each @ model.covariance(300) @ each.T
    np.testing.assert_allclose(rotated.covariance(300), expected, atol=1e-9)


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
        "freeze": np.full_like(signed, np.inf),
    }[policy]
    sampled = np.where(signed < 0, sampled, signed)
    expected = units.kB * 300 / (sampled / THZ) ** 2
    np.testing.assert_allclose(variance, expected, rtol=1e-6, atol=1e-9)
    assert ((signed > -3.0) & (signed < 0)).any()
    assert model.n_changed == model.n_imaginary
    assert model.n_real_changed == 0


@pytest.mark.parametrize(
    ("temperature", "statistics"), [(-1, "quantum"), (float("nan"), "quantum"), (300, "bose")]
)
def test_amplitude_errors(model, temperature, statistics):
    with pytest.raises(ValueError, match=r"expected >= 0|expected quantum, classical"):
        model.covariance(temperature, statistics)


def test_wild_amplitudes_are_named(rock_salt, central_springs):
    """A mode drawn with 0.05 THz: the error has its number, frequency and displacement."""
    ideal = rock_salt.supercell
    soft = central_springs(ideal, {2.8: 4.0, 2.8 * 2**0.5: -2e-5})
    model = harmonic_model(ideal, soft, Instabilities("floor", 0.05))
    model.check_amplitudes(3)
    with pytest.raises(ValueError, match=r"^at 300 K mode \d+") as caught:
        model.check_amplitudes(300)
    words = str(caught.value).split()
    worst = int(words[words.index("mode") + 1])
    assert model.frequencies[worst] < 0
    assert f"({model.frequencies[worst]:.4f} THz, sampled with 0.0500 THz)" in str(caught.value)
    assert "half the shortest distance (1.40 Ang)" in str(caught.value)
    assert "policy 'floor' with a higher floor" in str(caught.value)


def test_wild_real_modes_need_a_guard(rock_salt, stable):
    """Springs 3,000 times softer: no policy hides it, the error names the guard."""
    ideal = rock_salt.supercell
    soft = harmonic_model(ideal, stable / 3000, Instabilities("floor", 1.5))
    with pytest.raises(ValueError, match="raise min_frequency, which changes real modes"):
        soft.check_amplitudes(300)
    harmonic_model(ideal, stable / 3000, Instabilities("floor", 1.5, 1.0)).check_amplitudes(300)


def test_amplitudes_at_the_limit(rock_salt, stable, model):
    """Half the shortest distance is the limit: T scales classical displacements by sqrt(T)."""
    sigma = model.mode_amplitudes(300, "classical")
    u = model.eigenvectors.reshape(16, 3, -1) * sigma
    rms = np.linalg.norm(u, axis=1) / np.sqrt(model.ideal.get_masses())[:, None]
    limit = 300 * (1.4 / rms.max()) ** 2
    model.check_amplitudes(0.999 * limit, "classical")
    with pytest.raises(ValueError, match=r"by 1\.40 Ang rms"):
        model.check_amplitudes(1.001 * limit, "classical")


def test_shortest_distance(rock_salt):
    """Across the boundary too; the image of an atom itself does not count."""
    assert shortest_distance(rock_salt.supercell) == pytest.approx(2.8)
    across = Atoms("H2", [(0.2, 0, 0), (4.9, 0, 0)], cell=[5, 3, 3], pbc=True)
    assert shortest_distance(across) == pytest.approx(0.3)
    assert shortest_distance(Atoms("H", cell=[1, 1, 1], pbc=True)) == np.inf


def test_small_breaks_of_symmetry_are_accepted(rock_salt, stable, model):
    """Finite differences leave some; the symmetric part is what counts."""
    rough = stable.copy()
    rough[0, 1, 0, 2] += 0.01
    rough[9, 9, 1, 1] += 0.01
    found = harmonic_model(rock_salt.supercell, rough, FREEZE)
    np.testing.assert_allclose(found.frequencies, model.frequencies, atol=0.01)
    mirrored = harmonic_model(rock_salt.supercell, rough.transpose(1, 0, 3, 2), FREEZE)
    np.testing.assert_allclose(found.frequencies, mirrored.frequencies, rtol=1e-9)
