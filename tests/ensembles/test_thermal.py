"""Statistics of the displacements against phonopy, hiphive and closed forms.

Statistical tests have fixed seeds and a false-alarm rate of one in a million each.
"""

import zlib

import numpy as np
import pytest
from ase import units
from ase.build import bulk
from phonopy.phonon.random_displacements import RandomDisplacements
from scipy import stats

from schnetpack_phonon.ensembles.independent import RandomEnsemble
from schnetpack_phonon.ensembles.thermal import MatchedEnsemble, PhononEnsemble
from schnetpack_phonon.phonons.harmonic import HarmonicModel, harmonic_model
from schnetpack_phonon.phonons.instabilities import Instabilities
from schnetpack_phonon.structures.crystals import Crystal, supercell_matrix
from tests.ensembles.ensemble_fixtures import (
    FALSE_ALARM,
    N_DRAWS,
    OPTIONS,
    STABLE,
    THERMAL,
    both_tails,
    centring,
    draws,
    hessian,
    mode_energy,
    normal_modes,
    z_scores,
)


@pytest.fixture(scope="module")
def aluminium(central_springs):
    """(crystal, model): 27 atoms of one mass, so that both centres are one."""
    crystal = Crystal("Al", bulk("Al", "fcc", a=4.05), supercell_matrix([3, 3, 3]))
    springs = central_springs(crystal.supercell, {4.05 / 2**0.5: 1.5})
    return crystal, harmonic_model(crystal.supercell, springs, STABLE)


def phonopy_sampler(crystal: Crystal, model: HarmonicModel, statistics: str):
    phonon = crystal.phonopy()
    phonon.force_constants = model.force_constants
    return RandomDisplacements(
        phonon.supercell, phonon.primitive, model.force_constants, dist_func=statistics
    )


def phonopy_covariance(crystal, model, temperature, statistics="quantum") -> np.ndarray:
    """<u u^T> about the centre of mass, from commensurate wave vectors; shape=(3N, 3N)."""
    sampler = phonopy_sampler(crystal, model, statistics)
    sampler.run_correlation_matrix(temperature)
    n = len(model.ideal)
    return sampler.uu.transpose(0, 2, 1, 3).reshape(3 * n, 3 * n)


def phonopy_blocks(crystal, model, temperature) -> np.ndarray:
    """Thermal displacement matrix of each atom of the supercell, shape=(n_atoms, 3, 3)."""
    phonon = crystal.phonopy()
    phonon.force_constants = model.force_constants
    mesh = np.diag(crystal.supercell_matrix)
    phonon.run_mesh(mesh, is_gamma_center=True, is_mesh_symmetry=False, with_eigenvectors=True)
    found = phonon.run_thermal_displacement_matrices(temperatures=[temperature], freq_min=0.01)
    primitive = phonon.primitive
    index = [primitive.p2p_map[i] for i in primitive.s2p_map]
    return found.thermal_displacement_matrices[0][index].real


def block_diagonal(blocks: np.ndarray) -> np.ndarray:
    n = len(blocks)
    matrix = np.zeros((n, 3, n, 3))
    matrix[range(n), :, range(n), :] = blocks
    return matrix.reshape(3 * n, 3 * n)


def assert_normal(u, covariance) -> None:
    """Draws are normal with mean zero and this covariance: five tests.

    Mean, total, all entries together (Nagao, Ann. Stat. 1, 700 (1973)), each entry (Bonferroni),
    and the distribution of each draw's length; the subspace that is held is left.
    """
    values, vectors = np.linalg.eigh(covariance)
    free = values > 1e-9 * values.max()
    np.testing.assert_allclose(u @ vectors[:, ~free], 0, atol=1e-5)
    w = u @ vectors[:, free] / np.sqrt(values[free])
    n, p = w.shape
    p_values = {
        "mean": both_tails(n * (w.mean(axis=0) ** 2).sum(), stats.chi2(p)),
        "total": both_tails((w**2).sum(), stats.chi2(n * p)),
        "entries": both_tails(
            n / 2 * ((w.T @ w / n - np.eye(p)) ** 2).sum(), stats.chi2(p * (p + 1) / 2)
        ),
        "length": stats.kstest((w**2).sum(axis=1), stats.chi2(p).cdf).pvalue,
    }
    z = z_scores(u, covariance)
    p_values["largest"] = 2 * stats.norm.sf(np.abs(z).max()) * z.size
    assert min(p_values.values()) > FALSE_ALARM / 5, p_values


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


