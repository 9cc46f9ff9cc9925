import pytest
import schnetpack as spk
import torch

from schnetpack_phonon.models.cutoffs import PolynomialCutoff, check_smooth, cutoff_of
from schnetpack_phonon.models.heads import Intensive
from tests.models.model_fixtures import CUTOFF, potential, scripted


@pytest.mark.parametrize("exponent", [3, 6])
def test_polynomial_ends_smoothly_on_both_sides(exponent):
    """Value, slope and curvature; nothing beyond the cutoff."""
    cutoff = PolynomialCutoff(CUTOFF, exponent).double()
    ends = torch.tensor([1e-6, CUTOFF - 1e-6], dtype=torch.float64, requires_grad=True)
    value = cutoff(ends)
    (slope,) = torch.autograd.grad(value.sum(), ends, create_graph=True)
    (curvature,) = torch.autograd.grad(slope.sum(), ends)
    expected = torch.tensor([1.0, 0.0], dtype=torch.float64)
    torch.testing.assert_close(value.detach(), expected, rtol=0, atol=1e-9)
    assert slope.abs().max() < 1e-9
    assert curvature.abs().max() < 1e-4
    middle = torch.linspace(0, CUTOFF, 50)
    assert (cutoff(middle.double()).diff() < 0).all()
    assert not cutoff(torch.tensor([CUTOFF, 2 * CUTOFF])).any()
    torch.testing.assert_close(scripted(cutoff)(middle), cutoff(middle))


def test_too_small_exponents_are_refused():
    with pytest.raises(ValueError, match="exponent is 2; expected >= 3"):
        PolynomialCutoff(CUTOFF, 2)


@pytest.mark.parametrize(
    "cutoff",
    [
        PolynomialCutoff(CUTOFF),
        spk.nn.MollifierCutoff(CUTOFF),
        spk.nn.SwitchFunction(CUTOFF - 1, CUTOFF),
    ],
    ids=lambda cutoff: type(cutoff).__name__,
)
def test_smooth_cutoffs_pass(cutoff):
    check_smooth(torch.nn.ModuleDict({"cutoff_fn": cutoff}))


def test_cosine_is_refused_by_its_curvature():
    """Half the square of pi."""
    model = potential()
    with pytest.raises(ValueError, match=r"representation.cutoff_fn is a CosineCutoff.* by 4.9 "):
        check_smooth(model)
    check_smooth(potential(smooth=True))


def test_cutoff_is_the_representations():
    model = potential(Intensive(16, "y"))
    assert cutoff_of(model) == CUTOFF
    del model.representation.cutoff
    assert cutoff_of(model) == CUTOFF
    del model.representation.cutoff_fn
    with pytest.raises(ValueError, match="no 'cutoff' and no 'cutoff_fn'"):
        cutoff_of(model)
