"""Statistics, reproducibility and independence of the snapshots."""

from itertools import islice

import numpy as np
import pytest
from ase.calculators.calculator import compare_atoms

from schnetpack_phonon.ensembles import PhononEnsemble, RandomEnsemble

N_DRAWS = 3000


def phonon(temperatures=(300.0,), seed=1, **kwargs):
    return PhononEnsemble(temperatures, n_snapshots=5, seed=seed, min_distance=0.0, **kwargs)


def random(amplitudes=(0.2,), seed=1, distribution="uniform", min_distance=0.0):
    return RandomEnsemble(amplitudes, 5, seed, distribution, min_distance)


def displacements(ensemble, crystal, n, name="NaCl", parameter=None) -> np.ndarray:
    """First n snapshots of a group, shape=(n, n_atoms, 3)."""
    parameter = ensemble.parameters[0] if parameter is None else parameter
    stream = ensemble.snapshots(name, crystal, parameter)
    return np.array([s.atoms.positions - s.ideal.positions for s in islice(stream, n)])


@pytest.fixture(scope="module", params=[(0.0, "quantum"), (300.0, "quantum"), (900.0, "classical")])
def draws(request, model):
    temperature, statistics = request.param
    ensemble = phonon([temperature], statistics=statistics)
    # Snapshots are centred geometrically, the model's modes by mass.
    centre = np.eye(48) - np.kron(np.full((16, 16), 1 / 16), np.eye(3))
    covariance = centre @ model.covariance(temperature, statistics) @ centre
    return displacements(ensemble, model, N_DRAWS).reshape(-1, 48), covariance


def test_sample_covariance(draws):
    """z-scores of 1176 entries: unit spread, and none beyond 6 (false alarm: 2 in a million)."""
    u, covariance = draws
    variance = np.diag(covariance)
    error = np.sqrt((np.outer(variance, variance) + covariance**2) / N_DRAWS)
    z = ((u.T @ u / N_DRAWS - covariance) / error)[np.triu_indices(48)]
    assert np.abs(z).max() < 6
    assert z.std() == pytest.approx(1, abs=0.15)


def test_sample_mean(draws):
    """z-scores of 48 means, none beyond 5 (false alarm: 3 in 100,000)."""
    u, covariance = draws
    assert np.abs(u.mean(axis=0) / np.sqrt(np.diag(covariance) / N_DRAWS)).max() < 5


def test_sample_energy(draws, stable):
    """<u K u> = Tr(K C), with variance 2 Tr(K C K C); 5 sigma are 2 % here."""
    u, covariance = draws
    hessian = stable.transpose(0, 2, 1, 3).reshape(48, 48)
    product = hessian @ covariance
    error = np.sqrt(2 * np.trace(product @ product) / N_DRAWS)
    assert np.sum(u @ hessian * u) / N_DRAWS == pytest.approx(np.trace(product), abs=5 * error)


@pytest.mark.parametrize("make", [phonon, random])
def test_centre_stays(make, model):
    u = displacements(make(), model if make is phonon else model.ideal, 20)
    assert np.abs(u).max() > 0.05
    np.testing.assert_allclose(u.mean(axis=1), 0, atol=5.1e-7)  # positions end at 1e-6 Ang


@pytest.mark.parametrize(
    ("distribution", "sigma", "width"), [("uniform", 3**-0.5, 2.0), ("one_sided", 12**-0.5, 1.0)]
)
def test_random_amplitude(model, distribution, sigma, width):
    """Variance sigma^2 (1 - 1/N) once the centre is removed; 5 standard errors are 1.2 %."""
    u = displacements(random([0.3], distribution=distribution), model.ideal, N_DRAWS)
    assert u.std() == pytest.approx(0.3 * sigma * np.sqrt(1 - 1 / 16), rel=0.006)
    assert np.ptp(u, axis=1).max() == pytest.approx(0.3 * width, rel=0.02)
    assert np.ptp(u, axis=1).max() <= 0.3 * width


@pytest.mark.parametrize("make", [phonon, random])
def test_snapshot_depends_on_its_index_alone(make, model, pool):
    """Not on how many are drawn, nor on the process (with its own hash seed and BLAS)."""
    ensemble, crystal = make(), model if make is phonon else model.ideal
    many = displacements(ensemble, crystal, 20)
    np.testing.assert_array_equal(displacements(ensemble, crystal, 3), many[:3])
    elsewhere = pool.submit(displacements, ensemble, crystal, 3).result()
    np.testing.assert_array_equal(elsewhere, many[:3])
    assert len(np.unique(many[:, 0, 0])) == 20


