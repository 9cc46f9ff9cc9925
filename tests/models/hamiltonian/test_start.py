"""Mean gaps and zero of potential from which training starts."""

import numpy as np
import pytest
import torch

from schnetpack_phonon.models.hamiltonian.start import fit_gaps, fit_zero
from tests.models.hamiltonian.test_head import STRUCTURES, data_module, made, results


def test_smallest_change_of_linear_levels():
    """Edges that are linear in x: the least-norm solution of two equations for three unknowns."""
    slopes = torch.tensor([[1.0, 0.0, 2.0], [0.0, 3.0, 1.0]], dtype=torch.float64)
    x = torch.nn.Parameter(torch.zeros(3, dtype=torch.float64))
    gaps = torch.tensor([0.3, 0.4, float("nan")], dtype=torch.float64)
    shares = torch.tensor([[1.0, 0.0], [0.5, 0.5], [0.5, 0.5]])

    def edges(k):
        return torch.stack([-slopes[min(k, 1)] @ x / 2, slopes[min(k, 1)] @ x / 2 + 0.1])

    fit_gaps(edges, [x], gaps, shares)
    expected = np.linalg.pinv(slopes.numpy()) @ (gaps[:2].numpy() - 0.1)
    np.testing.assert_allclose(x.detach(), expected, atol=1e-12)


def test_gaps_that_cannot_be_reached_leave_the_nearest():
    """A gap of 1 + x^2 has no root at 0.5: x stays where it is smallest of all that were tried."""
    x = torch.nn.Parameter(torch.full((1,), 0.3, dtype=torch.float64))

    def edges(k):
        return torch.cat([torch.zeros_like(x), 1 + x**2])

    fit_gaps(edges, [x], torch.tensor([0.5]), torch.ones(1, 1))
    assert abs(x.item()) <= 0.3


def test_training_starts_at_the_mean_gaps(tmp_path):
    """Of each composition, also where labels lack; and then the edges follow."""
    own = STRUCTURES[:4]
    gaps = np.linspace(0.6, 1.2, len(own))
    vbm = np.full(len(own), -1.0)
    data = data_module(
        tmp_path / "labels.db", own, range(4), band_gap=gaps, vbm=vbm, cbm=vbm + gaps
    )
    model = made()
    assert np.abs(results(model, own)["band_gap"] - gaps).max() > 0.1
    model.initialize_transforms(data)
    found = results(model, own)
    by_formula = {}
    for k, atoms in enumerate(own):
        by_formula.setdefault(atoms.get_chemical_formula(), []).append(k)
    for rows in by_formula.values():
        assert found["band_gap"][rows].mean() == pytest.approx(gaps[rows].mean(), abs=2e-3)


def test_a_trained_matrix_keeps_its_gaps(tmp_path):
    own = STRUCTURES[:4]
    model = made(random=True)
    before = results(model, own)["band_gap"]
    data = data_module(tmp_path / "labels.db", own, range(4), band_gap=before + 1.0)
    model.initialize_transforms(data)
    np.testing.assert_allclose(results(model, own)["band_gap"], before, atol=1e-6)


def test_zero_follows_the_volume():
    """Labels less levels that are a + b ln v for each of two elements."""
    rng = np.random.default_rng(0)
    shares = torch.tensor([[1.0, 0.0]] * 6 + [[0.0, 1.0]] * 6)
    volumes = torch.tensor(rng.uniform(2.0, 3.0, 12), dtype=torch.float32)
    rest = shares @ torch.tensor([1.0, -2.0]) + shares @ torch.tensor([0.5, 3.0]) * volumes
    slope, zero = fit_zero(rest[:, None], shares, volumes, torch.zeros(2))
    np.testing.assert_allclose(slope, [0.5, 3.0], atol=1e-3)
    np.testing.assert_allclose(zero, [1.0, -2.0], atol=3e-3)
