"""Sum, power average and Lp pooling against loops; extreme values; which p are possible."""

import pytest
import torch
from loops import by_loops, make, maps
from torch import nn

from vidpool.errors import ConfigError
from vidpool.nn import pooling


def test_sum(ndim, geometry):
    x = maps(ndim)
    expected = by_loops(x, ndim, geometry, lambda values, _cells, _c: values.sum())
    torch.testing.assert_close(make("Sum", ndim, **geometry)(x), expected)


@pytest.mark.parametrize("p", [1, 2, 3.5])
def test_power_average(ndim, geometry, p):
    x = maps(ndim)
    expected = by_loops(
        x, ndim, geometry, lambda values, _cells, _c: values.abs().pow(p).sum().pow(1 / p)
    )
    torch.testing.assert_close(make("PowerAvg", ndim, p=p, **geometry)(x), expected)


@pytest.mark.parametrize("channels", [None, 3])
def test_lp(ndim, geometry, channels):
    x, layer = maps(ndim), make("LearnedNorm", ndim, channels=channels, **geometry)
    powers = 1 + torch.log(1 + layer.rho.detach().exp()).expand(3)

    def norm(values, _cells, channel):
        return values.abs().pow(powers[channel]).mean().pow(1 / powers[channel])

    torch.testing.assert_close(layer(x), by_loops(x, ndim, geometry, norm))


def test_power_average_is_pytorchs_where_that_is_defined():
    x = maps(2).abs()
    torch.testing.assert_close(pooling.PowerAvgPool2d(3, 2, p=3)(x), nn.LPPool2d(3, 3, 2)(x))


@pytest.mark.parametrize("p", [2.0, 4.0, 40.0])
def test_p_begins_as_asked(p):
    x = maps(2).abs()
    fixed = pooling.PowerAvgPool2d(2, p=p)(x) / 4 ** (1 / p)
    torch.testing.assert_close(pooling.LearnedNormPool2d(2, p=p)(x), fixed, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("value", [0.0, 1e-38, 1e-30, 1e30, -1e30])
@pytest.mark.parametrize("method", ["PowerAvg", "LearnedNorm"])
def test_extreme_values_and_their_gradients_are_finite(method, value):
    layer = make(method, 2, kernel_size=2, p=7.0).float()
    x = torch.full((1, 1, 4, 4), value, requires_grad=True)
    out = layer(x)
    # every cell alike: the mean norm is the magnitude itself, the sum 4^(1/7) as large
    factor = 4 ** (1 / 7) if method == "PowerAvg" else 1
    torch.testing.assert_close(out.detach(), torch.full_like(out, abs(value) * factor))
    out.sum().backward()
    assert x.grad.isfinite().all()
    assert all(p.grad.isfinite().all() for p in layer.parameters())


def test_windows_with_some_zeros_have_finite_gradients():
    for method in ("PowerAvg", "LearnedNorm"):
        layer = make(method, 1, kernel_size=2, p=1.5)
        x = torch.tensor([[0.0, 2.0, 0.0, 0.0]], dtype=torch.float64, requires_grad=True)
        layer(x).sum().backward()
        assert x.grad.isfinite().all()
        assert x.grad[0, 0] == 0
        assert x.grad[0, 1] > 0


@pytest.mark.parametrize("p", [0.5, 0, -1, float("inf"), float("nan")])
def test_an_impossible_p_is_an_error(p):
    with pytest.raises(ConfigError, match=f"is {p}"):
        pooling.PowerAvgPool3d(2, p=p)
    with pytest.raises(ConfigError, match=f"is {p}"):
        pooling.LearnedNormPool3d(2, p=p)


def test_a_learned_p_begins_above_one():
    with pytest.raises(ConfigError, match="above 1"):
        pooling.LearnedNormPool3d(2, p=1)
