"""SoftPool layers, drop-in replacements for PyTorch's max pooling layers."""

from __future__ import annotations

from typing import ClassVar

from torch import Tensor

from vidpool.nn.pooling.base import PoolLayer, Size, is_traced_part, record_as_leaf
from vidpool.ops import Gradient
from vidpool.ops.operator import soft_pool
from vidpool.ops.reference import check_gradient


class _SoftPoolNd(PoolLayer):
    """SoftPool over any number of dimensions.

    Averages each window with the softmax of its own values as weights
    (:func:`vidpool.ops.soft_pool3d`). A drop-in replacement for max pooling, such as
    :class:`torch.nn.MaxPool3d`, with the same arguments in the same order and the same output
    sizes. The layer has no parameters.

    Args:
        gradient: `"exact"` for the derivative, or `"paper"` for the gradient of the paper's
            section 3.2; see :func:`vidpool.ops.soft_pool3d`, which also lists the exceptions of
            the forward pass.

    Raises:
        ConfigError: If `gradient` is unknown.
    """

    _repr_names: ClassVar[tuple[str, ...]] = ("gradient",)

    def __init__(
        self,
        kernel_size: Size,
        stride: Size | None = None,
        padding: Size = 0,
        dilation: Size = 1,
        return_indices: bool = False,
        ceil_mode: bool = False,
        *,
        gradient: Gradient = "exact",
    ) -> None:
        super().__init__(kernel_size, stride, padding, dilation, return_indices, ceil_mode)
        check_gradient(gradient)
        self.gradient = gradient

    def forward(self, x: Tensor) -> Tensor:
        """Pool x, whose shape the class documents, and return the same dtype."""
        if is_traced_part(self, x):
            recorded: Tensor = record_as_leaf(self, x)
            return recorded
        return soft_pool(x, self._window(), self.gradient)


class SoftPool1d(_SoftPoolNd):
    """SoftPool over T of (N, C, T) or (C, T).

    Examples:
        >>> import torch
        >>> from vidpool.nn import SoftPool1d
        >>> pool = SoftPool1d(3, stride=2, padding=1)
        >>> pool(torch.rand(2, 8, 16)).shape
        torch.Size([2, 8, 8])
    """

    ndim = 1


class SoftPool2d(_SoftPoolNd):
    """SoftPool over H, W of (N, C, H, W) or (C, H, W).

    Examples:
        >>> import torch
        >>> from vidpool.nn import SoftPool2d
        >>> pool = SoftPool2d(3, stride=2, padding=1)
        >>> pool(torch.rand(2, 8, 32, 32)).shape
        torch.Size([2, 8, 16, 16])
    """

    ndim = 2


class SoftPool3d(_SoftPoolNd):
    """SoftPool over T, H, W of (N, C, T, H, W) or (C, T, H, W).

    Examples:
        >>> import torch
        >>> from vidpool.nn import SoftPool3d
        >>> pool = SoftPool3d(3, stride=2, padding=1)
        >>> pool(torch.rand(2, 8, 16, 32, 32)).shape
        torch.Size([2, 8, 8, 16, 16])
    """

    ndim = 3
