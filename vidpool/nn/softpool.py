"""SoftPool layers with the arguments of PyTorch's max pooling layers."""

from __future__ import annotations

from typing import ClassVar

from torch import Tensor

from vidpool.nn.pooling.base import PoolLayer, Size
from vidpool.ops import Gradient
from vidpool.ops.operator import soft_pool
from vidpool.ops.reference import check_gradient


class _SoftPoolNd(PoolLayer):
    """What the layers share; they differ in the number of dimensions."""

    _shown: ClassVar[tuple[str, ...]] = ("gradient",)

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
        """Pool x, of the shapes that the class names; the dtype stays."""
        return soft_pool(x, self._window(), self.gradient)


class SoftPool1d(_SoftPoolNd):
    """SoftPool over T of (N, C, T) or (C, T); arguments as for :class:`SoftPool3d`."""

    ndim = 1


class SoftPool2d(_SoftPoolNd):
    """SoftPool over H, W of (N, C, H, W) or (C, H, W); arguments as for :class:`SoftPool3d`."""

    ndim = 2


class SoftPool3d(_SoftPoolNd):
    """SoftPool over T, H, W of (N, C, T, H, W) or (C, T, H, W).

    Takes the place of :class:`torch.nn.MaxPool3d`: same arguments, output sizes and (no) state.

    Args:
        kernel_size: Cells of a window; an int or one a dimension, like the next three.
        stride: Step from one window to the next; None means `kernel_size`.
        padding: Cells added on both sides, which weigh nothing; at most half of `kernel_size`.
        dilation: Step from one cell of a window to the next.
        ceil_mode: Round the output size up instead of down.
        gradient: "exact" or "paper"; see :func:`vidpool.ops.soft_pool3d`, which also says what a
            forward pass raises.

    Raises:
        TypeError: If a size is neither an int nor a sequence of ints.
        RuntimeError: If a size is out of range.
        ValueError: If `gradient` is unknown.
    """

    ndim = 3
