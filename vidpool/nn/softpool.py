"""SoftPool layers, drop-in replacements for PyTorch's max pooling layers."""

from __future__ import annotations

from typing import ClassVar

from torch import Tensor

from vidpool.nn.pooling.base import PoolLayer, Size
from vidpool.ops import Gradient
from vidpool.ops.operator import soft_pool
from vidpool.ops.reference import check_gradient


class _SoftPoolNd(PoolLayer):
    """SoftPool over any number of dimensions."""

    _repr_names: ClassVar[tuple[str, ...]] = ("gradient",)

    def __init__(
        self,
        kernel_size: Size,
        stride: Size | None = None,
        padding: Size = 0,
        dilation: Size = 1,
        *,
        ceil_mode: bool = False,
        gradient: Gradient = "exact",
    ) -> None:
        super().__init__(kernel_size, stride, padding, dilation, ceil_mode=ceil_mode)
        check_gradient(gradient)
        self.gradient = gradient

    def forward(self, x: Tensor) -> Tensor:
        """Pool x, whose shape the class documents, and return the same dtype."""
        return soft_pool(x, self._window(), self.gradient)


class SoftPool1d(_SoftPoolNd):
    """SoftPool over T of (N, C, T) or (C, T); arguments as for :class:`SoftPool3d`."""

    ndim = 1


class SoftPool2d(_SoftPoolNd):
    """SoftPool over H, W of (N, C, H, W) or (C, H, W); arguments as for :class:`SoftPool3d`."""

    ndim = 2


class SoftPool3d(_SoftPoolNd):
    """SoftPool over T, H, W of (N, C, T, H, W) or (C, T, H, W).

    A drop-in replacement for :class:`torch.nn.MaxPool3d` with the same arguments and output sizes;
    it has no state.

    Args:
        kernel_size: Size of the window; an int or one int per dimension, like the next three.
        stride: Stride of the window; defaults to `kernel_size`.
        padding: Number of cells added on both sides, which have no weight; at most half of
            `kernel_size`.
        dilation: Distance between neighboring cells of a window.
        ceil_mode: Round the output size up instead of down.
        gradient: `"exact"` or `"paper"`; see :func:`vidpool.ops.soft_pool3d`, which also lists the
            exceptions of the forward pass.

    Raises:
        TypeError: If a size is neither an int nor a sequence of ints.
        RuntimeError: If a size is out of range.
        ValueError: If `gradient` is unknown.
    """

    ndim = 3
