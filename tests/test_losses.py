"""Every registered loss is a loss: a scalar with a gradient, of the samples alone, in whatever order and size they come."""

import pytest
import torch
from torch.nn import functional as F

from staa.losses import FORECAST_LOSSES, LOSSES

STEPS, SAMPLES, CLASSES = 3, 8, 5
ALL = LOSSES | FORECAST_LOSSES
EACH = pytest.mark.parametrize("name", ALL)


def given(name):
    """Outputs and targets of some samples, the samples' dimension of the outputs, and what is as good as can be."""
    if name in FORECAST_LOSSES:
        truth = torch.randn(SAMPLES, 4, 6, dtype=torch.float64)
        return torch.randn_like(truth), truth, 0, truth
    labels = torch.randint(CLASSES, (SAMPLES,))
    right = F.one_hot(labels, CLASSES).double()
    return torch.randn(STEPS, SAMPLES, CLASSES, dtype=torch.float64), labels, 1, (6 * right - 3).expand(STEPS, -1, -1)


@EACH
def test_it_is_a_finite_scalar_with_a_gradient_for_each_output(name):
    outputs, targets, *_ = given(name)
    value = ALL[name](outputs.requires_grad_(), targets)
    assert value.shape == ()
    assert value.isfinite()
    (gradient,) = torch.autograd.grad(value, outputs)
    assert gradient.isfinite().all()
    assert (gradient != 0).all()


@EACH
def test_its_gradient_is_that_of_its_value(name):
    outputs, targets, *_ = given(name)
    assert torch.autograd.gradcheck(lambda x: ALL[name](x, targets), outputs.requires_grad_())


@EACH
def test_it_is_lower_where_outputs_are_right(name):
    outputs, targets, _, right = given(name)
    assert ALL[name](right, targets) < ALL[name](outputs, targets)


@EACH
def test_it_is_a_mean_over_samples_in_any_order(name):
    outputs, targets, at, _ = given(name)
    whole = ALL[name](outputs, targets)
    order = torch.randperm(SAMPLES)
    torch.testing.assert_close(ALL[name](outputs.index_select(at, order), targets[order]), whole)
    halves = zip(outputs.chunk(2, at), targets.chunk(2), strict=True)
    torch.testing.assert_close(torch.stack([ALL[name](*half) for half in halves]).mean(), whole)


@pytest.mark.parametrize("name", LOSSES)
def test_probabilities_that_are_certain_are_labels(name):
    outputs, labels, *_ = given(name)
    torch.testing.assert_close(LOSSES[name](outputs, F.one_hot(labels, CLASSES).double()), LOSSES[name](outputs, labels))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("name", LOSSES)
def test_half_precision_is_summed_in_float32(name, dtype):
    outputs, labels, *_ = given(name)
    value = LOSSES[name](outputs.to(dtype), labels)
    assert value.dtype == torch.float32
    torch.testing.assert_close(value, LOSSES[name](outputs.to(dtype).float(), labels))


@pytest.mark.parametrize("name", FORECAST_LOSSES)
def test_what_is_not_known_counts_for_nothing(name):
    forecast, truth, *_ = given(name)
    known = torch.rand(truth.shape) < 0.5
    value = FORECAST_LOSSES[name](forecast.requires_grad_(), truth.where(known, torch.nan))
    torch.testing.assert_close(value, FORECAST_LOSSES[name](forecast[known], truth[known]))
    (gradient,) = torch.autograd.grad(value, forecast)
    assert ((gradient != 0) == known).all()
