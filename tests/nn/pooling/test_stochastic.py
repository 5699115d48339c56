"""Stochastic pooling: expectation, draws, seeds, and what has no positive value."""

import pytest
import torch
from loops import by_loops, make, maps

from vidpool.nn import pooling


def expected_value(values, _cells, _channel):
    weights = values.clamp_min(0)
    return values.mean() if weights.sum() == 0 else (weights * values).sum() / weights.sum()


def test_evaluation_is_the_expectation(ndim, geometry):
    x = maps(ndim)
    layer = make("Stochastic", ndim, **geometry)
    torch.testing.assert_close(layer(x), by_loops(x, ndim, geometry, expected_value))


def test_training_draws_a_value_of_the_window(ndim, geometry):
    x, layer = maps(ndim), make("Stochastic", ndim, **geometry).train()
    out = layer(x)
    drawn = iter(out.flatten().tolist())

    def among(values, _cells, _channel):
        value = next(drawn)
        has_positive = bool((values > 0).any())
        return torch.tensor(value in values.tolist() and (value > 0 or not has_positive)).double()

    assert by_loops(x, ndim, geometry, among).all()


def test_draws_average_to_the_expectation():
    torch.manual_seed(0)
    window = torch.tensor([1.0, 2.0, 0.0, 5.0])
    layer = pooling.StochasticPool1d(4).train()
    draws = layer(window.repeat(1, 40000).view(1, 1, -1)).flatten()
    # P = 1/8, 2/8, 0, 5/8: five standard deviations of a frequency are 0.0125
    for value in window:
        assert abs((draws == value).float().mean() - value / 8) < 0.0125
    assert layer.eval()(window.view(1, 4)).item() == 30 / 8


def test_without_a_positive_value_all_are_drawn_alike():
    torch.manual_seed(0)
    layer = pooling.StochasticPool1d(3, padding=1, stride=3).train()
    draws = layer(torch.tensor([-1.0, -2.0]).expand(20000, 1, 2)).flatten()
    assert set(draws.tolist()) == {-1.0, -2.0}  # never the padding
    assert abs((draws == -1).float().mean() - 0.5) < 0.02
    assert layer(torch.zeros(1, 1, 2)).item() == 0


def test_the_gradient_goes_to_the_drawn_value():
    x = maps(2).abs().requires_grad_()
    make("Stochastic", 2, kernel_size=3).train()(x).sum().backward()
    per_window = x.grad[..., :9, :6].unfold(2, 3, 3).unfold(3, 3, 3).flatten(-2)
    assert torch.equal(per_window.sort(-1).values[..., -1], torch.ones_like(per_window[..., 0]))
    assert torch.equal(per_window.sum(-1), torch.ones_like(per_window[..., 0]))


@pytest.mark.parametrize("value", [1e-38, 1e30])
def test_extreme_values_stay_finite(value):
    x = torch.tensor([[0.0, value, value, 0.0]], requires_grad=True)
    for training in (True, False):
        layer = pooling.StochasticPool1d(4).train(training)
        out = layer(x)
        assert out.item() == pytest.approx(value, rel=1e-5)
        (gradient,) = torch.autograd.grad(out, x, torch.ones_like(out))
        assert gradient.isfinite().all()
