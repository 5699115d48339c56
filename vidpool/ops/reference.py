"""SoftPool in plain PyTorch: the definition that faster implementations are tested against.

Stergiou, Poppe and Kalliatakis, "Refining activation downsampling with SoftPool", ICCV 2021.
"""

from __future__ import annotations

from typing import Literal, TypeAlias, get_args

import torch
from torch import Tensor
from torch.nn import functional as F

from vidpool.ops.geometry import Window, check_input

Gradient: TypeAlias = Literal["exact", "paper"]


def soft_pool(x: Tensor, window: Window, gradient: Gradient) -> Tensor:
    """Average each window with the softmax of its own values as weights (equations 1 and 2).

    A window with values `a` gives `sum_i w_i a_i` where `w = softmax(a)`. Padded cells and inputs
    of -inf weigh nothing; a window of nothing else gives -inf, as in max pooling. NaN and +inf
    give NaN in the windows that hold them.

    Args:
        x: (N, C, *sizes) or (C, *sizes) with as many sizes as the window has dimensions; float16,
            bfloat16 (both computed in float32), float32 or float64.
        window: Which cells are pooled together.
        gradient: `"exact"` is the derivative `w_i (1 + a_i - out)`; `"paper"` propagates `w_i`
            alone, as section 3.2 of the paper does.

    Returns:
        Tensor of x's dtype, with max pooling's output size; channels-last where x is.

    Raises:
        RuntimeError: If x has the wrong number of dimensions, is empty but for N, or is too small.
        NotImplementedError: If x is of another dtype.
        ValueError: If `gradient` is unknown.
    """
    if gradient not in get_args(Gradient):
        raise ValueError(f"gradient must be one of {get_args(Gradient)}, but got {gradient!r}")
    ndim = len(window.kernel_size)
    check_input(x, ndim)
    dims = tuple(range(-ndim, 0))

    windows = _windows(x if x.dtype == torch.float64 else x.float(), window)
    # The result does not depend on the shift, so it may be a constant to autograd. Subtracting it
    # before everything else keeps `1 + a_i - out` accurate where the values are large.
    shift = windows.detach().amax(dims, keepdim=True)
    z = windows - shift
    # The second test is for finite values so far apart that their difference overflows.
    hole = windows.isneginf() | z.isneginf()
    z = z.masked_fill(hole, 0)
    weight = z.exp().masked_fill(hole, 0)
    # The maximum contributes 1 to the sum, so the clamp only touches windows without any value.
    weight = weight / weight.sum(dims, keepdim=True).clamp_min(1)
    if gradient == "paper":
        weight = weight.detach()
    out = ((weight * z).sum(dims) + shift.flatten(-ndim).squeeze(-1)).to(x.dtype)

    # Spelt without memory_format because that is not implemented under vmap.
    if x.ndim == ndim + 2 and x.stride(1) == 1 and not x.is_contiguous():
        return out.movedim(1, -1).contiguous().movedim(-1, 1)
    return out


def _windows(x: Tensor, window: Window) -> Tensor:
    """View x, padded with -inf, as (..., *output size, *kernel size)."""
    ndim = len(window.kernel_size)
    size = x.shape[-ndim:]
    pads: list[int] = []
    for length, count, extent, stride, padding in zip(
        size,
        window.output_size(size),
        window.extent,
        window.stride,
        window.padding,
        strict=True,
    ):
        # Exactly what the windows read: negative, that is a crop, where they end inside the input.
        pads = [padding, (count - 1) * stride + extent - length - padding, *pads]
    x = F.pad(x, pads, value=float("-inf"))
    for extent, stride, dilation in zip(window.extent, window.stride, window.dilation, strict=True):
        # unfold appends the window's dimension, which moves the next one to pool to -ndim.
        x = x.unfold(-ndim, extent, stride)[..., ::dilation]
    return x