class TestSobol:
    def test_variance(self, ag3sbr):
        """Each entry is closer to phonopy's than independent draws would be, all told."""
        u = draws(PhononEnsemble([300.0], draws="sobol", **OPTIONS), *ag3sbr, 4096)
        centre = centring(40)
        expected = centre @ phonopy_covariance(*ag3sbr, 300.0) @ centre
        z = z_scores(u, expected)
        assert 2 * stats.norm.sf(np.abs(z).max()) * z.size > FALSE_ALARM
        np.testing.assert_allclose((u**2).mean(axis=0), np.diag(expected), rtol=0.02)
        # Independent draws have a relative error of sqrt(2/4096) = 2.2 % each.
        assert ((u**2).mean(axis=0) / np.diag(expected) - 1).std() < 0.011

    def test_means_of_smooth_functions(self, aluminium):
        """Harmonic energy and Debye-Waller factor: smaller errors than of independent draws.

        Their means are 3N - 3 times kT/2, and exp(-q C q / 2) with phonopy's C. Ratios of mean
        squared errors are 0.02 and 0.12 (100 seeds of 512 snapshots).
        """
        crystal, model = aluminium
        q = 2 * np.pi / 4.05 * np.array([1.0, 1.0, 0.0])
        covariance = phonopy_covariance(*aluminium, 300.0, "classical")
        factor = np.exp(-(q @ covariance[:3, :3] @ q) / 2)
        errors = {}
        for kind in ("independent", "sobol"):
            found = []
            for seed in range(24):
                options = OPTIONS | {"seed": seed, "draws": kind}
                u = draws(PhononEnsemble([300.0], "classical", **options), crystal, model, 512)
                energy = ((u @ hessian(model)) * u).sum(axis=1).mean() / (units.kB * 300)
                found.append([energy - 78, np.cos(u.reshape(-1, 27, 3) @ q).mean() - factor])
            errors[kind] = np.array(found)
            mean, error = errors[kind].mean(axis=0), errors[kind].std(axis=0) / np.sqrt(24)
            assert (np.abs(mean) < 5 * error).all()
        squares = {kind: (e**2).mean(axis=0) for kind, e in errors.items()}
        ratio = squares["sobol"] / squares["independent"]
        assert ratio[0] < 0.1
        assert ratio[1] < 0.4


class TestAntithetic:
    def test_odd_moments_vanish(self, ag3sbr):
        """And the covariance is that of half as many draws."""
        u = draws(PhononEnsemble([300.0], draws="antithetic", **OPTIONS), *ag3sbr, N_DRAWS)
        np.testing.assert_allclose(u.mean(axis=0), 0, atol=2e-7)
        np.testing.assert_allclose((u**3).mean(axis=0), 0, atol=1e-7)
        centre = centring(40)
        assert_normal(u[::2], centre @ phonopy_covariance(*ag3sbr, 300.0) @ centre)


def independent_sites(covariance) -> np.ndarray:
    """Covariance of independent atoms that have the thermal 3x3 blocks once the centre is held."""
    centre = centring(40)
    target = (centre @ covariance @ centre).reshape(40, 3, 40, 3)[range(40), :, range(40)]
    # A unit block on atom j leaves this on atom i.
    left = centring(40).reshape(40, 3, 40, 3)[:, 0, :, 0] ** 2
    sites = np.linalg.solve(left, target.reshape(40, 9)).reshape(40, 3, 3)
    result = centre @ block_diagonal(sites) @ centre
    blocks = result.reshape(40, 3, 40, 3)[range(40), :, range(40)]
    np.testing.assert_allclose(blocks, target, rtol=1e-9, atol=1e-12)
    return result


