"""Detail-preserving pooling."""

from __future__ import annotations

from collections.abc import Callable
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from vidpool.nn.pooling.base import RandomPool, Size, Windows, per_channel
from vidpool.nn.pooling.stochastic import check_grid, expected_rows, sample_rows

_EPSILON = 1e-3**0.5
"""Smooths the weight at 0, where |d|^lambda has no derivative; value of the authors' code."""


class _DetailPreservingPool(RandomPool):
    """Average weighted by the distance of each value from the window's average.

    The lite, symmetric variant of Saeedan, Weber, Goesele and Roth, "Detail-preserving pooling in
    deep networks", CVPR 2018, section 3, as implemented by its authors
    (github.com/visinf/dpp, `DPP_sym_lite`): an average with the weights
    `w_i = alpha + (d_i / d)^lambda`, where `d_i^2 = (a_i - mean)^2 + 0.001`, d is the root of the
    mean of d_i^2 over the window, the window's mean is the linearly downscaled input ("lite") and
    values on both sides of it are rewarded ("symmetric"). `alpha` and `lambda` are learned for
    each channel, as exponentials of parameters that start at 0.

    With `stochastic`, the windows are pooled at stride 1 and then sampled as S3Pool does
    (:class:`S3Pool3d`, with grids as large as the stride): the authors' `S3_DPP_sym_lite`, called
    "Lite-S3DPP" in Table 1 of the SoftPool paper and "DPP" in its Tables 3 and 5.

    Args:
        channels: C.
        stochastic: Whether to sample rows, columns and frames at random while training.
    """

    _repr_names: ClassVar[tuple[str, ...]] = ("channels", "stochastic")

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
        stochastic: bool = False,
    ) -> None:
        super().__init__(kernel_size, stride, padding, dilation, return_indices, ceil_mode)
        self._set_channels(channels)
        self.stochastic = stochastic
        self._grid = check_grid(None, self._window())
        self.log_alpha = nn.Parameter(torch.zeros(channels))
        self.log_lambda = nn.Parameter(torch.zeros(channels))

    def _pool(
        self, x: Tensor, windows: Windows, generator: torch.Generator | None = None
    ) -> Tensor:
        if not self.stochastic:
            return self._weighted_average(x, windows)
        dense = self._weighted_average(x, windows.dense(x.shape[2:]))
        if self.training:
            return sample_rows(dense, windows.window.stride, self._grid, generator)
        return expected_rows(dense, windows.window.stride, self._grid)

    def _weighted_average(self, x: Tensor, windows: Windows) -> Tensor:
        average = windows.mean(x)
        log_alpha = per_channel(self.log_alpha, x)
        power = per_channel(self.log_lambda, x).exp()
        cells = list(
            zip(
                windows.cells(windows.pad(x, 0)),
                windows.cells(windows.inside(x).bool()),
                strict=True,
            )
        )

        def log_distance(cell: Tensor) -> Tensor:
            difference = cell - average
            # Relative to the size, no square overflows; ONNX has no torch.hypot.
            size = difference.detach().abs() + _EPSILON
            return size.log() + ((difference / size) ** 2 + (_EPSILON / size) ** 2).log() / 2

        # The root mean square of the distances, relative to the largest: no square overflows.
        with torch.no_grad():
            largest = _window_maximum(log_distance, cells, average)
        squares = torch.zeros_like(average)
        for cell, is_inside in cells:
            squares = squares + _masked_exp(2 * (log_distance(cell) - largest), is_inside)
        scale = largest + (squares / windows.sizes(x)).clamp_min(_EPSILON**4).log() / 2

        def log_weight(cell: Tensor) -> Tensor:
            return torch.logaddexp(log_alpha, power * (log_distance(cell) - scale))

        # Weights relative to the largest cannot overflow; the scale cancels out.
        with torch.no_grad():
            largest = _window_maximum(log_weight, cells, average)
        total, deviation = torch.zeros_like(average), torch.zeros_like(average)
        for cell, is_inside in cells:
            weight = _masked_exp(log_weight(cell) - largest, is_inside)
            total = total + weight
            # sums relative to the average keep large values accurate
            deviation = deviation + weight * (cell - average)
        # unlike a clamp at 1, this keeps the gradient where one cell has all the weight
        return average + deviation / F.threshold(total, 0.5, 1.0)


def _window_maximum(
    function: Callable[[Tensor], Tensor], cells: list[tuple[Tensor, Tensor]], like: Tensor
) -> Tensor:
    """Return the maximum of a function over each window's cells; 0 if all are padding."""
    largest = torch.full_like(like, float("-inf"))
    for cell, is_inside in cells:
        candidate = function(cell).masked_fill(~is_inside, float("-inf"))
        largest = torch.maximum(largest, candidate)
    return largest.masked_fill(largest.isneginf(), 0)


def _masked_exp(exponent: Tensor, is_inside: Tensor) -> Tensor:
    """Return e^exponent, and 0 for padding."""
    return exponent.masked_fill(~is_inside, float("-inf")).exp()


class DetailPreservingPool1d(_DetailPreservingPool):
    """Detail-preserving pooling over T of (N, C, T) or (C, T)."""

    ndim = 1


class DetailPreservingPool2d(_DetailPreservingPool):
    """Detail-preserving pooling over H, W of (N, C, H, W) or (C, H, W)."""

    ndim = 2


class DetailPreservingPool3d(_DetailPreservingPool):
    """Detail-preserving pooling over T, H, W of (N, C, T, H, W) or (C, T, H, W)."""

    ndim = 3
