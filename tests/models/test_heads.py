"""Heads that are means over atoms, against their definition; offsets and scales from databases."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from ase import Atoms
from ase.units import Hartree
from schnetpack.atomistic import Forces
from torch import nn

from schnetpack_phonon.data.statistics import composition_fit, label_spread
from schnetpack_phonon.models.heads import BandGap, Energy, Intensive, opened
from tests.models.model_fixtures import batch, data_module, potential, scripted, thermal


@pytest.mark.parametrize("head", [Intensive, BandGap])
def test_value_is_composition_plus_scaled_mean(head):
    """The definition, from the features that the representation hands over."""
    model = potential(head(16, "y"), dtype=torch.float64)
    (output,) = model.output_modules
    output.offset.copy_(torch.linspace(0.1, 0.5, 101))
    output.scale.fill_(0.3)
    atoms = thermal()[1]
    inputs = batch([atoms], torch.float64)
    value = model(inputs)["y"].item()
    features = inputs["scalar_representation"]
    mean = np.mean([output.outnet(row).item() for row in features])
    offset = np.mean(np.linspace(0.1, 0.5, 101)[atoms.numbers])
    raw = offset + 0.3 * mean
    assert value == pytest.approx(corner(raw) if head is BandGap else raw, rel=1e-6)


def corner(raw: float, width: float = 0.05) -> float:
    """Integral of a slope that rises from 0 to 1 between -width and width."""
    if abs(raw) < width:
        return (raw + width) ** 2 / (4 * width)
    return max(raw, 0.0)


@pytest.mark.parametrize("raw", [-4.0, -0.06, -0.05, -0.01, 0.0, 0.03, 0.05, 0.06, 3.0])
def test_gap_is_opened_with_a_rounded_corner(raw):
    """Value and slope of the corner; a pull leaves the value and adds to the slope."""
    number = torch.tensor([raw, 1.0], dtype=torch.float64, requires_grad=True)
    true = np.clip((raw + 0.05) / 0.1, 0, 1)
    single = torch.tensor([raw, raw / 3, raw / 7])
    for pull in (0.0, 0.1, 1.0):
        gap = opened(number, pull)
        assert gap.tolist() == pytest.approx([corner(raw), 1.0], abs=1e-12)
        (slope,) = torch.autograd.grad(gap.sum(), number)
        assert slope.tolist() == pytest.approx([pull + (1 - pull) * true, 1.0], abs=1e-12)
        assert (opened(single, pull) >= 0).all()  # also after rounding


@pytest.mark.parametrize("loss", [nn.MSELoss(), nn.L1Loss()])
@pytest.mark.parametrize("start", [-2.0, 1.5])
def test_metals_and_insulators_are_learned_from_far_off(loss, start):
    """Gradient descent from both sides; what is zero already is left alone."""
    labels = torch.tensor([0.0, 0.0, 0.4, 1.0])
    raw = torch.full_like(labels, start).requires_grad_()
    for _ in range(400):
        (slope,) = torch.autograd.grad(loss(opened(raw, 1.0), labels), raw)
        raw.data -= 0.05 * slope
    torch.testing.assert_close(opened(raw), labels, rtol=0, atol=0.06)
    assert raw.min() >= min(start, -0.1)


COMPOSITIONS = {
    "several": ["Ag3SBr", "AgS", "SBr2", "Ag2Br", "Ag5S2Br", "Br3"],
    "fixed stoichiometry": ["Ag3SBr", "Ag6S2Br2"] * 3,
    "two crystals": ["Ag3SBr", "Ag3SI"] * 3,
}


@pytest.fixture(params=COMPOSITIONS)
def labelled(request, tmp_path):
    """(formulas, labels, data module, its training structures that have a label)."""
    formulas = COMPOSITIONS[request.param] * 3
    labels = np.random.default_rng(3).normal(1.5, 0.4, len(formulas))
    labels[[1, 7]] = np.nan
    structures = [crystal(formula) for formula in formulas]
    train = [k for k in range(len(formulas)) if k % 5]
    data = data_module(tmp_path / "labels.db", structures, train, band_gap=labels)
    return formulas, labels, data, [k for k in train if np.isfinite(labels[k])]


def crystal(formula: str) -> Atoms:
    atoms = Atoms(formula, cell=[9, 9, 9], pbc=True)
    atoms.positions[:, 0] = 2.5 * np.arange(len(atoms))
    return atoms


def numpy_fit(formulas: list[str], labels: np.ndarray) -> tuple[np.ndarray, float]:
    shares = np.array([np.bincount(Atoms(f).numbers, minlength=101) for f in formulas], float)
    shares /= shares.sum(axis=1, keepdims=True)
    offset = np.linalg.lstsq(shares, labels, rcond=None)[0]
    return offset, np.sqrt(np.mean((labels - shares @ offset) ** 2))


def test_composition_fit_is_least_squares(labelled):
    """Numpy's solution of smallest norm, from the training structures with a label alone."""
    formulas, labels, data, used = labelled
    offset, spread = composition_fit(data, "band_gap")
    expected, deviation = numpy_fit([formulas[k] for k in used], labels[used])
    np.testing.assert_allclose(offset.numpy(), expected, atol=1e-10)
    np.testing.assert_allclose(spread.numpy(), [deviation], rtol=1e-10)


