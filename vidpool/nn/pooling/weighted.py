"""Pooling with learned weights: gated, local importance-based and ordinal pooling."""

from __future__ import annotations

from math import prod
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from vidpool.nn.pooling.base import (
    CONVOLUTIONS,
    Size,
    WindowPool,
    Windows,
    check_odd,
    in_single_precision,
    per_channel,
)


class _GatedPool(WindowPool):
    """Mixture of maximum and average with a gate computed from the window.

    Gated max-average pooling: `g max(a) + (1 - g) mean(a)` with `g = sigmoid(w . a)`, where the
    gating mask w has the shape of the window. Lee, Gallagher and Tu, "Generalizing pooling
    functions in convolutional neural networks: mixed, gated, and tree", AISTATS 2016, section 3.1.
    Padding counts as 0 in the gate.

    Args:
        channels: C, to learn one mask per channel; None learns one mask for the layer.
    """

    _repr_names: ClassVar[tuple[str, ...]] = ("channels",)

    def __init__(
        self,
        kernel_size: Size,
        stride: Size | None = None,
        padding: Size = 0,
        dilation: Size = 1,
        return_indices: bool = False,
        ceil_mode: bool = False,
        *,
        channels: int | None = None,
    ) -> None:
        super().__init__(kernel_size, stride, padding, dilation, return_indices, ceil_mode)
        self._set_channels(channels)
        # a mask of 0 gives a gate of 1/2 and a gradient for every entry
        self.mask = nn.Parameter(torch.zeros(channels or 1, *self._window().kernel_size))

    def _pool(self, x: Tensor, windows: Windows) -> Tensor:
        average = windows.mean(x)
        gate = torch.zeros_like(average)
        weights = self.mask.flatten(1).unbind(1)
        for cell, weight in zip(windows.cells(windows.pad(x, 0)), weights, strict=True):
            gate = gate + cell * per_channel(weight, x)
        maximum = windows.maximum(x)
        # dilation allows windows of padding only, which give 0 instead of -inf
        maximum = torch.where(maximum.isneginf(), average, maximum)
        return torch.lerp(average, maximum, gate.sigmoid())


class GatedPool1d(_GatedPool):
    """Gated pooling over T of (N, C, T) or (C, T)."""

    ndim = 1


class GatedPool2d(_GatedPool):
    """Gated pooling over H, W of (N, C, H, W) or (C, H, W)."""

    ndim = 2


class GatedPool3d(_GatedPool):
    """Gated pooling over T, H, W of (N, C, T, H, W) or (C, T, H, W)."""

    ndim = 3


_LARGEST_LOGIT = 12.0
"""Bound of the logits in the paper: e^12 still leaves room for sums in float16."""


class _LocalImportancePool(WindowPool):
    """Average with weights computed by a small network.

    An average with the weights `e^G(x)`, where G is a convolution, an affine instance
    normalisation and `12 sigmoid`: Gao, Wang and Wu, "LIP: local importance-based pooling",
    ICCV 2019, section 3, in the simplified form that replaces a network's max pooling there.

    Args:
        channels: C.
        logit_kernel: Size of G's convolution along every pooled axis, odd; the convolution has
            C^2 logit_kernel^3 weights, and 1 is the paper's "projection".

    Raises:
        ConfigError: If `logit_kernel` is even or below 1.
    """

    _repr_names: ClassVar[tuple[str, ...]] = ("channels",)

    def __init__(
        self,
        kernel_size: Size,
        stride: Size | None = None,
        padding: Size = 0,
        dilation: Size = 1,
        return_indices: bool = False,
        ceil_mode: bool = False,
        *,
        channels: int,
        logit_kernel: int = 3,
    ) -> None:
        super().__init__(kernel_size, stride, padding, dilation, return_indices, ceil_mode)
        self._set_channels(channels)
        check_odd("logit_kernel", logit_kernel)
        self.conv = CONVOLUTIONS[self.ndim - 1](
            channels, channels, logit_kernel, padding=logit_kernel // 2, bias=False
        )
        # as in the paper, the layer starts as average pooling
        nn.init.zeros_(self.conv.weight)
        self.scale = nn.Parameter(torch.ones(channels))
        self.shift = nn.Parameter(torch.zeros(channels))

    def _pool(self, x: Tensor, windows: Windows) -> Tensor:
        logits = in_single_precision(self.conv(x.to(self.conv.weight.dtype))).to(x.dtype)
        # Instance normalization; nn.InstanceNorm refuses maps of one cell, as in small clips.
        logits = F.layer_norm(logits, logits.shape[2:])
        logits = logits * per_channel(self.scale, x) + per_channel(self.shift, x)
        weight = (_LARGEST_LOGIT * logits.sigmoid()).exp()  # from 1 to e^12: the sums stay finite
        total = windows.total(weight)
        # unlike a clamp at 1, this keeps the gradient where the total is 1; it is 0 or at least 1
        return windows.total(weight * x) / F.threshold(total, 0.5, 1.0)


