"""Local importance-based pooling."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from vidpool.nn.pooling.base import CONVOLUTIONS, Size, WindowPool, check_odd
from vidpool.nn.pooling.windows import Windows, in_single_precision, per_channel

_LARGEST_LOGIT = 12.0
"""The source's bound of the logits: e^12 still leaves room for sums in float16."""


class _LocalImportancePool(WindowPool):
    """Average with weights from a small network."""

    _shown: ClassVar[tuple[str, ...]] = ("channels",)

    def __init__(
        self,
        kernel_size: Size,
        stride: Size | None = None,
        padding: Size = 0,
        dilation: Size = 1,
        *,
        ceil_mode: bool = False,
        channels: int,
        logit_kernel: int = 3,
    ) -> None:
        super().__init__(kernel_size, stride, padding, dilation, ceil_mode=ceil_mode)
        self._learn_for(channels)
        check_odd("logit_kernel", logit_kernel)
        self.conv = CONVOLUTIONS[self.ndim - 1](
            channels, channels, logit_kernel, padding=logit_kernel // 2, bias=False
        )
        # as in the source: the layer begins as average pooling
        nn.init.zeros_(self.conv.weight)
        self.scale = nn.Parameter(torch.ones(channels))
        self.shift = nn.Parameter(torch.zeros(channels))

    def _pool(self, x: Tensor, windows: Windows) -> Tensor:
        logits = in_single_precision(self.conv(x.to(self.conv.weight.dtype))).to(x.dtype)
        # Instance normalisation; nn.InstanceNorm refuses the single cell that small clips end in.
        logits = F.layer_norm(logits, logits.shape[2:])
        logits = logits * per_channel(self.scale, x) + per_channel(self.shift, x)
        weight = (_LARGEST_LOGIT * logits.sigmoid()).exp()  # from 1 to e^12: the sums stay finite
        total = windows.total(weight)
        # unlike a clamp at 1, this keeps the gradient where the total is 1; it is 0 or at least 1
        return windows.total(weight * x) / F.threshold(total, 0.5, 1.0)


class LocalImportancePool1d(_LocalImportancePool):
    """LIP over T of (N, C, T) or (C, T); see :class:`LocalImportancePool3d`."""

    ndim = 1


class LocalImportancePool2d(_LocalImportancePool):
    """LIP over H, W of (N, C, H, W) or (C, H, W); see :class:`LocalImportancePool3d`."""

    ndim = 2


class LocalImportancePool3d(_LocalImportancePool):
    """Local importance-based pooling over T, H, W of (N, C, T, H, W) or (C, T, H, W).

    An average with the weights `e^G(x)`, where G is a convolution, an affine instance
    normalisation and `12 sigmoid`: Gao, Wang and Wu, "LIP: local importance-based pooling",
    ICCV 2019, section 3, in the simplified form that stands for a network's max pooling there.

    Arguments are those of `PoolLayer` and:

    Args:
        channels: C.
        logit_kernel: Odd size of G's convolution on every pooled axis, which has
            C^2 logit_kernel^3 weights; 1 is the source's "projection".

    Raises:
        ConfigError: If `logit_kernel` is even or below 1.
    """

    ndim = 3
