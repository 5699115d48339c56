"""S3Pool: the sampled rows and columns, their expectation, and grids."""

from itertools import combinations

import pytest
import torch
from loops import MAX, by_loops, make, maps
from torch import nn

from vidpool.errors import ConfigError
from vidpool.nn import pooling
from vidpool.nn.pooling.spatial import expect, sample

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
    draws = torch.stack([sample(x, (stride,), (grid,), None) for _ in range(1500)])
    error = (draws.mean(0) - expect(x, (stride,), (grid,))).abs()
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
