"""Gated max-average pooling."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor, nn

from vidpool.nn.pooling.base import Size, WindowPool
from vidpool.nn.pooling.windows import Windows, per_channel


class _GatedPool(WindowPool):
    """Mixture of maximum and average by a gate that sees the window."""

    _shown: ClassVar[tuple[str, ...]] = ("channels",)

    def __init__(
        self,
        kernel_size: Size,
        stride: Size | None = None,
        padding: Size = 0,
        dilation: Size = 1,
        *,
        ceil_mode: bool = False,
        channels: int | None = None,
    ) -> None:
        super().__init__(kernel_size, stride, padding, dilation, ceil_mode=ceil_mode)
        self._learn_for(channels)
        # at 0 the gate stands at 1/2, and every entry has a gradient
        self.mask = nn.Parameter(torch.zeros(channels or 1, *self._window().kernel_size))

    def _pool(self, x: Tensor, windows: Windows) -> Tensor:
        average = windows.mean(x)
        gate = torch.zeros_like(average)
        weights = self.mask.flatten(1).unbind(1)
        for cell, weight in zip(windows.cells(windows.pad(x, 0)), weights, strict=True):
            gate = gate + cell * per_channel(weight, x)
        maximum = windows.maximum(x)
        # a window of padding alone, which dilation can make, is 0 and not -inf
        maximum = torch.where(maximum.isneginf(), average, maximum)
        return torch.lerp(average, maximum, gate.sigmoid())


class GatedPool1d(_GatedPool):
    """Gated pooling over T of (N, C, T) or (C, T); see :class:`GatedPool3d`."""

    ndim = 1


class GatedPool2d(_GatedPool):
    """Gated pooling over H, W of (N, C, H, W) or (C, H, W); see :class:`GatedPool3d`."""

    ndim = 2


class GatedPool3d(_GatedPool):
    """Gated max-average pooling over T, H, W of (N, C, T, H, W) or (C, T, H, W).

    `g max(a) + (1 - g) mean(a)` with `g = sigmoid(w . a)`, where the gating mask w has the
    window's shape: Lee, Gallagher and Tu, "Generalizing pooling functions in convolutional neural
    networks: mixed, gated, and tree", AISTATS 2016, section 3.1. Padding meets the mask as 0.

    Arguments are those of `PoolLayer` and:

    Args:
        channels: C, for a mask a channel; None learns one mask for the layer.
    """

    ndim = 3
