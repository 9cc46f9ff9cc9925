"""Band edges against their definition, their limits, and fits of labels in numpy."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from ase import Atoms
from torch import nn

from schnetpack_phonon.models.band_edges import BandEdges, edge_fit
from tests.models.model_fixtures import batch, data_module, potential, thermal

KEYS = ("band_gap", "vbm", "cbm")
FORMULAS = ["Ag3SBr", "Ag3SI", "Ag3SeBr", "Ag3SeI"] * 3
STRUCTURES = [thermal(k, formula)[1] for k, formula in enumerate(FORMULAS)]


def made(sharpness: tuple[float, float] = (1.0, 1.0), apart: float = 6.0):
    """A model in double precision: scales 0.3 and 0.7 eV, edges about 3 and 3 + ``apart`` eV."""
    model = potential(BandEdges(16, levels_key="levels"), dtype=torch.float64)
    (head,) = model.output_modules
    head.offset[:] = torch.linspace(3.0, 3.5, 101)[:, None] + torch.tensor([0.0, apart])
    head.scale[:] = torch.tensor([0.3, 0.7], dtype=torch.float64)
    head.log_sharpness.data[:] = torch.tensor(sharpness, dtype=torch.float64).log()
    return model


def results(model: nn.Module, structures: list[Atoms]) -> dict[str, np.ndarray]:
    values = model(batch(structures, torch.float64))
    return {key: value.detach().numpy() for key, value in values.items()}


@pytest.mark.parametrize("sharpness", [(1.0, 1.0), (0.3, 5.0)])
def test_edges_are_log_mean_exp_of_levels(sharpness):
    """The definition, from the levels; sharpness counts in units of the scales."""
    found = results(made(sharpness), STRUCTURES[:1])
    valence, conduction = found["levels"].T
    beta_v, beta_c = np.array(sharpness) / [0.3, 0.7]
    vbm = np.log(np.mean(np.exp(beta_v * valence))) / beta_v
    cbm = -np.log(np.mean(np.exp(-beta_c * conduction))) / beta_c
    assert found["vbm"].item() == pytest.approx(vbm, rel=1e-10)
    assert found["cbm"].item() == pytest.approx(cbm, rel=1e-10)
    assert found["band_gap"].item() == pytest.approx(cbm - vbm, rel=1e-10)


@pytest.mark.parametrize(("sharpness", "edge"), [(1e-4, np.mean), (1e4, None)])
def test_sharpness_goes_from_mean_to_outermost_level(sharpness, edge):
    found = results(made((sharpness, sharpness)), STRUCTURES[:1])
    valence, conduction = found["levels"].T
    assert np.ptp(valence) > 0.05
    assert np.ptp(conduction) > 0.05
    assert found["vbm"].item() == pytest.approx((edge or np.max)(valence), abs=1e-3)
    assert found["cbm"].item() == pytest.approx((edge or np.min)(conduction), abs=1e-3)


def test_shares_of_atoms_are_positive_and_add_up_to_one():
    model = made((2.0, 3.0))
    (head,) = model.output_modules
    levels = []
    for network in (head.valence, head.conduction):
        network.register_forward_hook(lambda _module, _inputs, output: levels.append(output))
    values = model(batch(STRUCTURES[:1], torch.float64))
    for own, key, scale in zip(levels, ("vbm", "cbm"), head.scale, strict=True):
        (slope,) = torch.autograd.grad(values[key].sum(), own, retain_graph=True)
        assert (slope > 0).all()
        assert slope.sum().item() == pytest.approx(scale.item())


@pytest.mark.parametrize("apart", [-8.0, -1.0, 0.0, 1.0, 8.0])
@pytest.mark.parametrize("training", [False, True])
def test_gap_is_what_lies_between_the_edges(apart, training):
    """Also in metals, where both edges are the middle of the overlap."""
    found = results(made(apart=apart).train(training), STRUCTURES)
    gap = found["band_gap"]
    assert (gap >= 0).all()
    np.testing.assert_allclose(found["cbm"] - found["vbm"], gap, atol=1e-12)
    if apart == -8.0:
        apart_levels = results(made(apart=0.0), STRUCTURES)
        assert not gap.any()
        middle = (apart_levels["vbm"] + apart_levels["cbm"]) / 2 - 4
        np.testing.assert_allclose(found["vbm"], middle, atol=1e-12)
    if apart == 8.0:
        assert (gap > 5).all()


@pytest.mark.parametrize("apart", [-3.0, 0.0])
@pytest.mark.parametrize(
    "given", [("band_gap",), ("vbm",), ("cbm",), ("vbm", "cbm"), ("band_gap", "cbm"), KEYS]
)
def test_any_subset_of_labels_trains(given, apart):
    """Metals among them, all predicted as metals at first: no gradient is dead, none runs away."""
    labels = {"vbm": torch.tensor([3.0, 2.0, 2.5]), "cbm": torch.tensor([3.0, 3.0, 2.9])}
    labels["band_gap"] = labels["cbm"] - labels["vbm"]
    model = made(apart=apart).float().train()
    inputs = batch(STRUCTURES[:3])
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
    for _ in range(200):
        values = model(dict(inputs))
        loss = sum((values[key] - labels[key]).square().mean() for key in given)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    values = model.eval()(dict(inputs))
    for key in given:
        torch.testing.assert_close(values[key].float(), labels[key], rtol=0, atol=0.05)


def fitted_edges(tmp_path, train=range(12), **labels):
    data = data_module(tmp_path / "labels.db", STRUCTURES, train, **labels)
    offset, scale = edge_fit(data, *KEYS)
    edges = np.array([offset[atoms.numbers].mean(0).numpy() for atoms in STRUCTURES])
    return edges, scale.numpy()


def drawn() -> dict[str, np.ndarray]:
    """Gap and edges by crystal, with 50 meV of noise."""
    rng = np.random.default_rng(5)
    vbm = np.array([3.0, 2.0, 4.0, 2.5] * 3) + rng.normal(0, 0.05, 12)
    gap = np.array([0.9, 0.5, 0.7, 0.4] * 3) + rng.normal(0, 0.05, 12)
    return {"band_gap": gap, "vbm": vbm, "cbm": vbm + gap}


def composition(labels: np.ndarray) -> np.ndarray:
    """Numpy's fit of the structures with a label, at all structures."""
    shares = np.array([np.bincount(a.numbers, minlength=101) / len(a) for a in STRUCTURES])
    present = np.isfinite(labels)
    return shares @ np.linalg.lstsq(shares[present], labels[present], rcond=None)[0]


