"""Ordinal pooling: weights by rank."""

from __future__ import annotations

from math import prod
from typing import ClassVar

import torch
from torch import Tensor, nn

from vidpool.nn.pooling.base import Size, WindowPool
from vidpool.nn.pooling.windows import Windows


class _OrdinalPool(WindowPool):
    """Average whose weights belong to ranks."""

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
    ) -> None:
        super().__init__(kernel_size, stride, padding, dilation, ceil_mode=ceil_mode)
        self._learn_for(channels)
        self.logits = nn.Parameter(torch.zeros(channels, prod(self._window().kernel_size)))

    def _pool(self, x: Tensor, windows: Windows) -> Tensor:
        # unlike elsewhere, a window's cells are copied side by side, to be sorted
        cells = torch.stack(list(windows.cells(windows.pad(x, float("-inf")))), -1)
        inside = torch.stack(list(windows.cells(windows.inside(x))), -1).sum(-1, keepdim=True)
        # Padding ranks last, so a window with n cells inside has the first n weights.
        ranked = cells.sort(-1, descending=True).values
        absent = torch.arange(ranked.shape[-1], device=x.device) >= inside
        logits = self.logits.to(x.dtype).view(x.shape[1], *(1,) * self.ndim, -1)
        # one weight is left where no value is: softmax of nothing has no derivative
        masked = torch.arange(ranked.shape[-1], device=x.device) >= inside.clamp_min(1)
        weights = logits.masked_fill(masked, float("-inf")).softmax(-1)
        return (weights * ranked.masked_fill(absent, 0)).sum(-1)


class OrdinalPool1d(_OrdinalPool):
    """Ordinal pooling over T of (N, C, T) or (C, T); see :class:`OrdinalPool3d`."""

    ndim = 1


class OrdinalPool2d(_OrdinalPool):
    """Ordinal pooling over H, W of (N, C, H, W) or (C, H, W); see :class:`OrdinalPool3d`."""

    ndim = 2


class OrdinalPool3d(_OrdinalPool):
    """Ordinal pooling over T, H, W of (N, C, T, H, W) or (C, T, H, W).

    A window's values are sorted and averaged with a learned weight for every rank and channel:
    Kumar, "Ordinal pooling networks: for preserving information over shrinking feature maps",
    2018; Deliège, Istasse, Kumar, De Vleeschouwer and Van Droogenbroeck, "Ordinal pooling",
    BMVC 2019. The weights are positive and sum to 1, here as the softmax of parameters that
    begin at 0, so the layer begins as average pooling and reaches max pooling. In windows that
    reach into the padding, the weights of the ranks that are left are scaled to sum to 1.

    Arguments are those of `PoolLayer` and:

    Args:
        channels: C.
    """

    ndim = 3