class TestMatched:
    @pytest.mark.parametrize(("statistics", "temperature"), [THERMAL[0], THERMAL[1], THERMAL[3]])
    def test_site(self, ag3sbr, statistics, temperature):
        """The 3x3 blocks of phonopy and nothing between atoms, but for the centre that is held."""
        covariance = phonopy_covariance(*ag3sbr, temperature, statistics)
        blocks = covariance.reshape(40, 3, 40, 3)[range(40), :, range(40)]
        if statistics == "quantum":
            theirs = phonopy_blocks(*ag3sbr, temperature)
            np.testing.assert_allclose(blocks, theirs, rtol=1e-5, atol=1e-9)
        silver = np.linalg.eigvalsh(blocks[0])
        assert silver.max() > 1.2 * silver.min()
        ensemble = MatchedEnsemble([temperature], "site", statistics, **OPTIONS)
        u = draws(ensemble, *ag3sbr, N_DRAWS)
        assert_normal(u, independent_sites(covariance))

    def test_global(self, ag3sbr):
        """One variance; 3N - 3 of them make the thermal trace."""
        centre = centring(40)
        trace = np.trace(centre @ phonopy_covariance(*ag3sbr, 300.0) @ centre)
        u = draws(MatchedEnsemble([300.0], "global", **OPTIONS), *ag3sbr, N_DRAWS)
        assert_normal(u, trace / 117 * centring(40))

    @pytest.mark.parametrize(("statistics", "temperature"), [THERMAL[0], THERMAL[1], THERMAL[3]])
    def test_energy(self, ag3sbr, statistics, temperature):
        """The harmonic energy is the thermal one; else it is "site"."""
        crystal, model = ag3sbr
        quanta, _ = normal_modes(model)
        energy = mode_energy(quanta, statistics, temperature).sum()
        covariance = phonopy_covariance(*ag3sbr, temperature, statistics)
        expected = independent_sites(covariance)
        expected *= energy / (np.sum(hessian(model) * expected) / 2)
        ensemble = MatchedEnsemble([temperature], "energy", statistics, **OPTIONS)
        u = draws(ensemble, crystal, model, N_DRAWS)
        assert_normal(u, expected)
        found = ((u @ hessian(model)) * u).sum(axis=1) / 2
        assert abs(found.mean() - energy) < 5 * found.std() / np.sqrt(N_DRAWS)

    def test_own_random_numbers(self, ag3sbr):
        """Not those of the thermal ensemble that it is compared with."""
        thermal = draws(PhononEnsemble([300.0], **OPTIONS), *ag3sbr, 64)
        site = draws(MatchedEnsemble([300.0], **OPTIONS), *ag3sbr, 64)
        assert abs(np.corrcoef(thermal.ravel(), site.ravel())[0, 1]) < 5 / np.sqrt(64 * 117)

    def test_error(self):
        with pytest.raises(ValueError, match="'atom'; expected site, global, energy"):
            MatchedEnsemble([300.0], "atom", **OPTIONS)


@pytest.mark.parametrize(
    "ensemble",
    [
        PhononEnsemble([300.0], **OPTIONS),
        PhononEnsemble([0.0], **OPTIONS),
        PhononEnsemble([300.0], "classical", draws="sobol", **OPTIONS),
        MatchedEnsemble([300.0], **OPTIONS),
        MatchedEnsemble([300.0], "global", **OPTIONS),
        MatchedEnsemble([300.0], "energy", **OPTIONS),
        RandomEnsemble([0.3], "uniform", **OPTIONS),
        RandomEnsemble([0.3], "one_sided", **OPTIONS),
        RandomEnsemble([0.3], "gaussian", draws="antithetic", **OPTIONS),
    ],
    ids=lambda ensemble: f"{ensemble.kind}-{ensemble.settings.get('match', ensemble.draws)}",
)
def test_expected_displacements(ag3sbr, ensemble):
    """What tables print beside the sampled ones: within 5 errors of them for each atom."""
    crystal, model = ag3sbr
    source = model if ensemble.temperatures else model.ideal
    u = draws(ensemble, crystal, source, N_DRAWS).reshape(-1, 40, 3)
    expected = ensemble.mean_square_displacements(source, ensemble.parameters[0])
    found = (u**2).mean(axis=2)[::2]  # one of each mirror pair
    error = found.std(axis=0) / np.sqrt(len(found))
    assert expected.shape == (40,)
    assert (np.abs(found.mean(axis=0) - expected) < 5.5 * error).all()
