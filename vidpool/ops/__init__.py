"""SoftPool as functions, drop-in replacements for PyTorch's max pooling functions."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from vidpool.ops.geometry import make_window
from vidpool.ops.operator import soft_pool
from vidpool.ops.reference import Gradient

__all__ = ["Gradient", "soft_pool1d", "soft_pool2d", "soft_pool3d"]


def soft_pool1d(
    x: Tensor,
    kernel_size: int | Sequence[int],
    stride: int | Sequence[int] | None = None,
    padding: int | Sequence[int] = 0,
    dilation: int | Sequence[int] = 1,
    ceil_mode: bool = False,
    gradient: Gradient = "exact",
) -> Tensor:
    """SoftPool over T of (N, C, T) or (C, T); see :func:`soft_pool3d`."""
    window = make_window(1, kernel_size, stride, padding, dilation, ceil_mode)
    return soft_pool(x, window, gradient)


def soft_pool2d(
    x: Tensor,
    kernel_size: int | Sequence[int],
    stride: int | Sequence[int] | None = None,
    padding: int | Sequence[int] = 0,
    dilation: int | Sequence[int] = 1,
    ceil_mode: bool = False,
    gradient: Gradient = "exact",
) -> Tensor:
    """SoftPool over H, W of (N, C, H, W) or (C, H, W); see :func:`soft_pool3d`."""
    window = make_window(2, kernel_size, stride, padding, dilation, ceil_mode)
    return soft_pool(x, window, gradient)


def soft_pool3d(
    x: Tensor,
    kernel_size: int | Sequence[int],
    stride: int | Sequence[int] | None = None,
    padding: int | Sequence[int] = 0,
    dilation: int | Sequence[int] = 1,
    ceil_mode: bool = False,
    gradient: Gradient = "exact",
) -> Tensor:
    """Average each window with the softmax of its own values as weights.

    `out = sum_i w_i a_i` with `w = softmax(a)` over the window's values `a` (equations 1
    and 2 of "Refining activation downsampling with SoftPool", ICCV 2021). The result lies between
    the average and the maximum. Padding has no weight; NaN and +inf give NaN in the windows that
    contain them.

    Args:
        x: (N, C, T, H, W) or (C, T, H, W); float16, bfloat16, float32 or float64.
        kernel_size: Size of the window; an int or one int per dimension, like the next three.
        stride: Stride of the window; defaults to `kernel_size`.
        padding: Number of cells added on both sides; at most half of `kernel_size`.
        dilation: Distance between neighboring cells of a window.
        ceil_mode: Round the output size up instead of down.
        gradient: `"exact"` is the derivative `w_i (1 + a_i - out)`; `"paper"` propagates `w_i`
            alone, as section 3.2 of the paper does.

    Returns:
        Tensor of x's dtype with the output size of max pooling; channels-last if x is.

    Raises:
        TypeError: If a size is neither an int nor a sequence of ints.
        RuntimeError: If a size is out of range or x's shape does not fit.
        NotImplementedError: If x has another dtype.
        ValueError: If `gradient` is unknown.
    """
    window = make_window(3, kernel_size, stride, padding, dilation, ceil_mode)
    return soft_pool(x, window, gradient)
