"""What the tests of ensembles share: crystals of springs, their modes, short cuts to snapshots."""

from itertools import islice

import numpy as np
import pytest
from ase import units

from schnetpack_phonon.ensembles.independent import RandomEnsemble
from schnetpack_phonon.ensembles.thermal import PhononEnsemble
from schnetpack_phonon.phonons.harmonic import HarmonicModel, harmonic_model
from schnetpack_phonon.phonons.instabilities import Instabilities
from schnetpack_phonon.structures.crystals import Crystal, antiperovskite, supercell_matrix

ROUNDING = 0.51e-6  # positions end at 1e-6 Ang
STABLE = Instabilities("error", floor=0.1)
OPTIONS = {"n_snapshots": 1, "seed": 5, "min_distance": 0.0}
FALSE_ALARM = 1e-6  # of statistical tests
N_DRAWS = 20_000
THERMAL = [("quantum", 0.0), ("quantum", 300.0), ("quantum", 2000.0), ("classical", 300.0)]


@pytest.fixture(scope="module")
def ag3sbr(central_springs):
    """(crystal, model): 40 atoms of three masses; silver's displacements are anisotropic."""
    crystal = Crystal("Ag3SBr", antiperovskite("Ag3SBr", 4.8), supercell_matrix([2, 2, 2]))
    springs = central_springs(crystal.supercell, {2.4: 4.0, 2.4 * 2**0.5: 1.0})
    return crystal, harmonic_model(crystal.supercell, springs, STABLE)


@pytest.fixture(scope="module")
def nacl(rock_salt, model):
    return rock_salt, model


def hessian(model: HarmonicModel) -> np.ndarray:
    n = len(model.ideal)
    return model.force_constants.transpose(0, 2, 1, 3).reshape(3 * n, 3 * n)


def normal_modes(model: HarmonicModel) -> tuple[np.ndarray, np.ndarray]:
    """Quanta in eV and mass-weighted eigenvectors, by ASE's units, without translations."""
    root = np.sqrt(np.repeat(model.ideal.get_masses(), 3))
    squares, vectors = np.linalg.eigh(hessian(model) / np.outer(root, root))
    hbar = units._hbar * units.J * units.s
    return hbar * np.sqrt(squares[3:]), vectors[:, 3:]


def mode_energy(quanta, statistics: str, temperature: float) -> np.ndarray:
    """Mean potential energy of each oscillator in eV."""
    thermal = units.kB * temperature
    if statistics == "classical":
        return np.full(len(quanta), thermal / 2)
    return quanta / 4 * (1 / np.tanh(quanta / (2 * thermal)) if temperature else 1.0)


def phonon(temperatures=(300.0,), **options):
    return PhononEnsemble(
        temperatures, **({"n_snapshots": 5, "seed": 1, "min_distance": 0.0} | options)
    )


def random(amplitudes=(0.2,), **options):
    defaults = {"distribution": "uniform", "n_snapshots": 5, "seed": 1, "min_distance": 0.0}
    return RandomEnsemble(amplitudes, **(defaults | options))


def first(ensemble, crystal, source, n, parameter=None) -> list:
    parameter = ensemble.parameters[0] if parameter is None else parameter
    return list(islice(ensemble.snapshots(crystal, source, parameter), n))


def positions(ensemble, crystal, source, n, parameter=None) -> np.ndarray:
    return np.array([s.atoms.positions for s in first(ensemble, crystal, source, n, parameter)])


def draws(ensemble, crystal: Crystal, source, n: int) -> np.ndarray:
    """First n displacements of a group in Ang, rejected or not, shape=(n, 3 n_atoms)."""
    ideal = getattr(source, "ideal", source)
    batches = ensemble.batches(crystal.name, source, ensemble.parameters[0])
    needed = [b.positions - ideal.positions for b in islice(batches, -(-n // 64))]
    return np.concatenate(needed)[:n].reshape(n, -1)


def centring(n_atoms: int) -> np.ndarray:
    return np.eye(3 * n_atoms) - np.kron(np.full((n_atoms, n_atoms), 1 / n_atoms), np.eye(3))


def both_tails(statistic, distribution) -> float:
    return 2 * np.minimum(distribution.sf(statistic), distribution.cdf(statistic))


def z_scores(u, covariance) -> np.ndarray:
    """Of the entries of the sample covariance of normal numbers of mean zero."""
    variance = np.diag(covariance)
    error = np.sqrt((np.outer(variance, variance) + covariance**2) / len(u))
    free = np.triu(error > 1e-9 * error.max())
    return ((u.T @ u / len(u) - covariance)[free]) / error[free]
