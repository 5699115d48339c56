"""Pooling layers, and the exchange of a model's pooling layers."""

from vidpool.nn import pooling
from vidpool.nn.kinds import KINDS, Kind
from vidpool.nn.pooling import *  # noqa: F403 - the list is there
from vidpool.nn.softpool import SoftPool1d, SoftPool2d, SoftPool3d
from vidpool.nn.swap import Swap, swap_pooling

__all__ = [
    "KINDS",
    "Kind",
    "SoftPool1d",
    "SoftPool2d",
    "SoftPool3d",
    "Swap",
    "swap_pooling",
    *pooling.__all__,
]
