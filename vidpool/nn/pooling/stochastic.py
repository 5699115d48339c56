"""Stochastic pooling: one of a window's values, drawn with the values as probabilities."""

from __future__ import annotations

import torch
from torch import Tensor

from vidpool.nn.pooling.base import RandomPool
from vidpool.nn.pooling.windows import Windows


class _StochasticPool(RandomPool):
    """Draws a cell of each window with probability proportional to its value."""

    def _pool(
        self, x: Tensor, windows: Windows, generator: torch.Generator | None = None
    ) -> Tensor:
        # Only ratios count; divided by the maximum, no sum or square overflows.
        peak = windows.maximum(x.detach())
        positive = peak > 0
        scale = torch.where(positive, peak, 1)
        padded, inside = windows.pad(x, 0), windows.inside(x)
        cells = list(zip(windows.cells(padded), windows.cells(inside), strict=True))

        def weight(cell: Tensor, is_inside: Tensor) -> Tensor:
            return torch.where(positive, cell.relu() / scale, is_inside)

        total = torch.zeros_like(scale)
        for cell, is_inside in cells:
            total = total + weight(cell, is_inside)
        if not self.training:
            # out = sum_i p_i a_i, of which p_i a_i / scale is at most 1
            out = torch.zeros_like(scale)
            for cell, is_inside in cells:
                out = out + weight(cell, is_inside) * (cell / scale)
            return scale * out / torch.where(total > 0, total, 1)
        total = total.detach()
        draw = torch.rand(total.shape, dtype=total.dtype, device=total.device, generator=generator)
        # summed in the same order again, so that the last cell's sum is the total to the last bit
        target, passed, out = draw * total, torch.zeros_like(total), torch.zeros_like(total)
        for cell, is_inside in cells:
            reached = passed + weight(cell, is_inside).detach()
            out = torch.where((passed <= target) & (target < reached), cell, out)
            passed = reached
        return out


class StochasticPool1d(_StochasticPool):
    """Stochastic pooling over T of (N, C, T) or (C, T); see :class:`StochasticPool3d`."""

    ndim = 1


class StochasticPool2d(_StochasticPool):
    """Stochastic pooling over H, W of (N, C, H, W) or (C, H, W); see :class:`StochasticPool3d`."""

    ndim = 2


class StochasticPool3d(_StochasticPool):
    """Stochastic pooling over T, H, W of (N, C, T, H, W) or (C, T, H, W).

    While training, one of a window's values, drawn with `p_i = a_i / sum_j a_j`; in evaluation
    the expectation `sum_i p_i a_i`. Zeiler and Fergus, "Stochastic pooling for regularization of
    deep convolutional neural networks", ICLR 2013, equations 4 to 6.

    The source pools what a ReLU gives. Negative values, which have no probability there, are
    drawn from, all with the same one, only where a window has no positive value.

    Arguments are those of `PoolLayer`.
    """

    ndim = 3
