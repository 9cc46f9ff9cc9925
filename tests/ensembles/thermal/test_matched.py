"""Sobol points, pairs and matched displacements against those of phonons."""

import numpy as np
import pytest
from ase import units
from scipy import stats

from schnetpack_phonon.ensembles.independent import RandomEnsemble
from schnetpack_phonon.ensembles.thermal import MatchedEnsemble, PhononEnsemble
from tests.ensembles.ensemble_fixtures import (
    FALSE_ALARM,
    N_DRAWS,
    OPTIONS,
    THERMAL,
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


def block_diagonal(blocks: np.ndarray) -> np.ndarray:
    n = len(blocks)
    matrix = np.zeros((n, 3, n, 3))
    matrix[range(n), :, range(n), :] = blocks
    return matrix.reshape(3 * n, 3 * n)


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
