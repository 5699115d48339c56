"""I3D's "SAME" padding against its definition in TensorFlow."""

import math

import pytest
import torch
import torch.nn.functional as F

from vidpool.models.i3d import SameConv3d, SamePool, WindowAverage
from vidpool.nn import swap_pooling

GEOMETRIES = [((1, 3, 3), (1, 2, 2)), ((3, 3, 3), (2, 2, 2))]
SIZES = [(1, 1, 1), (2, 2, 3), (4, 7, 6), (5, 8, 9), (3, 1, 4)]


def windows(x, kernel_size, stride, pad):
    """All windows (N, C, T', H', W', cells) of x with "SAME" padding of the value `pad`."""
    padding = []
    for size, cells, step in zip(x.shape[2:], kernel_size, stride, strict=True):
        total = max(0, (math.ceil(size / step) - 1) * step + cells - size)
        padding = [total // 2, total - total // 2, *padding]
    x = F.pad(x, padding, value=pad)
    for axis, (cells, step) in enumerate(zip(kernel_size, stride, strict=True), start=2):
        x = x.unfold(axis, cells, step)
    return x.flatten(5)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize(("kernel_size", "stride"), GEOMETRIES)
def test_max_pooling(kernel_size, stride, size):
    x = torch.randn(2, 3, *size)
    expected = windows(x, kernel_size, stride, -math.inf).amax(-1)
    assert torch.equal(SamePool(kernel_size, stride)(x), expected)
    # the published network pads with zeros, which is the same after a ReLU
    expected = windows(x.relu(), kernel_size, stride, 0).amax(-1)
    assert torch.equal(SamePool(kernel_size, stride)(x.relu()), expected)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize(("kernel_size", "stride"), GEOMETRIES)
@pytest.mark.parametrize("to", ["soft", "avg"])
def test_padding_weighs_nothing_in_what_replaces_max_pooling(kernel_size, stride, size, to):
    if to == "avg" and 1 in size:
        size = (3, 4, 5)  # PyTorch's average pooling takes no map smaller than its window
    layer = SamePool(kernel_size, stride)
    (swap,) = swap_pooling(layer, to)
    assert swap.name == "pool"
    x = torch.randn(2, 3, *size, dtype=torch.float64, requires_grad=True)
    cells = windows(x, kernel_size, stride, math.nan)
    padded = cells.isnan()
    cells = cells.nan_to_num()
    if to == "soft":
        weights = cells.masked_fill(padded, -math.inf).softmax(-1)
    else:
        weights = (~padded).double() / (~padded).sum(-1, keepdim=True)
    expected = (cells * weights).sum(-1)
    output = layer(x)
    torch.testing.assert_close(output, expected)
    seed = torch.randn_like(output)
    (gradient,) = torch.autograd.grad(output, x, seed)
    (by_hand,) = torch.autograd.grad(expected, x, seed)
    torch.testing.assert_close(gradient, by_hand)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize(("cells", "stride"), [(7, 2), (3, 1), (1, 1)])
def test_convolution(cells, stride, size):
    layer = SameConv3d(2, 3, cells, stride=stride, bias=False).double()
    x = torch.randn(2, 2, *size, dtype=torch.float64)
    patches = windows(x, (cells,) * 3, (stride,) * 3, 0)
    expected = torch.einsum("ncthwk,ock->nothw", patches, layer.weight.flatten(2))
    torch.testing.assert_close(layer(x), expected)


def test_head_averages_windows_or_what_there_is():
    layer = WindowAverage((2, 7, 7))
    x = torch.randn(2, 3, 4, 9, 5)
    output = layer(x)
    assert output.shape == (2, 3, 3, 3, 1)
    torch.testing.assert_close(output[:, :, 1, 2, 0], x[:, :, 1:3, 2:9].mean(dim=(2, 3, 4)))
    torch.testing.assert_close(layer(x[:, :, :1, :1]), x[:, :, :1, :1].mean(dim=4, keepdim=True))