class LocalImportancePool1d(_LocalImportancePool):
    """Local importance-based pooling over T of (N, C, T) or (C, T)."""

    ndim = 1


class LocalImportancePool2d(_LocalImportancePool):
    """Local importance-based pooling over H, W of (N, C, H, W) or (C, H, W)."""

    ndim = 2


class LocalImportancePool3d(_LocalImportancePool):
    """Local importance-based pooling over T, H, W of (N, C, T, H, W) or (C, T, H, W)."""

    ndim = 3


class _OrdinalPool(WindowPool):
    """Average with one weight per rank.

    A window's values are sorted and averaged with a learned weight for every rank and channel:
    Kumar, "Ordinal pooling networks: for preserving information over shrinking feature maps",
    2018; Deliège, Istasse, Kumar, De Vleeschouwer and Van Droogenbroeck, "Ordinal pooling",
    BMVC 2019. The weights are positive and sum to 1: they are the softmax of parameters that
    start at 0, so the layer starts as average pooling and can become max pooling. In windows that
    contain padding, the weights of the remaining ranks are scaled to sum to 1.

    Args:
        channels: C.
    """

    _repr_names: ClassVar[tuple[str, ...]] = ("channels",)

    def __init__(
        self,
        kernel_size: Size,
        stride: Size | None = None,
        padding: Size = 0,
        dilation: Size = 1,
        return_indices: bool = False,
        ceil_mode: bool = False,
        *,
        channels: int,
    ) -> None:
        super().__init__(kernel_size, stride, padding, dilation, return_indices, ceil_mode)
        self._set_channels(channels)
        self.logits = nn.Parameter(torch.zeros(channels, prod(self._window().kernel_size)))

    def _pool(self, x: Tensor, windows: Windows) -> Tensor:
        # the cells of a window are copied next to each other to be sorted
        cells = torch.stack(list(windows.cells(windows.pad(x, float("-inf")))), -1)
        inside = torch.stack(list(windows.cells(windows.inside(x))), -1).sum(-1, keepdim=True)
        # Padding ranks last, so a window with n cells inside uses the first n weights.
        ranked = cells.sort(-1, descending=True).values
        absent = torch.arange(ranked.shape[-1], device=x.device) >= inside
        logits = self.logits.to(x.dtype).view(x.shape[1], *(1,) * self.ndim, -1)
        # a window without values keeps one weight: softmax of nothing has no derivative
        masked = torch.arange(ranked.shape[-1], device=x.device) >= inside.clamp_min(1)
        weights = logits.masked_fill(masked, float("-inf")).softmax(-1)
        return (weights * ranked.masked_fill(absent, 0)).sum(-1)


class OrdinalPool1d(_OrdinalPool):
    """Ordinal pooling over T of (N, C, T) or (C, T)."""

    ndim = 1


class OrdinalPool2d(_OrdinalPool):
    """Ordinal pooling over H, W of (N, C, H, W) or (C, H, W)."""

    ndim = 2


class OrdinalPool3d(_OrdinalPool):
    """Ordinal pooling over T, H, W of (N, C, T, H, W) or (C, T, H, W)."""

    ndim = 3