def test_head_takes_offset_and_scale_from_the_host(labelled):
    """A network that gives 0 leaves the fit, one that gives 1 adds the spread."""
    formulas, labels, data, used = labelled
    model = potential(Intensive(16, "band_gap"))
    model.initialize_transforms(data)  # SchNetPack's call before a fit
    (head,) = model.output_modules
    torch.nn.init.zeros_(head.outnet[-1].weight)
    inputs = batch([crystal(formula) for formula in formulas])
    values = []
    for bias in (0.0, 1.0):
        torch.nn.init.constant_(head.outnet[-1].bias, bias)
        values.append(model(dict(inputs))["band_gap"].detach().numpy())
    offset, deviation = numpy_fit([formulas[k] for k in used], labels[used])
    fit = [offset[Atoms(formula).numbers].mean() for formula in formulas]
    np.testing.assert_allclose(values[0], fit, atol=1e-5)
    np.testing.assert_allclose(values[1] - values[0], deviation, atol=1e-5)


def test_composition_fit_of_a_fixed_stoichiometry_is_the_mean(tmp_path):
    labels = [1.0, 2.0, 4.0, 8.0]
    structures = [crystal("Ag3SBr"), crystal("Ag6S2Br2"), crystal("Ag3SBr"), crystal("Ag3SBr")]
    data = data_module(tmp_path / "labels.db", structures, [0, 1, 3], band_gap=labels)
    offset, spread = composition_fit(data, "band_gap")
    assert offset[structures[0].numbers].mean().item() == pytest.approx(11 / 3)
    assert spread.item() == pytest.approx(np.std([1.0, 2.0, 8.0]))


def test_composition_fit_in_the_unit_of_the_data_module(labelled, tmp_path):
    formulas, _, data, _ = labelled
    units = {"band_gap": "Hartree"}
    path, train = tmp_path / "labels.db", data.train_idx
    other = data_module(path, [crystal(f) for f in formulas], train, property_units=units)
    for mine, theirs in zip(*(composition_fit(d, "band_gap") for d in (data, other)), strict=True):
        np.testing.assert_allclose(theirs * Hartree, mine, rtol=1e-9, atol=1e-12)


def test_composition_fit_of_constant_labels_can_divide(tmp_path):
    """The loss divides by the spread: it must not be zero, not even for metals alone."""
    data = data_module(tmp_path / "labels.db", [crystal("Ag3SBr")] * 3, [0, 1], band_gap=[0.0] * 3)
    assert composition_fit(data, "band_gap")[1].item() > 0


def test_spread_of_a_tensor_is_one_number(tmp_path):
    """Of all components, each about its own fit, from the structures that have it."""
    formulas = ["Ag3SBr", "Ag3SI"] * 4
    tensors = np.random.default_rng(0).normal([0.5], 0.1, (8, 3, 3)) + np.arange(3)
    tensors[2, 0, 1] = np.nan
    structures = [crystal(formula) for formula in formulas]
    data = data_module(tmp_path / "labels.db", structures, range(7), stress=tensors)
    offset, spread = composition_fit(data, "stress", (3, 3))
    by_crystal = [tensors[odd:7:2] for odd in (0, 1)]
    left = np.concatenate([own - np.nanmean(own, axis=0) for own in by_crystal])
    np.testing.assert_allclose(spread, [np.sqrt(np.nanmean(left**2))], rtol=1e-9)
    np.testing.assert_allclose(label_spread(data, "stress"), spread)
    mean = offset[structures[0].numbers].mean(dim=0)
    np.testing.assert_allclose(mean, np.nanmean(by_crystal[0], axis=0), atol=1e-9)


