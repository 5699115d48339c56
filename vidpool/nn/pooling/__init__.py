"""The pooling methods that the SoftPool paper compares (Tables 1, 3 and 5), by family."""

from vidpool.nn.pooling.detail import (
    DetailPreservingPool1d,
    DetailPreservingPool2d,
    DetailPreservingPool3d,
)
from vidpool.nn.pooling.lift import LiftPool1d, LiftPool2d, LiftPool3d
from vidpool.nn.pooling.norms import (
    LearnedNormPool1d,
    LearnedNormPool2d,
    LearnedNormPool3d,
    PowerAvgPool1d,
    PowerAvgPool2d,
    PowerAvgPool3d,
    SumPool1d,
    SumPool2d,
    SumPool3d,
)
from vidpool.nn.pooling.stochastic import (
    S3Pool1d,
    S3Pool2d,
    S3Pool3d,
    StochasticPool1d,
    StochasticPool2d,
    StochasticPool3d,
)
from vidpool.nn.pooling.weighted import (
    GatedPool1d,
    GatedPool2d,
    GatedPool3d,
    LocalImportancePool1d,
    LocalImportancePool2d,
    LocalImportancePool3d,
    OrdinalPool1d,
    OrdinalPool2d,
    OrdinalPool3d,
)

__all__ = [
    "DetailPreservingPool1d",
    "DetailPreservingPool2d",
    "DetailPreservingPool3d",
    "GatedPool1d",
    "GatedPool2d",
    "GatedPool3d",
    "LearnedNormPool1d",
    "LearnedNormPool2d",
    "LearnedNormPool3d",
    "LiftPool1d",
    "LiftPool2d",
    "LiftPool3d",
    "LocalImportancePool1d",
    "LocalImportancePool2d",
    "LocalImportancePool3d",
    "OrdinalPool1d",
    "OrdinalPool2d",
    "OrdinalPool3d",
    "PowerAvgPool1d",
    "PowerAvgPool2d",
    "PowerAvgPool3d",
    "S3Pool1d",
    "S3Pool2d",
    "S3Pool3d",
    "StochasticPool1d",
    "StochasticPool2d",
    "StochasticPool3d",
    "SumPool1d",
    "SumPool2d",
    "SumPool3d",
]
