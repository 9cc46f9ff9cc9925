"""Laws of the heads, on crystals and made-up labels."""

from __future__ import annotations

import io

import numpy as np
import pytest
import torch
from ase import Atoms
from ase.build import bulk
from ase.units import Hartree
from schnetpack.atomistic import Atomwise, Forces
from scipy.spatial.transform import Rotation

from schnetpack_phonon.datamodule import composition_fit
from schnetpack_phonon.heads import BandGap, Intensive
from tests.model_fixtures import batch, data_module, potential, thermal

HEADS = pytest.mark.parametrize("head", [Intensive, BandGap])


def fitted(head: type[Intensive], dtype: torch.dtype = torch.float32):
    """A PaiNN with a head whose offsets and scale are not trivial."""
    model = potential(head(16, "y"), dtype=dtype)
    (output,) = model.output_modules
    output.offset.copy_(torch.linspace(0.1, 0.5, 101))
    output.scale.fill_(0.3)
    return model


def rotated(atoms: Atoms) -> Atoms:
    rotation = Rotation.random(rng=0).as_matrix()
    result = atoms.copy()
    result.set_cell(atoms.cell.array @ rotation, scale_atoms=True)
    return result


def translated(atoms: Atoms) -> Atoms:
    result = atoms.copy()
    result.translate([1.3, -0.4, 7.1])
    result.wrap()
    return result


@HEADS
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.float64, 1e-10)])
@pytest.mark.parametrize(
    "same_crystal",
    [lambda a: a.repeat(2), lambda a: a[[3, 0, 4, 2, 1]], translated, rotated],
    ids=["supercell", "permutation", "translation", "rotation"],
)
def test_same_crystal_same_value(head, dtype, tolerance, same_crystal):
    _, atoms = thermal(strain=0.02)
    model = fitted(head, dtype)
    (first, second) = (model(batch([a], dtype))["y"].detach() for a in (atoms, same_crystal(atoms)))
    torch.testing.assert_close(second, first, rtol=0, atol=tolerance)


@HEADS
def test_batch_equals_single_structures(head):
    structures = [thermal(1)[1], bulk("NaCl", "rocksalt", a=5.6), thermal(2)[1].repeat((2, 1, 1))]
    model = fitted(head)
    together = model(batch(structures))["y"].detach()
    single = torch.cat([model(batch([atoms]))["y"].detach() for atoms in structures])
    assert together.std() > 0.01  # the structures differ, so a mix-up would show
    torch.testing.assert_close(together, single, rtol=0, atol=1e-6)


@HEADS
def test_value_is_composition_plus_scaled_mean(head):
    """The definition, from the features that the representation hands over."""
    model = fitted(head, torch.float64)
    (output,) = model.output_modules
    atoms = thermal()[1]
    inputs = batch([atoms], torch.float64)
    value = model(inputs)["y"].item()
    features = inputs["scalar_representation"]
    mean = np.mean([output.outnet(row).item() for row in features])
    offset = np.mean(np.linspace(0.1, 0.5, 101, dtype=np.float32)[atoms.numbers])
    raw = offset + np.float32(0.3) * mean
    expected = np.logaddexp(0, 20 * raw) / 20 if head is BandGap else raw
    assert value == pytest.approx(expected, rel=1e-6)


def scripted(module: torch.nn.Module) -> torch.jit.ScriptModule:
    """As the host's spkdeploy does it: script, save, load."""
    file = io.BytesIO()
    torch.jit.save(torch.jit.script(module), file)
    file.seek(0)
    return torch.jit.load(file)


@HEADS
def test_scripted_head_equals_eager(head):
    """Thrice, since TorchScript fuses operations only after the first calls."""
    model = fitted(head)
    (output,) = model.output_modules
    inputs = batch([thermal(1)[1], thermal(2)[1].repeat((2, 1, 1))])
    model(inputs)
    loaded = scripted(output)
    for _ in range(3):
        value = loaded(dict(inputs))["y"]
        torch.testing.assert_close(value, output(dict(inputs))["y"], rtol=0, atol=1e-6)


@HEADS
def test_scripted_model_equals_eager(head):
    """The host scripts models with forces alone: an empty list of derivatives has no type."""
    model = potential(head(16, "y"), Atomwise(16, output_key="energy"), Forces())
    structures = [thermal(1)[1], thermal(2)[1].repeat((2, 1, 1))]
    eager = model(batch(structures))
    loaded = scripted(model)
    for _ in range(3):
        values = loaded(batch(structures))
        for key in ("y", "energy", "forces"):
            torch.testing.assert_close(values[key], eager[key], rtol=0, atol=1e-5)


@pytest.mark.parametrize("raw", [-4.0, -2.0, -0.5, -0.01, 0.0, 0.1, 0.25, 1.0, 3.0])
def test_band_gap_is_a_softplus(raw):
    """Never negative, a gradient at any value, less than 1 meV off above 0.25 eV."""
    model = potential(BandGap(16, "y"))
    *_, last = model.output_modules[0].outnet
    torch.nn.init.zeros_(last.weight)
    bias = torch.nn.init.constant_(last.bias, raw)  # now the mean over atoms, in eV
    gap = model(batch([thermal()[0]]))["y"]
    gap.backward()
    np.testing.assert_allclose(gap.item(), np.logaddexp(0, 20 * raw) / 20, rtol=1e-5)
    np.testing.assert_allclose(bias.grad, 1 / (1 + np.exp(-20 * raw)), rtol=1e-5)
    assert gap.item() > 0
    assert bias.grad.item() > 0
    if raw >= 0.25:
        assert gap.item() == pytest.approx(raw, abs=1e-3)


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
    model.initialize_transforms(data)  # the host's call before a fit
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


@pytest.mark.parametrize(
    ("key", "message"),
    [("gap", "'gap'.*there are band_gap, vbm"), ("vbm", "no training structure.*'vbm'")],
)
def test_composition_fit_says_what_is_missing(tmp_path, key, message):
    labels = {"band_gap": [1, 2, 3], "vbm": [np.nan, np.nan, 1.0]}
    data = data_module(tmp_path / "labels.db", [crystal("Ag3SBr")] * 3, [0, 1], **labels)
    with pytest.raises(ValueError, match=message):
        composition_fit(data, key)
