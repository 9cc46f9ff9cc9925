"""What the tests of this folder share."""

import numpy as np
from phonopy.phonon.random_displacements import RandomDisplacements
from scipy import stats

from schnetpack_phonon.phonons.harmonic import HarmonicModel
from schnetpack_phonon.structures.crystals import Crystal
from tests.ensembles.ensemble_fixtures import (
    FALSE_ALARM,
    both_tails,
    z_scores,
)


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
