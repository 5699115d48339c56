"""Pooling layers, and the exchange of a model's pooling layers."""

from vidpool.nn.softpool import SoftPool1d, SoftPool2d, SoftPool3d
from vidpool.nn.swap import Swap, swap_pooling

__all__ = ["SoftPool1d", "SoftPool2d", "SoftPool3d", "Swap", "swap_pooling"]
