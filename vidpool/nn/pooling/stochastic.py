"""Pooling that draws at random while training: stochastic pooling and S3Pool."""

from __future__ import annotations

from collections.abc import Sequence
from math import comb
from typing import ClassVar

import torch
from torch import Tensor

from vidpool.errors import ConfigError
from vidpool.nn.pooling.base import RandomPool, Size, Windows
from vidpool.ops.geometry import Window


class _StochasticPool(RandomPool):
    """Draw a cell of each window with probability proportional to its value.

    In training, one value of the window is drawn with `p_i = a_i / sum_j a_j`; in evaluation, the
    output is the expectation `sum_i p_i a_i`. Zeiler and Fergus, "Stochastic pooling for
    regularization of deep convolutional neural networks", ICLR 2013, equations 4 to 6.

    The paper pools outputs of a ReLU. Negative values have the probability 0; only in a window
    without positive values are all values drawn with the same probability.
    """

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
            # out = sum_i p_i a_i, where p_i a_i / scale is at most 1
            out = torch.zeros_like(scale)
            for cell, is_inside in cells:
                out = out + weight(cell, is_inside) * (cell / scale)
            return scale * out / torch.where(total > 0, total, 1)
        total = total.detach()
        draw = torch.rand(total.shape, dtype=total.dtype, device=total.device, generator=generator)
        # summed in the same order as before, so that the last sum equals the total bit by bit
        target, cumulative, out = draw * total, torch.zeros_like(total), torch.zeros_like(total)
        for cell, is_inside in cells:
            following = cumulative + weight(cell, is_inside).detach()
            out = torch.where((cumulative <= target) & (target < following), cell, out)
            cumulative = following
        return out


class StochasticPool1d(_StochasticPool):
    """Stochastic pooling over T of (N, C, T) or (C, T)."""

    ndim = 1


class StochasticPool2d(_StochasticPool):
    """Stochastic pooling over H, W of (N, C, H, W) or (C, H, W)."""

    ndim = 2


class StochasticPool3d(_StochasticPool):
    """Stochastic pooling over T, H, W of (N, C, T, H, W) or (C, T, H, W)."""

    ndim = 3


def sample_rows(
    x: Tensor, stride: Sequence[int], grid: Sequence[int], generator: torch.Generator | None
) -> Tensor:
    """Keep `grid / stride` random rows of every `grid` rows along each pooled axis.

    A last, partial grid of r rows keeps `ceil(r / stride)`. One draw serves the whole batch.

    Args:
        x: (N, C, *sizes).
        stride: Factor by which each pooled axis shrinks.
        grid: Number of rows that are drawn from together; a multiple of `stride`.
        generator: Source of the random numbers.

    Returns:
        (N, C, *sizes / stride), rounded up.
    """
    for axis, (step, group) in enumerate(zip(stride, grid, strict=True)):
        if group == 1:
            continue
        dim = axis - len(stride)
        whole, rest = divmod(int(x.shape[dim]), group)
        rows = [_draw_rows(whole, group, group // step, x.device, generator)]
        if rest:
            last = _draw_rows(1, rest, -(-rest // step), x.device, generator)
            rows.append(last + whole * group)
        x = x.index_select(dim, torch.cat(rows))
    return x


def expected_rows(x: Tensor, stride: Sequence[int], grid: Sequence[int]) -> Tensor:
    """Return the expectation of :func:`sample_rows`: each grid's average if `grid` is `stride`."""
    for axis, (step, group) in enumerate(zip(stride, grid, strict=True)):
        if group == 1:
            continue
        dim = axis - len(stride)
        whole, rest = divmod(int(x.shape[dim]), group)
        weights = x.new_zeros(0, 0)
        if whole:
            weights = torch.block_diag(*[_row_probabilities(group, group // step, x)] * whole)
        if rest:
            weights = torch.block_diag(weights, _row_probabilities(rest, -(-rest // step), x))
        x = (x.movedim(dim, -1) @ weights.mT).movedim(-1, dim)
    return x


def check_grid(grid: int | Sequence[int] | None, window: Window) -> tuple[int, ...]:
    """Expand the grid size to one int per pooled dimension; None means the stride.

    Raises:
        ConfigError: If it has the wrong length or is not a multiple of the stride.
    """
    stride = window.stride
    sizes = stride if grid is None else (grid,) * len(stride) if isinstance(grid, int) else grid
    if len(sizes) != len(stride) or any(
        size < 1 or size % step for size, step in zip(sizes, stride, strict=True)
    ):
        raise ConfigError(
            f"grid must be a positive multiple of the stride {stride} on every axis, but is "
            f"{grid!r}: give one a dimension, such as {tuple(2 * step for step in stride)}",
            argument="grid",
        )
    return tuple(sizes)


def _draw_rows(
    groups: int, size: int, take: int, device: torch.device, generator: torch.Generator | None
) -> Tensor:
    """Draw `take` of `size` rows per group without replacement; return ascending row numbers."""
    order = torch.rand(groups, size, device=device, generator=generator).argsort(1)
    rows = order[:, :take].sort(1).values
    return (rows + torch.arange(groups, device=device).unsqueeze(1) * size).flatten()


def _row_probabilities(size: int, take: int, x: Tensor) -> Tensor:
    """Return the probabilities (take, size) that the j-th of `take` drawn rows is row i."""
    ways = [
        [comb(i, j) * comb(size - 1 - i, take - 1 - j) / comb(size, take) for i in range(size)]
        for j in range(take)
    ]
    return x.new_tensor(ways)


class _S3Pool(RandomPool):
    """Dense max pooling, of whose output random rows and columns are kept.

    Max pooling with stride 1, followed by random sampling of rows, columns and frames: of every
    grid of g rows, g / stride are drawn without replacement. In evaluation, the output is the
    expectation: the average of each grid if g is the stride. Zhai, Wu, Kumar, Cheng, Lu, Zhang and
    Feris, "S3Pool: pooling with stochastic spatial sampling", CVPR 2017, section 3.

    Args:
        grid: Number of rows that are drawn from together, a multiple of the stride; an int or one
            int per dimension. Larger grids distort more. None means the stride.

    Raises:
        ConfigError: If `grid` is not a multiple of the stride.
    """

    _repr_names: ClassVar[tuple[str, ...]] = ("grid",)

    def __init__(
        self,
        kernel_size: Size,
        stride: Size | None = None,
        padding: Size = 0,
        dilation: Size = 1,
        return_indices: bool = False,
        ceil_mode: bool = False,
        *,
        grid: int | Sequence[int] | None = None,
    ) -> None:
        super().__init__(kernel_size, stride, padding, dilation, return_indices, ceil_mode)
        self.grid = check_grid(grid, self._window())

    def _pool(
        self, x: Tensor, windows: Windows, generator: torch.Generator | None = None
    ) -> Tensor:
        dense = windows.dense(x.shape[2:]).maximum(x)
        if self.training:
            return sample_rows(dense, windows.window.stride, self.grid, generator)
        return expected_rows(dense, windows.window.stride, self.grid)


class S3Pool1d(_S3Pool):
    """S3Pool over T of (N, C, T) or (C, T)."""

    ndim = 1


class S3Pool2d(_S3Pool):
    """S3Pool over H, W of (N, C, H, W) or (C, H, W)."""

    ndim = 2


class S3Pool3d(_S3Pool):
    """S3Pool over T, H, W of (N, C, T, H, W) or (C, T, H, W)."""

    ndim = 3
