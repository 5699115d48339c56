"""Local importance-based pooling against loops and PyTorch's own instance normalisation."""

import pytest
import torch
from loops import MAX, by_loops, make, maps
from torch import nn

from vidpool.errors import ConfigError
from vidpool.nn import pooling

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


def test_begins_as_average_pooling():
    x = torch.randn(2, 3, 7, 7)
    average = nn.AvgPool2d(3, 2, 1, count_include_pad=False)
    layer = pooling.LocalImportancePool2d(3, 2, 1, channels=3)
    torch.testing.assert_close(layer(x), average(x))


def test_a_single_cell_is_pooled_too(ndim):
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
