"""Averages over structures of one model, reweighted to another, against its known covariance."""

import numpy as np
import pytest

from schnetpack_phonon.phonons.force_pool import ForcePool
from schnetpack_phonon.phonons.harmonic import harmonic_model
from tests.phonons.force_constants_fixtures import FLOOR, between_two


@pytest.fixture(scope="module")
def drawn(pair):
    """3000 structures of each of two models of the pair, and the models."""

    def structures(model, seed):
        rng = np.random.default_rng(seed)
        u = (rng.standard_normal((3000, 6)) @ model.displacement_matrix(300).T).reshape(-1, 2, 3)
        found = []
        for displacements in u:
            atoms = model.ideal.copy()
            atoms.positions += displacements
            found.append((atoms, np.zeros((2, 3)), 0.0))
        return found

    models = [harmonic_model(pair.supercell, between_two(k), FLOOR) for k in (4.0, 12.0)]
    return models, [structures(model, seed) for seed, model in enumerate(models)]


@pytest.mark.parametrize("used", [(3000, 0), (0, 3000), (3000, 3000), (150, 3000)])
@pytest.mark.parametrize("k", [4.0, 6.0, 12.0])
def test_weighted_mean_is_that_of_the_target(drawn, used, k):
    """<r r^T> of another model from structures of one or two; its error from the weights."""
    models, structures = drawn
    pool = ForcePool(300.0, "quantum")
    for model, found, n in zip(models, structures, used, strict=True):
        if n:
            pool.add(model, found[:n])
    target = harmonic_model(models[0].ideal, between_two(k), FLOOR)
    weights = pool.weights(target)
    n = sum(used)
    assert weights.shape == (n,)
    assert weights.sum() == pytest.approx(1)
    assert (weights > 0).all()
    effective = 1 / (weights**2).sum()
    assert effective <= n * (1 + 1e-9)
    r = pool.displacements[:, 1] - pool.displacements[:, 0]
    c = target.covariance(300)
    expected = (c[:3, :3] + c[3:, 3:] - c[:3, 3:] - c[3:, :3]).trace()
    squares = (r**2).sum(axis=1)
    error = np.sqrt((weights**2) @ (squares - expected) ** 2)
    assert error < 0.1 * expected
    assert weights @ squares == pytest.approx(expected, abs=3.5 * error)
    if (used, k) in (((3000, 0), 12.0), ((0, 3000), 4.0)):
        assert abs(squares.mean() - expected) > 5 * error


def test_weights_of_one_model_are_equal(drawn):
    models, structures = drawn
    pool = ForcePool(300.0, "quantum")
    pool.add(models[0], structures[0])
    pool.add(models[0], structures[0])
    np.testing.assert_allclose(pool.weights(models[0]), 1 / 6000)


def test_weights_do_not_know_the_centre(drawn):
    """The crystal as a whole may lie anywhere; density is of relative positions."""
    models, structures = drawn
    moved = [(atoms.copy(), f, e) for atoms, f, e in structures[0][:50]]
    for number, (atoms, _, _) in enumerate(moved):
        atoms.positions += 0.01 * number
    pools = []
    for found in (structures[0][:50], moved):
        pool = ForcePool(300.0, "quantum")
        pool.add(models[0], found)
        pools.append(pool.weights(models[1]))
    np.testing.assert_allclose(*pools, rtol=1e-6)
    assert pools[0].max() > 2 * pools[0].min()
