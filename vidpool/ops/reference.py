"""SoftPool in plain PyTorch: the definition that the compiled kernels are tested against.

Stergiou, Poppe and Kalliatakis, "Refining activation downsampling with SoftPool", ICCV 2021.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Literal, TypeAlias, get_args

import torch
from torch import Tensor
from torch.nn import functional as F

from vidpool.errors import ConfigError
from vidpool.ops.geometry import Window, check_input, is_channels_last

Gradient: TypeAlias = Literal["exact", "paper"]

Cut: TypeAlias = Callable[[Tensor, float], Tensor]
"""Cut a tensor into windows along one axis; the cells of a window become the last dimension. Where
the axis has fewer cells than a window, the rest has the value of the second argument."""

NEGLIGIBLE = -1e4
"""Lower bound of z: e^z is 0 there in every dtype, and 0 * z stays 0 instead of NaN."""


def soft_pool(x: Tensor, window: Window, gradient: Gradient) -> Tensor:
    """Average each window with the softmax of its own values as weights (equations 1 and 2).

    A window with values `a` gives `sum_i w_i a_i` where `w = softmax(a)`. Padding and inputs of
    -inf have no weight; a window without other cells gives -inf, as in max pooling. NaN and +inf
    give NaN in the windows that contain them.

    Args:
        x: (N, C, *sizes) or (C, *sizes) with as many sizes as the window has dimensions; float16,
            bfloat16 (both computed in float32), float32 or float64.
        window: Geometry of the windows.
        gradient: `"exact"` is the derivative `w_i (1 + a_i - out)`; `"paper"` propagates `w_i`
            alone, as section 3.2 of the paper does.

    Returns:
        Tensor of x's dtype, with max pooling's output size; channels-last where x is.

    Raises:
        RuntimeError: If x has the wrong number of dimensions, a dimension other than N is empty,
            or x is smaller than one window.
        NotImplementedError: If x has another dtype.
        ConfigError: If `gradient` is unknown.
    """
    check_gradient(gradient)
    ndim = len(window.kernel_size)
    check_input(x, ndim)
    # copying channels-last input is faster than reading windows whose cells lie far apart
    values = (x if x.dtype == torch.float64 else x.float()).contiguous()

    padded = window.pad(values, window.output_size(x.shape[-ndim:]), float("-inf"))
    cuts = [partial(_cut_padded, window, axis) for axis in range(ndim)]
    return like_input(pool_axes(padded, cuts, gradient), x, ndim)


def _cut_padded(window: Window, axis: int, padded: Tensor, _: float) -> Tensor:
    return window.cut(padded, axis)


def pool_axes(values: Tensor, cuts: Sequence[Cut], gradient: Gradient) -> Tensor:
    """Pool the last axes of a tensor, one after the other.

    Args:
        values: float32 or float64.
        cuts: One function for each pooled axis, outermost first.
        gradient: See :func:`soft_pool`.
    """
    # A window is pooled axis by axis. Passed from one axis to the next are the maximum m of the
    # cells so far, their mass sum(e^(a - m)) and their moment sum(e^(a - m) (a - m)); then
    # out = m + moment / mass. The result does not depend on m, so autograd may treat m as a
    # constant, and `1 + a_i - out` stays accurate if the values are large.
    peak = values
    mass: Tensor | None = None
    moment: Tensor | None = None
    inplace = not torch.compiler.is_compiling()  # compiled graphs must be functional
    for cut in cuts:
        cells = cut(peak, float("-inf"))
        peak = cells.detach().amax(-1)
        # A window without values has the peak -inf, and -inf - (-inf) would be NaN.
        shift = peak.clamp_min(torch.finfo(peak.dtype).min)
        # unlike a clamp, the threshold lets NaN keep its gradient
        z = F.threshold(cells - shift.unsqueeze(-1), NEGLIGIBLE, NEGLIGIBLE, inplace=inplace)
        weight = z.exp()
        if gradient == "paper":
            weight = weight.detach()
        if mass is None or moment is None:
            mass, moment = weight, weight * z
        else:
            mass = weight * cut(mass, 0.0)
            moment = weight * cut(moment, 0.0) + mass * z
        mass, moment = mass.sum(-1), moment.sum(-1)
    assert mass is not None
    assert moment is not None
    # The maximum contributes 1 to the mass, so only windows without values are below 1/2. A clamp
    # at 1 would cut off the second derivative where one cell has all the weight.
    return peak + moment / F.threshold(mass, 0.5, 1.0)


def like_input(out: Tensor, x: Tensor, ndim: int) -> Tensor:
    """Return a result in the dtype and the memory layout that its input x has."""
    out = out.to(x.dtype)
    # Written without memory_format, which is not implemented under vmap.
    if is_channels_last(x, ndim):
        return out.movedim(1, -1).contiguous().movedim(-1, 1)
    return out


def check_gradient(gradient: str) -> None:
    """Check the name of a gradient.

    Raises:
        ConfigError: If the name is unknown.
    """
    if gradient not in get_args(Gradient):
        raise ConfigError(
            f"gradient must be one of {get_args(Gradient)}, but got {gradient!r}", "gradient"
        )