def test_levels_of_structures_with_fewer_kpoints_have_a_spread(tmp_path):
    """Rows without a label in any structure, and in some, are no reason to leave out the others."""
    structures = [crystal("Ag3SBr")] * 6
    levels = np.random.default_rng(0).normal(0, 0.1, (6, 3, 4))
    levels[:, 2] = levels[4:, 1] = np.nan
    data = data_module(tmp_path / "labels.db", structures, range(6), eigenvalues=levels)
    offset, spread = composition_fit(data, "eigenvalues", (3, 4))
    mean = [levels[:, 0].mean(axis=0), levels[:4, 1].mean(axis=0), np.zeros(4)]
    np.testing.assert_allclose(offset[structures[0].numbers].mean(dim=0), mean, atol=1e-9)
    left = np.nan_to_num(levels - np.array(mean), nan=0.0)
    np.testing.assert_allclose(spread, [np.sqrt((left**2).sum() / (4 * (6 + 4)))], rtol=1e-9)


def test_spread_of_forces_is_their_root_mean_square(tmp_path):
    """As SchNetPack's own loader gives them, one row an atom."""
    structures = [crystal("Ag3SBr"), crystal("Ag6S2Br2"), crystal("Ag3SBr")]
    forces = [
        np.random.default_rng(k).normal(0.2, 1, (len(a), 3)) for k, a in enumerate(structures)
    ]
    forces[0][2, 1] = np.nan
    data = data_module(tmp_path / "labels.db", structures, [0, 1], atoms={"forces": forces})
    used = np.concatenate(forces[:2])
    np.testing.assert_allclose(label_spread(data, "forces"), [np.sqrt(np.nanmean(used**2))])


CRYSTALS = [thermal(k, formula)[1] for k, formula in enumerate(["Ag3SBr", "Ag3SI"] * 2)]
ENERGIES = np.array([-100.0, -120.0, -100.2, -120.4])
FORCES = {"forces": [np.full((5, 3), 0.3)] * 4}


def fitted_energy(tmp_path, atoms=FORCES, dtype=torch.float32, **kwargs):
    path = tmp_path / "a.db"
    data = data_module(path, CRYSTALS, range(4), atoms=atoms, energy_per_atom=ENERGIES, **kwargs)
    model = potential(Energy(16), Forces(), dtype=dtype)
    model.initialize_transforms(data)
    return model


@pytest.mark.parametrize(
    ("atoms", "expected"), [(FORCES, 0.3), ({}, np.sqrt((0.1**2 + 0.2**2) / 2))]
)
def test_scale_of_the_energy_is_that_of_the_forces_if_there_are_any(atoms, expected, tmp_path):
    model = fitted_energy(tmp_path, atoms)
    assert model.output_modules[0].scale.item() == pytest.approx(expected)


def test_total_energies_differ_by_composition(tmp_path):
    """A network of zeros leaves the means of both crystals."""
    model = fitted_energy(tmp_path)
    for parameter in model.output_modules.parameters():
        torch.nn.init.zeros_(parameter)
    results = model(batch([CRYSTALS[0].repeat((2, 1, 1)), CRYSTALS[1]]))
    np.testing.assert_allclose(results["energy"].detach(), [-1001.0, -601.0], rtol=1e-6)
    np.testing.assert_allclose(results["energy_per_atom"].detach(), [-100.1, -120.2], rtol=1e-6)


def test_forces_are_the_slope_of_the_total_energy(tmp_path):
    model = fitted_energy(tmp_path, dtype=torch.float64)
    forces = model(batch(CRYSTALS[:1], torch.float64))["forces"]
    step, energies = 1e-4, []
    for sign in (1, -1):
        moved = CRYSTALS[0].copy()
        moved.positions[2, 1] += sign * step
        energies.append(model(batch([moved], torch.float64))["energy"].item())
    assert forces[2, 1].item() == pytest.approx(-(energies[0] - energies[1]) / (2 * step), rel=1e-6)


def test_scripted_energy_equals_eager(tmp_path):
    model = fitted_energy(tmp_path)
    expected, loaded = model(batch(CRYSTALS)), scripted(model)
    for _ in range(3):
        found = loaded(batch(CRYSTALS))
        for key in expected:
            assert found[key].dtype == torch.float32  # for LAMMPS
            torch.testing.assert_close(found[key], expected[key].float(), rtol=1e-5, atol=1e-5)


def test_energies_in_other_units_are_named_before_the_fit(tmp_path):
    with pytest.raises(ValueError, match="'energy_per_atom' comes in 'kcal/mol'; expected 'eV'"):
        fitted_energy(tmp_path, {}, property_units={"energy_per_atom": "kcal/mol"})
