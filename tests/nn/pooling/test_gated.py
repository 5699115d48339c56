"""Gated pooling against loops."""

import pytest
import torch
from loops import by_loops, make, maps


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


def test_begins_half_way_between_maximum_and_average():
    layer = make("Gated", 1, kernel_size=4)
    layer.mask.data.zero_()
    assert layer(torch.tensor([[0.0, 0, 0, 4]], dtype=torch.float64)).item() == 2.5
