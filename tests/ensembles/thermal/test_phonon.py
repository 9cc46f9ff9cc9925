"""Displacements of phonons against phonopy, hiphive and closed forms."""

import zlib

import numpy as np
import pytest
from ase import units
from scipy import stats

from schnetpack_phonon.ensembles.thermal import MatchedEnsemble, PhononEnsemble
from schnetpack_phonon.phonons.harmonic import harmonic_model
from schnetpack_phonon.phonons.instabilities import Instabilities
from tests.ensembles.ensemble_fixtures import (
    FALSE_ALARM,
    N_DRAWS,
    OPTIONS,
    THERMAL,
    both_tails,
    centring,
    draws,
    hessian,
    mode_energy,
    normal_modes,
    z_scores,
)
from tests.ensembles.thermal.thermal_fixtures import (
    assert_normal,
    phonopy_blocks,
    phonopy_covariance,
)


def assert_same_distribution(u, v, stiffness) -> None:
    """Two samples of normal numbers: covariances entry by entry, and harmonic energies."""
    n, m = len(u), len(v)
    pooled = (u.T @ u + v.T @ v) / (n + m)
    variance = np.diag(pooled)
    error = np.sqrt((np.outer(variance, variance) + pooled**2) * (1 / n + 1 / m))
    z = ((u.T @ u / n - v.T @ v / m) / error)[np.triu_indices(len(pooled))]
    assert 2 * stats.norm.sf(np.abs(z).max()) * z.size > FALSE_ALARM / 2
    energies = [((x @ stiffness) * x).sum(axis=1) for x in (u, v)]
    assert stats.ks_2samp(*energies).pvalue > FALSE_ALARM / 2


class TestPhonon:
    @pytest.mark.parametrize(("statistics", "temperature"), THERMAL)
    def test_covariance(self, ag3sbr, statistics, temperature):
        """The correlation matrix of phonopy about the geometric centre; 20,000 draws."""
        ensemble = PhononEnsemble([temperature], statistics, **OPTIONS)
        u = draws(ensemble, *ag3sbr, N_DRAWS)
        centre = centring(40)
        expected = phonopy_covariance(*ag3sbr, temperature, statistics)
        assert_normal(u, centre @ expected @ centre)

    @pytest.mark.parametrize("temperature", [0.0, 300.0, 2000.0])
    def test_thermal_displacements(self, aluminium, temperature):
        """The 3x3 matrix of each atom that phonopy gives; 27 times 6 z-scores, Bonferroni."""
        u = draws(PhononEnsemble([temperature], **OPTIONS), *aluminium, N_DRAWS)
        blocks = phonopy_blocks(*aluminium, temperature)
        z = [z_scores(u[:, 3 * i : 3 * i + 3], block) for i, block in enumerate(blocks)]
        assert np.size(z) == 27 * 6
        assert 2 * stats.norm.sf(np.abs(z).max()) * np.size(z) > FALSE_ALARM

    @pytest.mark.parametrize(("statistics", "temperature"), [("quantum", 100.0), *THERMAL[3:]])
    def test_phonon_rattle_of_hiphive(self, nacl, statistics, temperature):
        """Their phonon rattle holds the centre of mass, and draws from NumPy's global stream."""
        generation = pytest.importorskip("hiphive.structure_generation")
        crystal, model = nacl
        np.random.seed(1)  # noqa: NPY002  # hiphive takes no generator
        found = generation.generate_phonon_rattled_structures(
            model.ideal, model.force_constants, 5000, temperature, statistics == "quantum"
        )
        theirs = np.array([atoms.positions - model.ideal.positions for atoms in found])
        theirs = (theirs - theirs.mean(axis=1, keepdims=True)).reshape(5000, -1)
        ours = draws(PhononEnsemble([temperature], statistics, **OPTIONS), crystal, model, N_DRAWS)
        assert_same_distribution(ours, theirs, hessian(model))

    @pytest.mark.parametrize(("statistics", "temperature"), THERMAL)
    def test_energy_of_each_mode(self, ag3sbr, statistics, temperature):
        """kT/2 classically, hbar omega/4 coth(hbar omega/2kT) in quantum theory, hbar omega/4 at 0.

        The sum of n squares over their mean is chi-square with n degrees of freedom.
        """
        crystal, model = ag3sbr
        u = draws(PhononEnsemble([temperature], statistics, **OPTIONS), crystal, model, N_DRAWS)
        quanta, vectors = normal_modes(model)
        root = np.sqrt(np.repeat(model.ideal.get_masses(), 3))
        hbar = units._hbar * units.J * units.s
        energies = ((u * root) @ vectors * quanta / hbar) ** 2 / 2
        expected = mode_energy(quanta, statistics, temperature)
        p = both_tails(energies.sum(axis=0) / expected, stats.chi2(N_DRAWS))
        assert p.shape == (117,)
        assert p.min() * 117 > FALSE_ALARM

    @pytest.mark.parametrize(("statistics", "temperature"), THERMAL[1:])
    def test_recipe(self, ag3sbr, statistics, temperature):
        """Paid labels hang on u = A z, z the standard normal numbers of the snapshot's own stream.

        A is the symmetric square root, M^-1/2 (sum over modes of e sigma e^T).
        """
        crystal, model = ag3sbr
        ensemble = PhononEnsemble([temperature], statistics, n_snapshots=1, seed=2511)
        quanta, vectors = normal_modes(model)
        hbar = units._hbar * units.J * units.s
        sigma = np.sqrt(2 * mode_energy(quanta, statistics, temperature)) * hbar / quanta
        root = np.sqrt(np.repeat(model.ideal.get_masses(), 3))
        matrix = (vectors * sigma) @ vectors.T / root[:, None]
        group = f"Ag3SBr/phonon/{temperature}"
        ours = draws(ensemble, crystal, model, 150).reshape(150, 40, 3)
        for k in (0, 1, 63, 64, 149):
            key = (zlib.crc32(group.encode()), k)
            rng = np.random.Generator(np.random.PCG64(np.random.SeedSequence(2511, spawn_key=key)))
            u = (matrix @ rng.standard_normal(120)).reshape(40, 3)
            np.testing.assert_allclose(ours[k], u - u.mean(axis=0), atol=2e-6)

    def test_statistics_and_rejection_draw_the_same_numbers(self, ag3sbr):
        """Options that only judge a snapshot do not change it."""
        plain = draws(PhononEnsemble([300.0], **OPTIONS), *ag3sbr, 64)
        strict = PhononEnsemble([300.0], **OPTIONS | {"min_distance": 0.9, "n_snapshots": 9})
        np.testing.assert_array_equal(draws(strict, *ag3sbr, 64), plain)

    @pytest.mark.parametrize("ensemble", [PhononEnsemble, MatchedEnsemble])
    def test_refused_where_one_mode_moves_atoms_too_far(self, rock_salt, stable, ensemble):
        soft = harmonic_model(rock_salt.supercell, stable / 3000, Instabilities("abs"))
        with pytest.raises(ValueError, match=r"alone moves an atom by .* min_frequency"):
            next(ensemble([600.0], **OPTIONS).snapshots(rock_salt, soft, 600.0))
        next(ensemble([6.0], **OPTIONS).snapshots(rock_salt, soft, 6.0))

    def test_statistics_error(self):
        with pytest.raises(ValueError, match="'bose'; expected quantum, classical"):
            PhononEnsemble([300.0], "bose", **OPTIONS)
