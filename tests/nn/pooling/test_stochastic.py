"""Stochastic pooling and S3Pool: draws, seeds, expectations, windows and grids."""

from itertools import combinations

import pytest
import torch
from loops import MAX, by_loops, make, maps
from torch import nn

from vidpool.errors import ConfigError
from vidpool.nn import pooling
from vidpool.nn.pooling.stochastic import expected_rows, sample_rows


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


AVG = {1: nn.AvgPool1d, 2: nn.AvgPool2d, 3: nn.AvgPool3d}


@pytest.mark.parametrize(
    "geometry",
    [
        {"kernel_size": 2},
        {"kernel_size": 3, "stride": 2, "padding": 1},
        {"kernel_size": 2, "stride": 3},
    ],
    ids=str,
)
def test_evaluation_averages_the_grids_of_dense_max_pooling(ndim, geometry):
    x = maps(ndim, sizes=(4, 7, 5)[:ndim])
    dense = by_loops(x, ndim, geometry | {"stride": 1}, lambda values, _cells, _c: values.max())
    stride = geometry.get("stride", geometry["kernel_size"])
    expected = AVG[ndim](stride, ceil_mode=True)(dense)
    torch.testing.assert_close(make("S3", ndim, **geometry)(x), expected)


def test_training_keeps_one_row_of_each_grid():
    x = torch.arange(77.0).view(1, 1, 7, 11)
    layer = pooling.S3Pool2d(1, 2).train()
    for _ in range(20):
        out = layer(x)[0, 0]
        rows, columns = out[:, 0] // 11, out[0] % 11
        assert torch.equal(out, rows[:, None] * 11 + columns)  # the same columns in every row
        assert torch.equal(rows // 2, torch.arange(4.0))
        assert torch.equal(columns // 2, torch.arange(6.0))


def test_larger_grids_keep_rows_in_order():
    torch.manual_seed(0)
    x = torch.arange(10.0).view(1, 1, 10)
    layer = pooling.S3Pool1d(1, 2, grid=4).train()
    seen = {tuple(layer(x).flatten().tolist()) for _ in range(400)}
    pairs = list(combinations(range(4), 2))
    assert seen == {
        (*first, *(4 + row for row in second), last)
        for first in pairs
        for second in pairs
        for last in (8, 9)
    }


@pytest.mark.parametrize(("size", "stride", "grid"), [(8, 2, 4), (11, 2, 4), (11, 2, 6), (9, 3, 9)])
def test_expectation_is_the_mean_of_many_draws(size, stride, grid):
    torch.manual_seed(0)
    x = torch.randn(1, 1, size, dtype=torch.float64)
    draws = torch.stack([sample_rows(x, (stride,), (grid,), None) for _ in range(1500)])
    error = (draws.mean(0) - expected_rows(x, (stride,), (grid,))).abs()
    assert (error <= 5 * draws.std(0) / 1500**0.5).all()


def test_ceil_mode_keeps_max_poolings_size():
    x = maps(2)
    for training in (True, False):
        layer = make("S3", 2, kernel_size=2, stride=3, ceil_mode=True).train(training)
        assert layer(x).shape == MAX[2](2, 3, ceil_mode=True)(x).shape


@pytest.mark.parametrize("grid", [3, 0, (2, 4), (2, 2, 3)])
def test_a_grid_that_does_not_fit_is_an_error(grid):
    with pytest.raises(ConfigError, match="multiple of the stride"):
        pooling.S3Pool3d(2, grid=grid)
