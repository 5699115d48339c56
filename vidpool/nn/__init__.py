"""Pooling layers, `swap_pooling` for existing models, and sub-batch norm."""

from vidpool.nn import pooling
from vidpool.nn.adaptive import AdaptiveSoftPool1d, AdaptiveSoftPool2d, AdaptiveSoftPool3d
from vidpool.nn.pooling import *  # noqa: F403 - it defines __all__
from vidpool.nn.registry import POOLING_METHODS, PoolingMethod, register_pooling
from vidpool.nn.softpool import SoftPool1d, SoftPool2d, SoftPool3d
from vidpool.nn.sub_batch_norm import SubBatchNorm, split_batch_norm
from vidpool.nn.swap import Swap, swap_pooling

__all__ = [
    "POOLING_METHODS",
    "AdaptiveSoftPool1d",
    "AdaptiveSoftPool2d",
    "AdaptiveSoftPool3d",
    "PoolingMethod",
    "SoftPool1d",
    "SoftPool2d",
    "SoftPool3d",
    "SubBatchNorm",
    "Swap",
    "register_pooling",
    "split_batch_norm",
    "swap_pooling",
    *pooling.__all__,
]
