"""The one table of pooling methods."""

from __future__ import annotations

from typing import Literal, NamedTuple

from torch import nn

from vidpool.nn import pooling
from vidpool.nn.softpool import SoftPool1d, SoftPool2d, SoftPool3d


class Kind(NamedTuple):
    """A pooling method."""

    layers: tuple[type[nn.Module], type[nn.Module], type[nn.Module]]
    """For one, two and three pooled dimensions."""
    channels: Literal["none", "optional", "needed"] = "none"
    """Whether the layers take `channels`, the number that they learn parameters for."""


KINDS = {
    "soft": Kind((SoftPool1d, SoftPool2d, SoftPool3d)),
    "max": Kind((nn.MaxPool1d, nn.MaxPool2d, nn.MaxPool3d)),
    "avg": Kind((nn.AvgPool1d, nn.AvgPool2d, nn.AvgPool3d)),
    "sum": Kind((pooling.SumPool1d, pooling.SumPool2d, pooling.SumPool3d)),
    "power": Kind((pooling.PowerAvgPool1d, pooling.PowerAvgPool2d, pooling.PowerAvgPool3d)),
    "lp": Kind((pooling.LpPool1d, pooling.LpPool2d, pooling.LpPool3d), "optional"),
    "gated": Kind((pooling.GatedPool1d, pooling.GatedPool2d, pooling.GatedPool3d), "optional"),
    "dpp": Kind(
        (
            pooling.DetailPreservingPool1d,
            pooling.DetailPreservingPool2d,
            pooling.DetailPreservingPool3d,
        ),
        "needed",
    ),
    "lip": Kind(
        (
            pooling.LocalImportancePool1d,
            pooling.LocalImportancePool2d,
            pooling.LocalImportancePool3d,
        ),
        "needed",
    ),
    "stochastic": Kind(
        (pooling.StochasticPool1d, pooling.StochasticPool2d, pooling.StochasticPool3d)
    ),
    "s3": Kind((pooling.S3Pool1d, pooling.S3Pool2d, pooling.S3Pool3d)),
    "ordinal": Kind(
        (pooling.OrdinalPool1d, pooling.OrdinalPool2d, pooling.OrdinalPool3d), "needed"
    ),
    "lift": Kind((pooling.LiftPool1d, pooling.LiftPool2d, pooling.LiftPool3d), "needed"),
}
"""Pooling methods by the short names that `swap_pooling` takes."""


def pooled_dimensions(layer: nn.Module) -> int:
    """Number of dimensions that a layer of a known kind pools; 0 for other modules."""
    for kind in KINDS.values():
        for ndim, cls in enumerate(kind.layers, start=1):
            if isinstance(layer, cls):
                return ndim
    return 0


def has_own_forward(layer: nn.Module) -> bool:
    """Whether a pooling layer's class computes something else than its kind does."""
    return all(
        type(layer).forward is not cls.forward for kind in KINDS.values() for cls in kind.layers
    )
