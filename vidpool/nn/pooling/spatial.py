"""S3Pool: pooling with stochastic spatial sampling."""

from __future__ import annotations

from collections.abc import Sequence
from math import comb
from typing import ClassVar

import torch
from torch import Tensor

from vidpool.errors import ConfigError
from vidpool.nn.pooling.base import RandomPool, Size
from vidpool.nn.pooling.windows import Windows
from vidpool.ops.geometry import Window


def sample(
    x: Tensor, stride: Sequence[int], grid: Sequence[int], generator: torch.Generator | None
) -> Tensor:
    """Keep `grid / stride` random rows of every `grid` rows, and so on each pooled axis.

    A last, partial grid of r rows keeps `ceil(r / stride)`. One draw serves the whole batch.

    Args:
        x: (N, C, *sizes).
        stride: Factor by which each pooled axis shrinks.
        grid: Rows that are drawn from together; a multiple of `stride`.
        generator: Source of the random numbers.

    Returns:
        (N, C, *sizes / stride), rounded up.
    """
    for axis, (step, group) in enumerate(zip(stride, grid, strict=True)):
        if group == 1:
            continue
        dim = axis - len(stride)
        whole, rest = divmod(x.shape[dim], group)
        rows = [_draw_rows(whole, group, group // step, x.device, generator)]
        if rest:
            last = _draw_rows(1, rest, -(-rest // step), x.device, generator)
            rows.append(last + whole * group)
        x = x.index_select(dim, torch.cat(rows))
    return x


def expect(x: Tensor, stride: Sequence[int], grid: Sequence[int]) -> Tensor:
    """Return the expectation of :func:`sample`; where `grid` is `stride`, the grids' averages."""
    for axis, (step, group) in enumerate(zip(stride, grid, strict=True)):
        if group == 1:
            continue
        dim = axis - len(stride)
        whole, rest = divmod(x.shape[dim], group)
        weights = x.new_zeros(0, 0)
        if whole:
            weights = torch.block_diag(*[_chances(group, group // step, x)] * whole)
        if rest:
            weights = torch.block_diag(weights, _chances(rest, -(-rest // step), x))
        x = (x.movedim(dim, -1) @ weights.mT).movedim(-1, dim)
    return x


def check_grid(grid: int | Sequence[int] | None, window: Window) -> tuple[int, ...]:
    """Expand a grid's size to one a pooled dimension; None means the stride.

    Raises:
        ConfigError: If it has the wrong length or is no multiple of the stride.
    """
    stride = window.stride
    sizes = stride if grid is None else (grid,) * len(stride) if isinstance(grid, int) else grid
    if len(sizes) != len(stride) or any(
        size < 1 or size % step for size, step in zip(sizes, stride, strict=True)
    ):
        raise ConfigError(
            f"grid must be a positive multiple of the stride {stride} on every axis, but is "
            f"{grid!r}: give one a dimension, such as {tuple(2 * step for step in stride)}"
        )
    return tuple(sizes)


def _draw_rows(
    groups: int, size: int, take: int, device: torch.device, generator: torch.Generator | None
) -> Tensor:
    """Draw `take` of `size` rows without replacement in every group; row numbers, ascending."""
    order = torch.rand(groups, size, device=device, generator=generator).argsort(1)
    rows = order[:, :take].sort(1).values
    return (rows + torch.arange(groups, device=device).unsqueeze(1) * size).flatten()


def _chances(size: int, take: int, x: Tensor) -> Tensor:
    """Probability that the j-th of `take` rows drawn from `size` is row i, as (take, size)."""
    ways = [
        [comb(i, j) * comb(size - 1 - i, take - 1 - j) / comb(size, take) for i in range(size)]
        for j in range(take)
    ]
    return x.new_tensor(ways)


class _S3Pool(RandomPool):
    """Dense max pooling, then random rows and columns."""

    _shown: ClassVar[tuple[str, ...]] = ("grid",)

    def __init__(
        self,
        kernel_size: Size,
        stride: Size | None = None,
        padding: Size = 0,
        dilation: Size = 1,
        *,
        ceil_mode: bool = False,
        grid: int | Sequence[int] | None = None,
    ) -> None:
        super().__init__(kernel_size, stride, padding, dilation, ceil_mode=ceil_mode)
        self.grid = check_grid(grid, self._window())

    def _pool(
        self, x: Tensor, windows: Windows, generator: torch.Generator | None = None
    ) -> Tensor:
        dense = windows.dense(x.shape[2:]).maximum(x)
        if self.training:
            return sample(dense, windows.window.stride, self.grid, generator)
        return expect(dense, windows.window.stride, self.grid)


class S3Pool1d(_S3Pool):
    """S3Pool over T of (N, C, T) or (C, T); see :class:`S3Pool3d`."""

    ndim = 1


class S3Pool2d(_S3Pool):
    """S3Pool over H, W of (N, C, H, W) or (C, H, W); see :class:`S3Pool3d`."""

    ndim = 2


class S3Pool3d(_S3Pool):
    """S3Pool over T, H, W of (N, C, T, H, W) or (C, T, H, W).

    Max pooling with stride 1, of which some rows, columns and frames are kept: every grid of g
    rows keeps g / stride, drawn without replacement. In evaluation, the expectation of that: the
    average of each grid where g is the stride. Zhai, Wu, Kumar, Cheng, Lu, Zhang and Feris,
    "S3Pool: pooling with stochastic spatial sampling", CVPR 2017, section 3.

    Arguments are those of `PoolLayer` and:

    Args:
        grid: Rows that are drawn from together, a multiple of the stride, one for all dimensions
            or one for each; larger distorts more. None means the stride.

    Raises:
        ConfigError: If `grid` is no multiple of the stride.
    """

    ndim = 3
