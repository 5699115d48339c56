"""Registry of the pooling methods by short name."""

from __future__ import annotations

from typing import Literal, NamedTuple

from torch import nn

from vidpool.nn import pooling
from vidpool.nn.softpool import SoftPool1d, SoftPool2d, SoftPool3d


class PoolingMethod(NamedTuple):
    """The layers of a pooling method."""

    layers: tuple[type[nn.Module], type[nn.Module], type[nn.Module]]
    """Layer classes for one, two and three pooled dimensions."""
    channels: Literal["none", "optional", "needed"] = "none"
    """Use of `channels`, the number of channels that the layers learn parameters for."""


POOLING_METHODS = {
    "soft": PoolingMethod((SoftPool1d, SoftPool2d, SoftPool3d)),
    "max": PoolingMethod((nn.MaxPool1d, nn.MaxPool2d, nn.MaxPool3d)),
    "avg": PoolingMethod((nn.AvgPool1d, nn.AvgPool2d, nn.AvgPool3d)),
    "sum": PoolingMethod((pooling.SumPool1d, pooling.SumPool2d, pooling.SumPool3d)),
    "power": PoolingMethod(
        (pooling.PowerAvgPool1d, pooling.PowerAvgPool2d, pooling.PowerAvgPool3d)
    ),
    "lp": PoolingMethod(
        (pooling.LearnedNormPool1d, pooling.LearnedNormPool2d, pooling.LearnedNormPool3d),
        "optional",
    ),
    "gated": PoolingMethod(
        (pooling.GatedPool1d, pooling.GatedPool2d, pooling.GatedPool3d), "optional"
    ),
    "dpp": PoolingMethod(
        (
            pooling.DetailPreservingPool1d,
            pooling.DetailPreservingPool2d,
            pooling.DetailPreservingPool3d,
        ),
        "needed",
    ),
    "lip": PoolingMethod(
        (
            pooling.LocalImportancePool1d,
            pooling.LocalImportancePool2d,
            pooling.LocalImportancePool3d,
        ),
        "needed",
    ),
    "stochastic": PoolingMethod(
        (pooling.StochasticPool1d, pooling.StochasticPool2d, pooling.StochasticPool3d)
    ),
    "s3": PoolingMethod((pooling.S3Pool1d, pooling.S3Pool2d, pooling.S3Pool3d)),
    "ordinal": PoolingMethod(
        (pooling.OrdinalPool1d, pooling.OrdinalPool2d, pooling.OrdinalPool3d), "needed"
    ),
    "lift": PoolingMethod((pooling.LiftPool1d, pooling.LiftPool2d, pooling.LiftPool3d), "needed"),
}
"""Pooling methods by the short names that `swap_pooling` accepts."""


def pooled_dimensions(layer: nn.Module) -> int:
    """Return the number of dimensions that a registered layer pools; 0 for other modules."""
    for method in POOLING_METHODS.values():
        for ndim, cls in enumerate(method.layers, start=1):
            if isinstance(layer, cls):
                return ndim
    return 0


def overrides_forward(layer: nn.Module) -> bool:
    """Return whether the layer's class overrides `forward` of the pooling layer that it extends."""
    return all(
        type(layer).forward is not cls.forward
        for method in POOLING_METHODS.values()
        for cls in method.layers
    )
