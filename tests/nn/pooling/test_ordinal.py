"""Ordinal pooling against loops; its ends are average and max pooling."""

import torch
from loops import MAX, by_loops, make, maps
from torch import nn

from vidpool.nn import pooling


def test_ordinal(ndim, geometry):
    x, layer = maps(ndim), make("Ordinal", ndim, **geometry)
    logits = layer.logits.detach()

    def ordinal(values, _cells, channel):
        ranked = sorted(values.tolist(), reverse=True)
        weights = [logit.exp() for logit in logits[channel, : len(ranked)]]
        return sum(w * v for w, v in zip(weights, ranked, strict=True)) / sum(weights)

    torch.testing.assert_close(layer(x), by_loops(x, ndim, geometry, ordinal))


def test_begins_as_average_pooling_and_reaches_max_pooling(ndim):
    x = maps(ndim)
    layer = getattr(pooling, f"OrdinalPool{ndim}d")(3, 2, 1, channels=3).double()
    average = (nn.AvgPool1d, nn.AvgPool2d, nn.AvgPool3d)[ndim - 1](3, 2, 1, count_include_pad=False)
    torch.testing.assert_close(layer(x), average(x))
    layer.logits.data[:, 0] = 100
    torch.testing.assert_close(layer(x), MAX[ndim](3, 2, 1)(x))
