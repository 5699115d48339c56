"""The windows of one input: what the pooling layers read of it, cell by cell."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import product
from types import EllipsisType
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from vidpool.ops.geometry import Window

_MAX_POOL = (F.max_pool1d, F.max_pool2d, F.max_pool3d)


class Windows(NamedTuple):
    """A window, and how many of it there are on each pooled axis of an input.

    Tensors are (N, C, *sizes) before and (N, C, *counts) after pooling. Windows are read by
    strided views, one a cell, so nothing grows with the number of cells but what autograd keeps.
    """

    window: Window
    counts: tuple[int, ...]

    @classmethod
    def of(cls, window: Window, size: Sequence[int]) -> Windows:
        """Return the windows that max pooling has on an input of these pooled sizes.

        Raises:
            RuntimeError: If there is no room for one window.
        """
        return cls(window, window.output_size(size))

    def dense(self, size: Sequence[int]) -> Windows:
        """Return the same windows at stride 1, up to the end of the padding or the last window."""
        counts = tuple(
            max(length + 2 * padding - extent + 1, (count - 1) * stride + 1)
            for length, padding, extent, count, stride in zip(
                size,
                self.window.padding,
                self.window.extent,
                self.counts,
                self.window.stride,
                strict=True,
            )
        )
        return Windows(self.window._replace(stride=(1,) * len(counts)), counts)

    def pad(self, x: Tensor, value: float) -> Tensor:
        """Pad x with a value, or crop it at the end, to exactly what the windows read."""
        return self.window.pad(x, self.counts, value)

    def cells(self, padded: Tensor) -> Iterator[Tensor]:
        """Give the first cell of every window as (N, C, *counts), the second, and so on.

        Args:
            padded: What :meth:`pad` returns.
        """
        axes: list[list[slice]] = [
            [
                slice(cell * dilation, cell * dilation + (count - 1) * stride + 1, stride)
                for cell in range(kernel)
            ]
            for kernel, dilation, count, stride in zip(
                self.window.kernel_size,
                self.window.dilation,
                self.counts,
                self.window.stride,
                strict=True,
            )
        ]
        for place in product(*axes):
            index: tuple[slice | EllipsisType, ...] = (..., *place)
            yield padded[index]

    def total(self, x: Tensor) -> Tensor:
        """Sum over each window, axis by axis; padding adds 0."""
        out = self.pad(x, 0)
        for axis in range(len(self.counts)):
            out = self.window.cut(out, axis).sum(-1)
        return out

    def maximum(self, x: Tensor) -> Tensor:
        """Maximum of each window; -inf for one of nothing but padding."""
        pool = _MAX_POOL[len(self.counts) - 1]
        # padded here, as max pooling's own padding does not reach as far as `dense` does
        padded = self.pad(x, float("-inf"))
        return pool(padded, self.window.kernel_size, self.window.stride, 0, self.window.dilation)

    def inside(self, x: Tensor) -> Tensor:
        """Return 1 for every cell of x, 0 for padding: (1, 1, *padded sizes), for `cells`."""
        return self.pad(x.new_ones(1, 1, *x.shape[-len(self.counts) :]), 0)

    def sizes(self, x: Tensor) -> Tensor:
        """Number of cells of each window that are no padding, at least 1: (1, 1, *counts)."""
        return self.total(x.new_ones(1, 1, *x.shape[-len(self.counts) :])).clamp_min(1)

    def mean(self, x: Tensor) -> Tensor:
        """Average of each window; padding does not count, and gives 0 where there is no more."""
        return self.total(x) / self.sizes(x)


def per_channel(parameter: Tensor, x: Tensor) -> Tensor:
    """Shape a parameter (C) or (1) so that it multiplies x (N, C, *sizes), in x's dtype."""
    return parameter.to(x.dtype).view(-1, *(1,) * (x.ndim - 2))


def in_single_precision(x: Tensor) -> Tensor:
    """Return x in the dtype that it is pooled in: float64 stays, all else becomes float32."""
    return x if x.dtype == torch.float64 else x.float()