def test_edges_are_fitted_to_the_composition(tmp_path):
    """With all labels there, each edge has its own least-squares fit."""
    labels = drawn()
    edges, scale = fitted_edges(tmp_path, **labels)
    for column, key in enumerate(("vbm", "cbm")):
        fit = composition(labels[key])
        np.testing.assert_allclose(edges[:, column], fit, atol=1e-6)
        assert scale[column] == pytest.approx(np.std(labels[key] - fit), rel=1e-6)


def test_one_edge_and_the_gap_give_the_other(tmp_path):
    labels = drawn()
    edges, _ = fitted_edges(tmp_path, vbm=labels["vbm"], band_gap=labels["band_gap"])
    np.testing.assert_allclose(edges[:, 1], composition(labels["cbm"]), atol=1e-6)


def test_gaps_alone_are_fitted_by_the_edges(tmp_path):
    labels = drawn()
    edges, scale = fitted_edges(tmp_path, band_gap=labels["band_gap"])
    fit = composition(labels["band_gap"])
    np.testing.assert_allclose(edges[:, 1] - edges[:, 0], fit, atol=1e-6)
    np.testing.assert_allclose(edges[:, 0], 0, atol=1e-6)
    assert scale == pytest.approx(2 * [np.std(labels["band_gap"] - fit)], rel=1e-6)


def test_missing_labels_are_left_out_of_the_fit(tmp_path):
    """Gaps of one half, valence bands of the other: together they give all."""
    labels = drawn()
    exact = {key: composition(label) for key, label in labels.items()}
    gap, vbm = exact["band_gap"].copy(), exact["vbm"].copy()
    gap[:6], vbm[6:] = np.nan, np.nan
    edges, scale = fitted_edges(tmp_path, band_gap=gap, vbm=vbm)
    np.testing.assert_allclose(edges[:, 0], exact["vbm"], atol=1e-5)
    np.testing.assert_allclose(edges[:, 1], exact["cbm"], atol=1e-5)
    assert (scale > 0).all()


def test_only_training_structures_are_fitted(tmp_path):
    labels = drawn()
    labels["vbm"][8:] += 100.0
    labels["cbm"][8:] += 100.0
    edges, _ = fitted_edges(tmp_path, train=range(8), **labels)
    assert edges.max() < 6


@pytest.mark.parametrize(
    ("labels", "units", "message"),
    [
        ({"vbm": [1.0, 2.0]}, {"vbm": "Hartree"}, "'vbm' comes in 'Hartree'; expected 'eV'"),
        ({"vbm": [1.0, 2.0], "cbm": [1.0, 1.5]}, {}, "'vbm' of structure 1 in .*2.000 eV, above"),
        ({"band_gap": [0.1, -0.2]}, {}, "'band_gap' of structure 1 in .*labels.db is -0.2 eV"),
        (
            {"band_gap": [0.5, 0.5], "vbm": [1.0, 1.0], "cbm": [1.5, 1.6]},
            {},
            "'cbm' - 'vbm' differs from 'band_gap' by 0.1 eV in structure 1",
        ),
        ({"vbm": [np.nan, np.nan]}, {}, "no training structure.*'band_gap', 'vbm' or 'cbm'"),
        ({"energy": [1.0, 2.0]}, {}, "no training structure.*there are energy"),
    ],
    ids=["unit", "overlap", "negative gap", "edges of another gap", "no label", "no property"],
)
def test_bad_labels_are_named_before_the_fit(tmp_path, labels, units, message):
    path = tmp_path / "labels.db"
    data = data_module(path, STRUCTURES[:2], [0, 1], property_units=units, **labels)
    with pytest.raises(ValueError, match=message):
        potential(BandEdges(16)).initialize_transforms(data)