@pytest.mark.parametrize("temperature", [300, np.float64(300.0)])
def test_snapshot_does_not_depend_on_the_type_of_a_number(model, temperature):
    np.testing.assert_array_equal(
        displacements(phonon(), model, 2, parameter=temperature),
        displacements(phonon(), model, 2, parameter=300.0),
    )


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ({"name": "NaCl"}, {"name": "NaBr"}),
        ({"parameter": 0.1}, {"parameter": 0.2}),
        ({"seed": 1}, {"seed": 2}),
    ],
)
def test_groups_share_no_random_numbers(model, first, second):
    """Correlation of 9600 pairs within 5/sqrt(9600), between groups and of shifted snapshots."""
    u, v = (
        displacements(
            random(seed=d.get("seed", 1)),
            model.ideal,
            201,
            d.get("name", "NaCl"),
            d.get("parameter"),
        )
        for d in (first, second)
    )
    for a, b in ((u[1:], v[1:]), (u[1:], u[:-1])):
        assert abs(np.corrcoef(a.ravel(), b.ravel())[0, 1]) < 5 / np.sqrt(9600)


def test_temperatures_share_no_random_numbers(model):
    """Two classical temperatures on the same numbers would differ by a factor alone."""
    ensemble = phonon([100.0, 400.0], statistics="classical")
    u, v = (
        displacements(ensemble, model, 200, parameter=t).reshape(200, -1) for t in (100.0, 400.0)
    )
    u, v = (x @ np.diag(np.sqrt(np.repeat(model.ideal.get_masses(), 3))) for x in (u, v))
    modes = [(x @ model.eigenvectors).ravel() * np.tile(model.frequencies, 200) for x in (u, v)]
    assert abs(np.corrcoef(*modes)[0, 1]) < 5 / np.sqrt(9000)


def test_rejected_snapshots_keep_their_index(model):
    """Exactly those with two atoms closer than the limit are rejected."""
    streams = (random([0.5], min_distance=d).snapshots("NaCl", model.ideal, 0.5) for d in (0, 0.7))
    everything, kept = (list(islice(stream, 60)) for stream in streams)
    assert 5 < kept.count(None) < 55
    for index, (before, snapshot) in enumerate(zip(everything, kept, strict=True)):
        shortest = before.atoms.get_all_distances(mic=True)[np.triu_indices(16, 1)].min()
        assert (snapshot is None) == (shortest < 0.7 * 2.8)
        if snapshot:
            np.testing.assert_array_equal(snapshot.atoms.positions, before.atoms.positions)
            assert (snapshot.index, snapshot.seed, snapshot.parameter) == (index, 1, 0.5)
    assert len({s.parent for s in everything}) == 60


def test_ideal_crystal_travels_along(model):
    """A displaced snapshot differs from its ideal crystal by the positions alone."""
    snapshot = next(phonon().snapshots("NaCl", model, 300.0))
    assert snapshot.ideal == model.ideal
    assert compare_atoms(snapshot.atoms, model.ideal) == ["positions"]


@pytest.mark.parametrize("make", [phonon, random])
@pytest.mark.parametrize(
    ("parameters", "named"),
    [
        ([], "s is empty"),
        ([300.0, 300], "repeat a value"),
        ([100.0, -1.0], "-1.0 .*; expected >"),
        ([100.0, float("nan")], "nan .*; expected >"),
    ],
)
def test_parameter_errors(make, parameters, named):
    with pytest.raises(ValueError, match=named):
        make(parameters)


@pytest.mark.parametrize(
    ("make", "wrong", "named"),
    [
        (phonon, {"statistics": "bose"}, "there are quantum, classical"),
        (random, {"distribution": "normal"}, "there are uniform, one_sided"),
        (random, {"amplitudes": [0.0]}, "0.0 Ang; expected > 0"),
        (phonon, {"seed": -1}, "seed is -1"),
        (random, {"seed": 1.5}, "seed is 1.5"),
    ],
)
def test_setting_errors(make, wrong, named):
    with pytest.raises(ValueError, match=named):
        make(**wrong)


def test_at_least_one_snapshot():
    with pytest.raises(ValueError, match="n_snapshots is 0"):
        RandomEnsemble([0.1], n_snapshots=0, seed=1)
