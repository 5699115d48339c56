"""SoftPool of adaptive windows: as many windows as the output needs, whatever the input's size."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from itertools import dropwhile
from typing import TypeAlias

import torch
from torch import Tensor

from vidpool.ops.geometry import Window, check_input, is_channels_last
from vidpool.ops.operator import check_exporter, overridable, soft_pool
from vidpool.ops.reference import Cut, Gradient, check_gradient, like_input, pool_axes

OutputSize: TypeAlias = int | Sequence[int | None] | None
"""An int for all pooled dimensions or one per dimension, where None keeps the input's size."""


def expand_output_size(ndim: int, output_size: OutputSize) -> tuple[int | None, ...]:
    """Check the output size and expand it to `ndim` dimensions.

    Args:
        ndim: Number of pooled dimensions.
        output_size: An int, None, or one per dimension.

    Raises:
        TypeError: If it is neither an int, None nor a sequence of these.
        RuntimeError: If a sequence has the wrong length or an int is less than 1.
    """
    sizes = output_size if isinstance(output_size, Sequence) else (output_size,) * ndim
    if not all(size is None or isinstance(size, (int, torch.SymInt)) for size in sizes):
        raise TypeError(
            f"output_size must be an int, None or a sequence of these, but got {output_size!r}"
        )
    if len(sizes) != ndim:
        raise RuntimeError(
            f"output_size must be an int, None or {ndim} of these, but got {output_size!r}"
        )
    if any(size is not None and size < 1 for size in sizes):
        raise RuntimeError(f"output_size should be greater than zero, but got {output_size!r}")
    return tuple(sizes)


@overridable
def adaptive_soft_pool(
    x: Tensor, output_size: tuple[int | None, ...], gradient: Gradient
) -> Tensor:
    """Pool to a given output size by the window rule of `torch.nn.AdaptiveMaxPool3d`.

    Of L cells pooled to O, window i has the cells from `floor(i * L / O)` up to
    `ceil((i + 1) * L / O)`. Windows of equal size and distance are pooled by
    :func:`vidpool.ops.operator.soft_pool`. Other windows are pooled in plain PyTorch, and so are
    sizes that are dynamic in a compiled or exported program, which then fits all sizes.

    Args:
        x: (N, C, *sizes) or (C, *sizes).
        output_size: Checked size for each pooled dimension; None keeps the input's size.
        gradient: See :func:`vidpool.ops.soft_pool3d`.

    Raises:
        RuntimeError: If x has the wrong number of dimensions or a dimension other than N is empty.
        NotImplementedError: If x has another dtype than float16, bfloat16, float32 or float64.
        ConfigError: If `gradient` is unknown, or in the ONNX exporter that is based on TorchScript.
    """
    check_gradient(gradient)
    ndim = len(output_size)
    check_input(x, ndim)
    # Global pooling, of all axes or of those after kept ones, is a reduction of adjacent cells,
    # where CPU kernels are slower than plain PyTorch unless channels are last.
    pooled = len(list(dropwhile(lambda count: count is None, output_size)))
    is_global = pooled > 0 and all(count == 1 for count in output_size[-pooled:])
    window = _regular_window(x.shape[-ndim:], output_size)
    if window is not None and (not is_global or is_channels_last(x, ndim)):
        return soft_pool(x, window, gradient)
    check_exporter()
    values = x if x.dtype == torch.float64 else x.float()
    if is_global:
        out = pool_axes(values.flatten(-pooled), [_cut_whole], gradient)
        return like_input(out.unflatten(-1, (1,) * pooled), x, ndim)
    cuts = [
        _cut_nothing if count is None else _windows(values, axis - ndim, count)
        for axis, count in enumerate(output_size)
    ]
    return like_input(pool_axes(values.contiguous(), cuts, gradient), x, ndim)


def _regular_window(lengths: Sequence[int], counts: Sequence[int | None]) -> Window | None:
    """Return the window of the same pooling with a fixed size and stride; None if there is none."""
    kernel_size: list[int] = []
    stride: list[int] = []
    for length, count in zip(lengths, counts, strict=True):
        if count is None:
            kernel_size.append(1)
            stride.append(1)
            continue
        if not (_is_static(length) and _is_static(count)):
            return None
        # With a remainder of 1, every window has one cell in common with the next.
        if length < count or length % count > 1:
            return None
        kernel_size.append(length // count + length % count)
        stride.append(length // count)
    ndim = len(kernel_size)
    return Window(tuple(kernel_size), tuple(stride), (0,) * ndim, (1,) * ndim, ceil_mode=False)


def _is_static(size: int) -> bool:
    """Return whether a size is a constant, also in a compiled or exported program."""
    if torch.compiler.is_compiling():
        # imports SymPy
        from torch.fx.experimental.symbolic_shapes import has_static_value

        return has_static_value(size)
    return isinstance(size, int)


def _cut_whole(x: Tensor, _: float) -> Tensor:
    """Cut the last axis into a single window."""
    return x.unsqueeze(-2)


def _cut_nothing(x: Tensor, _: float) -> Tensor:
    """Cut an axis into windows of one cell."""
    return x.unsqueeze(-1)


def _windows(x: Tensor, axis: int, count: int) -> Cut:
    """Return a function that cuts an axis of x, counted from the last, into adaptive windows."""
    length = x.shape[axis]
    window = torch.arange(count, device=x.device).unsqueeze(-1)
    start = window * length // count
    end = ((window + 1) * length + count - 1) // count
    largest = (length - 2) // count + 2  # where the windows differ in size
    cells = start + torch.arange(largest, device=x.device)
    inside = (cells < end).view(count, *(1,) * (-1 - axis), largest)
    return partial(_gather, axis, cells.clamp_max(length - 1), inside)


def _gather(axis: int, cells: Tensor, inside: Tensor, x: Tensor, value: float) -> Tensor:
    dim = x.ndim + axis
    windows = x.index_select(dim, cells.flatten()).unflatten(dim, cells.shape)
    return torch.where(inside, windows.movedim(dim + 1, -1), value)
