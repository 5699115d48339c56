"""SoftPool as functions, drop-in replacements for PyTorch's max pooling functions.

An exported program has one operator for SoftPool; a table turns it into PyTorch's own operators:

Examples:
    >>> import torch
    >>> from vidpool.nn import SoftPool2d
    >>> from vidpool.ops import DECOMPOSITIONS
    >>> program = torch.export.export(SoftPool2d(2), (torch.rand(1, 3, 8, 8),))
    >>> [str(node.target) for node in program.graph.nodes if node.op == "call_function"]
    ['vidpool.soft_pool.default']
    >>> program = program.run_decompositions(DECOMPOSITIONS)
    >>> any("vidpool" in str(node.target) for node in program.graph.nodes)
    False
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from vidpool.ops.adaptive import OutputSize, adaptive_soft_pool, expand_output_size
from vidpool.ops.geometry import check_return_indices, make_window
from vidpool.ops.operator import DECOMPOSITIONS, overridable, soft_pool
from vidpool.ops.reference import Gradient

__all__ = [
    "DECOMPOSITIONS",
    "Gradient",
    "adaptive_soft_pool1d",
    "adaptive_soft_pool2d",
    "adaptive_soft_pool3d",
    "soft_pool1d",
    "soft_pool2d",
    "soft_pool3d",
]


@overridable
def soft_pool1d(
    x: Tensor,
    kernel_size: int | Sequence[int],
    stride: int | Sequence[int] | None = None,
    padding: int | Sequence[int] = 0,
    dilation: int | Sequence[int] = 1,
    ceil_mode: bool = False,
    return_indices: bool = False,
    *,
    gradient: Gradient = "exact",
) -> Tensor:
    """Average each window with the softmax of its own values as weights.

    :func:`soft_pool3d` gives the equation and its source.

    Args:
        x: (N, C, T) or (C, T); float16, bfloat16, float32 or float64.
        kernel_size: Size of the window; an int or a sequence of one int.
        stride: Stride of the window; defaults to `kernel_size`.
        padding: Number of cells added on both sides; at most half of `kernel_size`.
        dilation: Distance between neighboring cells of a window.
        ceil_mode: Round the output size up instead of down.
        return_indices: Must be False; for the order of arguments of
            :func:`torch.nn.functional.max_pool1d`.
        gradient: `"exact"` or `"paper"`; see :func:`soft_pool3d`.

    Returns:
        Tensor of x's dtype with the output size of max pooling; channels-last if x is.

    Raises:
        TypeError: If a size is neither an int nor a sequence of ints.
        RuntimeError: If a size is out of range or x's shape does not fit.
        NotImplementedError: If x has another dtype.
        ConfigError: If `gradient` is unknown or `return_indices` is set.

    Examples:
        >>> import torch
        >>> from vidpool.ops import soft_pool1d
        >>> soft_pool1d(torch.tensor([[[0.0, 1.0, 5.0, 5.0]]]), 2)
        tensor([[[0.7311, 5.0000]]])
    """
    check_return_indices("soft_pool1d", return_indices)
    window = make_window(1, kernel_size, stride, padding, dilation, ceil_mode)
    return soft_pool(x, window, gradient)


@overridable
def soft_pool2d(
    x: Tensor,
    kernel_size: int | Sequence[int],
    stride: int | Sequence[int] | None = None,
    padding: int | Sequence[int] = 0,
    dilation: int | Sequence[int] = 1,
    ceil_mode: bool = False,
    return_indices: bool = False,
    *,
    gradient: Gradient = "exact",
) -> Tensor:
    """Average each window with the softmax of its own values as weights.

    :func:`soft_pool3d` gives the equation and its source.

    Args:
        x: (N, C, H, W) or (C, H, W); float16, bfloat16, float32 or float64.
        kernel_size: Size of the window; an int or one int per dimension.
        stride: Stride of the window; defaults to `kernel_size`.
        padding: Number of cells added on both sides; at most half of `kernel_size`.
        dilation: Distance between neighboring cells of a window.
        ceil_mode: Round the output size up instead of down.
        return_indices: Must be False; for the order of arguments of
            :func:`torch.nn.functional.max_pool2d`.
        gradient: `"exact"` or `"paper"`; see :func:`soft_pool3d`.

    Returns:
        Tensor of x's dtype with the output size of max pooling; channels-last if x is.

    Raises:
        TypeError: If a size is neither an int nor a sequence of ints.
        RuntimeError: If a size is out of range or x's shape does not fit.
        NotImplementedError: If x has another dtype.
        ConfigError: If `gradient` is unknown or `return_indices` is set.

    Examples:
        >>> import torch
        >>> from vidpool.ops import soft_pool2d
        >>> soft_pool2d(torch.tensor([[[0.0, 1.0], [1.0, 0.0]]]), 2)
        tensor([[[0.7311]]])
        >>> soft_pool2d(torch.rand(2, 8, 33, 33), 2, 2, 0, 1, True).shape
        torch.Size([2, 8, 17, 17])
    """
    check_return_indices("soft_pool2d", return_indices)
    window = make_window(2, kernel_size, stride, padding, dilation, ceil_mode)
    return soft_pool(x, window, gradient)


@overridable
def soft_pool3d(
    x: Tensor,
    kernel_size: int | Sequence[int],
    stride: int | Sequence[int] | None = None,
    padding: int | Sequence[int] = 0,
    dilation: int | Sequence[int] = 1,
    ceil_mode: bool = False,
    return_indices: bool = False,
    *,
    gradient: Gradient = "exact",
) -> Tensor:
    """Average each window with the softmax of its own values as weights.

    `out = sum_i w_i a_i` with `w = softmax(a)` over the window's values `a` (equations 1
    and 2 of "Refining activation downsampling with SoftPool", ICCV 2021). The result lies between
    the average and the maximum. Padding has no weight; NaN and +inf give NaN in the windows that
    contain them.

    Args:
        x: (N, C, T, H, W) or (C, T, H, W); float16, bfloat16, float32 or float64.
        kernel_size: Size of the window; an int or one int per dimension.
        stride: Stride of the window; defaults to `kernel_size`.
        padding: Number of cells added on both sides; at most half of `kernel_size`.
        dilation: Distance between neighboring cells of a window.
        ceil_mode: Round the output size up instead of down.
        return_indices: Must be False; for the order of arguments of
            :func:`torch.nn.functional.max_pool3d`.
        gradient: `"exact"` is the derivative `w_i (1 + a_i - out)`; `"paper"` propagates `w_i`
            alone, as section 3.2 of the paper does.

    Returns:
        Tensor of x's dtype with the output size of max pooling; channels-last if x is.

    Raises:
        TypeError: If a size is neither an int nor a sequence of ints.
        RuntimeError: If a size is out of range or x's shape does not fit.
        NotImplementedError: If x has another dtype.
        ConfigError: If `gradient` is unknown or `return_indices` is set.

    Examples:
        >>> import torch
        >>> from vidpool.ops import soft_pool3d
        >>> clips = torch.rand(2, 8, 16, 32, 32)
        >>> soft_pool3d(clips, 3, stride=2, padding=1).shape
        torch.Size([2, 8, 8, 16, 16])
        >>> soft_pool3d(clips, (1, 2, 2)).shape
        torch.Size([2, 8, 16, 16, 16])
    """
    check_return_indices("soft_pool3d", return_indices)
    window = make_window(3, kernel_size, stride, padding, dilation, ceil_mode)
    return soft_pool(x, window, gradient)


@overridable
def adaptive_soft_pool1d(
    x: Tensor,
    output_size: OutputSize,
    return_indices: bool = False,
    *,
    gradient: Gradient = "exact",
) -> Tensor:
    """Apply SoftPool to adaptive windows: `output_size` of them, whatever the size of x.

    :func:`adaptive_soft_pool3d` gives the windows, :func:`soft_pool3d` the equation.

    Args:
        x: (N, C, T) or (C, T); float16, bfloat16, float32 or float64.
        output_size: Size of the output; an int, a sequence of one int, or None to keep x's size.
        return_indices: Must be False; for the order of arguments of
            :func:`torch.nn.functional.adaptive_max_pool1d`.
        gradient: `"exact"` or `"paper"`; see :func:`soft_pool3d`.

    Returns:
        (N, C, O) or (C, O) in x's dtype; channels-last if x is.

    Raises:
        TypeError: If `output_size` is neither an int, None nor a sequence of these.
        RuntimeError: If `output_size` has the wrong length or is less than 1, or if x's shape does
            not fit.
        NotImplementedError: If x has another dtype.
        ConfigError: If `gradient` is unknown or `return_indices` is set.

    Examples:
        >>> import torch
        >>> from vidpool.ops import adaptive_soft_pool1d
        >>> adaptive_soft_pool1d(torch.tensor([[[0.0, 1.0, 5.0, 5.0]]]), 2)
        tensor([[[0.7311, 5.0000]]])
    """
    check_return_indices("adaptive_soft_pool1d", return_indices)
    return adaptive_soft_pool(x, expand_output_size(1, output_size), gradient)


@overridable
def adaptive_soft_pool2d(
    x: Tensor,
    output_size: OutputSize,
    return_indices: bool = False,
    *,
    gradient: Gradient = "exact",
) -> Tensor:
    """Apply SoftPool to adaptive windows: `output_size` of them, whatever the size of x.

    :func:`adaptive_soft_pool3d` gives the windows, :func:`soft_pool3d` the equation.

    Args:
        x: (N, C, H, W) or (C, H, W); float16, bfloat16, float32 or float64.
        output_size: Size of the output; an int or one int per dimension. None keeps x's size.
        return_indices: Must be False; for the order of arguments of
            :func:`torch.nn.functional.adaptive_max_pool2d`.
        gradient: `"exact"` or `"paper"`; see :func:`soft_pool3d`.

    Returns:
        (N, C, OH, OW) or (C, OH, OW) in x's dtype; channels-last if x is.

    Raises:
        TypeError: If `output_size` is neither an int, None nor a sequence of these.
        RuntimeError: If `output_size` has the wrong length or is less than 1, or if x's shape does
            not fit.
        NotImplementedError: If x has another dtype.
        ConfigError: If `gradient` is unknown or `return_indices` is set.

    Examples:
        >>> import torch
        >>> from vidpool.ops import adaptive_soft_pool2d
        >>> adaptive_soft_pool2d(torch.tensor([[[0.0, 1.0], [1.0, 0.0]]]), 1)
        tensor([[[0.7311]]])
        >>> adaptive_soft_pool2d(torch.rand(2, 8, 13, 10), (7, None)).shape
        torch.Size([2, 8, 7, 10])
    """
    check_return_indices("adaptive_soft_pool2d", return_indices)
    return adaptive_soft_pool(x, expand_output_size(2, output_size), gradient)


@overridable
def adaptive_soft_pool3d(
    x: Tensor,
    output_size: OutputSize,
    return_indices: bool = False,
    *,
    gradient: Gradient = "exact",
) -> Tensor:
    """Apply SoftPool to adaptive windows: `output_size` of them, whatever the size of x.

    The windows are those of :func:`torch.nn.functional.adaptive_max_pool3d`: where L cells are
    pooled to O, window i has the cells from `floor(i * L / O)` up to `ceil((i + 1) * L / O)`. Each
    is averaged as by :func:`soft_pool3d`. `output_size=1` is global pooling, and `(None, 1, 1)`
    global pooling of each frame.

    The compiled kernels compute windows of equal size and distance, that is where L divided by O
    leaves a remainder of 0 or 1 on every axis. Plain PyTorch computes all others, and global
    pooling of inputs that are not channels-last, where it is faster on the CPU. With dynamic sizes,
    `torch.export` and `torch.compile` also use plain PyTorch, and one program fits all sizes.

    Args:
        x: (N, C, T, H, W) or (C, T, H, W); float16, bfloat16, float32 or float64.
        output_size: Size of the output; an int or one int per dimension. None keeps x's size.
        return_indices: Must be False; for the order of arguments of
            :func:`torch.nn.functional.adaptive_max_pool3d`.
        gradient: `"exact"` or `"paper"`; see :func:`soft_pool3d`.

    Returns:
        (N, C, OT, OH, OW) or (C, OT, OH, OW) in x's dtype; channels-last if x is.

    Raises:
        TypeError: If `output_size` is neither an int, None nor a sequence of these.
        RuntimeError: If `output_size` has the wrong length or is less than 1, or if x's shape does
            not fit.
        NotImplementedError: If x has another dtype.
        ConfigError: If `gradient` is unknown or `return_indices` is set.

    Examples:
        >>> import torch
        >>> from vidpool.ops import adaptive_soft_pool3d
        >>> clips = torch.rand(2, 8, 16, 14, 14)
        >>> adaptive_soft_pool3d(clips, 1).shape
        torch.Size([2, 8, 1, 1, 1])
        >>> adaptive_soft_pool3d(clips, (None, 3, 3)).shape
        torch.Size([2, 8, 16, 3, 3])
    """
    check_return_indices("adaptive_soft_pool3d", return_indices)
    return adaptive_soft_pool(x, expand_output_size(3, output_size), gradient)
