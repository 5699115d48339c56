"""SoftPool layers with the arguments of PyTorch's max pooling layers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import ClassVar

from torch import Tensor

from vidpool.nn.pooling.base import PoolLayer
from vidpool.ops import Gradient, soft_pool1d, soft_pool2d, soft_pool3d
from vidpool.ops.reference import check_gradient


class _SoftPoolNd(PoolLayer):
    """What the layers share; they differ in the function that they call."""

    _pool: ClassVar[Callable[..., Tensor]]
    _shown: ClassVar[tuple[str, ...]] = ("gradient",)

    def __init__(
        self,
        kernel_size: int | Sequence[int],
        stride: int | Sequence[int] | None = None,
        padding: int | Sequence[int] = 0,
        dilation: int | Sequence[int] = 1,
        *,
        ceil_mode: bool = False,
        gradient: Gradient = "exact",
    ) -> None:
        super().__init__(kernel_size, stride, padding, dilation, ceil_mode=ceil_mode)
        check_gradient(gradient)
        self.gradient = gradient

    def forward(self, x: Tensor) -> Tensor:
        """Pool x, of the shapes that the class names; the dtype stays."""
        return self._pool(
            x,
            self.kernel_size,
            self.stride,
            self.padding,
            self.dilation,
            self.ceil_mode,
            self.gradient,
        )


class SoftPool1d(_SoftPoolNd):
    """SoftPool over T of (N, C, T) or (C, T); arguments as for :class:`SoftPool3d`."""

    _pool = staticmethod(soft_pool1d)


class SoftPool2d(_SoftPoolNd):
    """SoftPool over H, W of (N, C, H, W) or (C, H, W); arguments as for :class:`SoftPool3d`."""

    _pool = staticmethod(soft_pool2d)


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
    """

    _pool = staticmethod(soft_pool3d)
