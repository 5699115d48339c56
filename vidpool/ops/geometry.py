"""Window geometry of the pooling operators: arguments, checks and output sizes of max pooling."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from vidpool.errors import ConfigError

_DTYPES = (torch.float16, torch.bfloat16, torch.float32, torch.float64)

_LARGEST = 2**31 - 1  # so that no size of a window overflows


class Window(NamedTuple):
    """A checked pooling window; every tuple has one entry per pooled dimension, outermost first."""

    kernel_size: tuple[int, ...]
    stride: tuple[int, ...]
    padding: tuple[int, ...]
    dilation: tuple[int, ...]
    ceil_mode: bool

    @property
    def extent(self) -> tuple[int, ...]:
        """Size of the window including the gaps of dilation."""
        return tuple((k - 1) * d + 1 for k, d in zip(self.kernel_size, self.dilation, strict=True))

    def output_size(self, size: Sequence[int]) -> tuple[int, ...]:
        """Return the number of windows along each pooled dimension, as in `torch.nn.MaxPool3d`.

        Args:
            size: Pooled sizes of the input, outermost first.

        Raises:
            RuntimeError: If a dimension is smaller than one window.
        """
        counts = []
        for length, extent, stride, padding in zip(
            size, self.extent, self.stride, self.padding, strict=True
        ):
            room = length + 2 * padding - extent
            count = (room + (stride - 1 if self.ceil_mode else 0)) // stride + 1
            # A window added by ceil_mode has to start inside the input or its left padding.
            if self.ceil_mode:
                starts = -(-(length + padding) // stride)
                count = torch.sym_min(count, starts)  # type: ignore[assignment]
            counts.append(count)
        # compared one by one: min() would make tracing with dynamic sizes specialize
        if any(count < 1 for count in counts):
            raise RuntimeError(
                f"Given input size {tuple(size)} and {self}: "
                f"calculated output size {tuple(counts)} is too small"
            )
        return tuple(counts)

    def pad(self, x: Tensor, counts: Sequence[int], value: float) -> Tensor:
        """Pad x with a value, or crop it at the end, to exactly the cells that the windows read.

        Args:
            x: Tensor whose last dimensions are pooled.
            counts: Number of windows along each pooled dimension.
            value: Value of the padding.
        """
        pads: list[int] = []
        for length, count, extent, stride, padding in zip(
            x.shape[-len(counts) :], counts, self.extent, self.stride, self.padding, strict=True
        ):
            # F.pad begins with the last dimension
            pads = [padding, (count - 1) * stride + extent - length - padding, *pads]
        return F.pad(x, pads, value=value)

    def cut(self, padded: Tensor, axis: int) -> Tensor:
        """Return a view of padded x with one pooled axis cut into windows.

        The cells of the windows become the last dimension. Axes before `axis` may already be cut
        and reduced.
        """
        cells = padded.unfold(axis - len(self.stride), self.extent[axis], self.stride[axis])
        return cells[..., :: self.dilation[axis]]


def make_window(
    ndim: int,
    kernel_size: int | Sequence[int],
    stride: int | Sequence[int] | None,
    padding: int | Sequence[int],
    dilation: int | Sequence[int],
    ceil_mode: bool,
) -> Window:
    """Expand the arguments to `ndim` dimensions and check them as max pooling does.

    Args:
        ndim: Number of pooled dimensions.
        kernel_size: Size of the window; an int or one int per dimension, like the next three.
        stride: Stride of the window; None means `kernel_size`.
        padding: Number of cells added on both sides; at most half of `kernel_size`, without its
            dilation.
        dilation: Distance between neighboring cells of a window.
        ceil_mode: Round the output size up: the last window may extend beyond the right padding.

    Raises:
        TypeError: If a size is neither an int nor a sequence of ints.
        RuntimeError: If a sequence has the wrong length or a value is out of range.
    """
    arguments = (ndim, kernel_size, stride, padding, dilation, ceil_mode)
    # checks are cached, since they would take as long as pooling a small map
    if torch.compiler.is_compiling() or not all(map(_is_cacheable, arguments)):
        return _check_window(*arguments)
    return _cached_window(*arguments)


def _is_cacheable(value: object) -> bool:
    """Return whether equal values always pass the same checks (2.0 == 2, but is not a size)."""
    if type(value) is tuple:
        return all(type(entry) is int for entry in value)
    return value is None or type(value) in (int, bool)


def _check_window(
    ndim: int,
    kernel_size: int | Sequence[int],
    stride: int | Sequence[int] | None,
    padding: int | Sequence[int],
    dilation: int | Sequence[int],
    ceil_mode: bool,
) -> Window:
    window = Window(
        kernel_size=_expand("kernel_size", kernel_size, ndim),
        stride=_expand("stride", kernel_size if stride is None else stride, ndim),
        padding=_expand("padding", padding, ndim),
        dilation=_expand("dilation", dilation, ndim),
        ceil_mode=ceil_mode,
    )
    for name in ("kernel_size", "stride", "dilation"):
        values = getattr(window, name)
        if min(values) <= 0:
            raise RuntimeError(f"{name} should be greater than zero, but got {values}")
        if max(values) > _LARGEST:
            raise RuntimeError(f"{name} should be at most {_LARGEST}, but got {values}")
    for padded, kernel in zip(window.padding, window.kernel_size, strict=True):
        if not 0 <= padded <= kernel // 2:
            raise RuntimeError(
                "padding should be non-negative and at most half of kernel_size, "
                f"but got padding={window.padding} and kernel_size={window.kernel_size}"
            )
    return window


_cached_window = lru_cache(_check_window)


def check_input(x: Tensor, ndim: int) -> None:
    """Check that `x` can be pooled over its last `ndim` dimensions.

    Args:
        x: (N, C, *sizes) or (C, *sizes) with `ndim` sizes; only N may be 0.
        ndim: Number of pooled dimensions.

    Raises:
        RuntimeError: If the number of dimensions is wrong or a dimension other than N is empty.
        NotImplementedError: If the dtype is not a real floating-point type of 16 bits or more.
    """
    batched = x.ndim == ndim + 2
    if not (batched or x.ndim == ndim + 1) or 0 in x.shape[batched:]:
        raise RuntimeError(
            f"expected a non-empty {ndim + 1}D or {ndim + 2}D (batch mode, batch size may be 0) "
            f"tensor, but got shape {tuple(x.shape)}"
        )
    if x.is_quantized:
        raise NotImplementedError(
            f"pooling is not implemented for quantized tensors ({x.dtype}): pass x.dequantize(), "
            "or exclude the pooling layers from quantization"
        )
    if x.dtype not in _DTYPES:
        raise NotImplementedError(f"pooling is not implemented for {x.dtype}")


def check_return_indices(name: str, return_indices: bool) -> None:
    """Check the argument that pooling has for the sake of max pooling's order of arguments.

    Args:
        name: Name of the layer or function.
        return_indices: Value of its argument.

    Raises:
        ConfigError: If it is set.
    """
    if return_indices:
        raise ConfigError(
            f"{name} cannot return indices: only max pooling takes its output from one cell of the "
            "window, which has an index. Leave return_indices at False; layers that need the "
            "indices, such as nn.MaxUnpool2d, need max pooling",
            argument="return_indices",
        )


def is_channels_last(x: Tensor, ndim: int) -> bool:
    """Return whether x pooled over its last `ndim` dimensions is channels-last."""
    return x.ndim == ndim + 2 and x.stride(1) == 1 and not x.is_contiguous()


def _expand(name: str, value: int | Sequence[int], ndim: int) -> tuple[int, ...]:
    values = (value,) if isinstance(value, int) else value
    if not isinstance(values, Sequence) or not all(isinstance(v, int) for v in values):
        raise TypeError(f"{name} must be an int or a sequence of ints, but got {value!r}")
    if len(values) not in (1, ndim):
        raise RuntimeError(f"{name} must be an int or {ndim} ints, but got {value!r}")
    return tuple(values) * (ndim // len(values))
