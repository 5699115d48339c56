"""Gated, local importance-based and ordinal pooling against loops, and their special cases."""

import pytest
import torch
from loops import MAX, by_loops, make, maps
from torch import nn

from vidpool.errors import ConfigError
from vidpool.nn import pooling


@pytest.mark.parametrize("channels", [None, 3])
def test_gated(ndim, geometry, channels):
    x, layer = maps(ndim), make("Gated", ndim, channels=channels, **geometry)
    mask = layer.mask.detach().expand(3, *layer.mask.shape[1:])

    def gated(values, cells, channel):
        logit = sum(
            mask[(channel, *cell)] * value for cell, value in zip(cells, values, strict=True)
        )
        gate = 1 / (1 + torch.exp(-logit))
        return gate * values.max() + (1 - gate) * values.mean()

    torch.testing.assert_close(layer(x), by_loops(x, ndim, geometry, gated))


def test_gated_begins_half_way_between_maximum_and_average():
    layer = make("Gated", 1, kernel_size=4)
    layer.mask.data.zero_()
    assert layer(torch.tensor([[0.0, 0, 0, 4]], dtype=torch.float64)).item() == 2.5


NORM = {1: nn.InstanceNorm1d, 2: nn.InstanceNorm2d, 3: nn.InstanceNorm3d}


def test_importance(ndim, geometry):
    x, layer = maps(ndim), make("LocalImportance", ndim, **geometry)
    norm = NORM[ndim](3, affine=True).double()
    norm.weight.data, norm.bias.data = layer.scale.data, layer.shift.data
    with torch.no_grad():
        weight = torch.exp(12 * torch.sigmoid(norm(layer.conv(x))))
    above = by_loops(weight * x, ndim, geometry, lambda values, _cells, _c: values.sum())
    below = by_loops(weight, ndim, geometry, lambda values, _cells, _c: values.sum())
    torch.testing.assert_close(layer(x), above / below)


def test_importance_begins_as_average_pooling():
    x = torch.randn(2, 3, 7, 7)
    average = nn.AvgPool2d(3, 2, 1, count_include_pad=False)
    layer = pooling.LocalImportancePool2d(3, 2, 1, channels=3)
    torch.testing.assert_close(layer(x), average(x))


def test_importance_pools_a_single_cell(ndim):
    x = torch.rand(1, 3, *(1,) * ndim)
    layer = make("LocalImportance", ndim, kernel_size=3, stride=2, padding=1).float().train()
    torch.testing.assert_close(layer(x), MAX[ndim](3, 2, 1)(x))


def test_the_logits_convolution_can_be_smaller():
    layer = pooling.LocalImportancePool3d(2, channels=4, logit_kernel=1)
    assert layer.conv.weight.shape == (4, 4, 1, 1, 1)
    assert layer(torch.rand(1, 4, 2, 4, 4)).shape == (1, 4, 1, 2, 2)


def test_an_even_logits_convolution_is_an_error():
    with pytest.raises(ConfigError, match=r"logit_kernel must be odd.*is 2"):
        pooling.LocalImportancePool3d(2, channels=4, logit_kernel=2)


def test_ordinal(ndim, geometry):
    x, layer = maps(ndim), make("Ordinal", ndim, **geometry)
    logits = layer.logits.detach()

    def ordinal(values, _cells, channel):
        ranked = sorted(values.tolist(), reverse=True)
        weights = [logit.exp() for logit in logits[channel, : len(ranked)]]
        return sum(w * v for w, v in zip(weights, ranked, strict=True)) / sum(weights)

    torch.testing.assert_close(layer(x), by_loops(x, ndim, geometry, ordinal))


def test_ordinal_begins_as_average_pooling_and_reaches_max_pooling(ndim):
    x = maps(ndim)
    layer = getattr(pooling, f"OrdinalPool{ndim}d")(3, 2, 1, channels=3).double()
    average = (nn.AvgPool1d, nn.AvgPool2d, nn.AvgPool3d)[ndim - 1](3, 2, 1, count_include_pad=False)
    torch.testing.assert_close(layer(x), average(x))
    layer.logits.data[:, 0] = 100
    torch.testing.assert_close(layer(x), MAX[ndim](3, 2, 1)(x))
