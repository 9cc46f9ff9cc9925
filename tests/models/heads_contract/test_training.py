"""What every head promises of its training."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from schnetpack import properties as host
from torch import nn

from schnetpack_phonon.attribution.faithfulness import untrained
from schnetpack_phonon.common.properties import PROPERTIES
from schnetpack_phonon.data.statistics import composition_fit
from schnetpack_phonon.models.task import ScaledOutput
from tests.models.heads_contract.heads_contract_fixtures import SCALARS, STRUCTURES, heads
from tests.models.model_fixtures import batch, data_module, potential

scalar_heads = pytest.mark.parametrize("head", SCALARS.values(), ids=SCALARS)


@heads
def test_gradient_is_the_slope(head, fitted):
    """Of each output by the positions, against central differences along a random direction."""
    model = fitted(head, dtype=torch.float64)
    direction = np.random.default_rng(1).normal(size=STRUCTURES[0].positions.shape)

    def results(step: float) -> dict[str, torch.Tensor]:
        atoms = STRUCTURES[0].copy()
        atoms.positions += step * direction
        inputs = batch([atoms], torch.float64)
        inputs[host.R].requires_grad_()
        return model(inputs) | {host.R: inputs[host.R]}

    step = 1e-4
    ends, here = [results(-step), results(step)], results(0.0)
    for key in model.model_outputs:
        slope = (ends[1][key].sum() - ends[0][key].sum()).item() / (2 * step)
        (gradient,) = torch.autograd.grad(here[key].sum(), here[host.R], retain_graph=True)
        assert (gradient.numpy() * direction).sum() == pytest.approx(slope, rel=1e-5, abs=1e-8)
        assert abs(slope) > 1e-4


@heads
@pytest.mark.parametrize("missing", [1, 3], ids=["some", "all"])
def test_missing_labels_leave_gradients_finite(head, missing, data, fitted):
    """In training, of some structures or of all; those without a label push nothing."""
    model = fitted(head).train()
    results = model(batch(STRUCTURES[:3]))
    names = [key for key in model.model_outputs if key in data.dataset.available_properties]
    outputs = [ScaledOutput(name, nn.MSELoss(), metrics={}) for name in names]
    target = {name: results[name].detach() + 1.0 for name in names}
    for label in target.values():
        label[:missing] = torch.nan
    loss = sum(output.calculate_loss(results, target) for output in outputs)
    by_structure = torch.autograd.grad(loss, [results[name] for name in names], retain_graph=True)
    loss.backward()
    for gradient in by_structure:
        assert not gradient[:missing].any()
        assert gradient[missing:].all()
    gradients = [parameter.grad for parameter in model.parameters()]
    assert all(gradient is not None and gradient.isfinite().all() for gradient in gradients)
    assert any(gradient.any() for gradient in gradients) == (missing < 3)


@scalar_heads
def test_offsets_are_those_of_the_training_set(head, data, fitted):
    """A network that gives 0 leaves the fit to the composition."""
    model = fitted(head)
    for parameter in model.output_modules.parameters():
        nn.init.zeros_(parameter)
    results = model(batch(STRUCTURES))
    checked = 0
    for key in data.dataset.available_properties:
        if key in results:
            offset, _ = composition_fit(data, key)
            fit = [offset[atoms.numbers].mean() for atoms in STRUCTURES]
            np.testing.assert_allclose(results[key].detach(), fit, atol=1e-5)
            checked += 1
    assert checked


@heads
def test_fresh_weights_for_controls(head, fitted):
    """Nothing of a trained head stays but its offsets and scales (a warning would fail)."""
    model = fitted(head)
    control = untrained(model, seed=0)
    (mine,), (fresh,) = model.output_modules, control.output_modules
    trained = dict(mine.named_parameters())
    for name, parameter in fresh.named_parameters():
        assert not torch.equal(parameter, trained[name]), name
    buffers = dict(mine.named_buffers())
    assert all(torch.equal(buffer, buffers[name]) for name, buffer in fresh.named_buffers())


@heads
@pytest.mark.parametrize(
    ("labels", "message"),
    [
        ({"forces": 1.0}, "{path}.*there are forces"),
        ({"KEY": np.nan}, "no training structure in {path} has a label.*'{key}'"),
        ({"KEY": np.ones(2)}, r"'{key}' of structure 0 in {path} has shape \(1, 2\)"),
    ],
    ids=["no property", "no label", "shape"],
)
def test_bad_labels_are_named_before_the_fit(head, labels, message, tmp_path):
    model, path = potential(head.make()), tmp_path / "labels.db"
    key = model.output_modules[0].model_outputs[0]
    shape = PROPERTIES[key].shape
    labels = {
        name.replace("KEY", key): [np.full(shape, label) if np.ndim(label) == 0 else label] * 3
        for name, label in labels.items()
    }
    data = data_module(path, STRUCTURES[:3], [0, 1], **labels)
    with pytest.raises(ValueError, match=message.format(path=path, key=key)):
        model.initialize_transforms(data)
