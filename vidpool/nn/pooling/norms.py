"""Sum, power average and learned-norm pooling."""

from __future__ import annotations

from math import expm1, isfinite, log
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from vidpool.errors import ConfigError
from vidpool.nn.pooling.base import Size, WindowPool, Windows, per_channel


class _SumPool(WindowPool):
    """Sum of each window: "Sum" in Tables 1 and 3 of the SoftPool paper."""

    def _pool(self, x: Tensor, windows: Windows) -> Tensor:
        return windows.total(x)


class SumPool1d(_SumPool):
    """Sum over T of (N, C, T) or (C, T)."""

    ndim = 1


class SumPool2d(_SumPool):
    """Sum over H, W of (N, C, H, W) or (C, H, W)."""

    ndim = 2


class SumPool3d(_SumPool):
    """Sum over T, H, W of (N, C, T, H, W) or (C, T, H, W)."""

    ndim = 3


def _norm(x: Tensor, windows: Windows, p: float | Tensor, *, mean: bool) -> Tensor:
    """Return `(sum |a|^p)^(1/p)` of each window, with the mean instead of the sum if `mean`.

    Powers of `|a| / max |a|` do not overflow, and their sum is at least 1, so the root has finite
    derivatives. Windows of zeros give 0 with the derivative 0.
    """
    magnitude = x.abs()
    # The result does not depend on the scale, so autograd treats it as a constant.
    scale = windows.maximum(magnitude.detach()).clamp_min(torch.finfo(x.dtype).tiny)
    total = torch.zeros_like(scale)
    for cell in windows.cells(windows.pad(magnitude, 0)):
        total = total + (cell / scale) ** p
    empty = scale == torch.finfo(x.dtype).tiny
    total = total.masked_fill(empty, 1)
    if mean:
        total = total / windows.sizes(x)
    return (scale * total ** (1 / p)).masked_fill(empty, 0)


class _PowerAvgPool(WindowPool):
    """Power average with a fixed p.

    `(sum |a|^p)^(1/p)`: "Pow-average" in Tables 1 and 3 of the SoftPool paper; Bruna Estrach,
    Szlam and LeCun, "Signal recovery from pooling representations", ICML 2014. Despite its name,
    it is a sum: it equals sum pooling at p = 1 and approaches max pooling as p grows (Figure 2 and
    section 2 of the SoftPool paper), as does :class:`torch.nn.LPPool3d`. Unlike that class, it
    uses the magnitude of negative values and supports padding, dilation and partial windows.

    Args:
        p: The power, at least 1.

    Raises:
        ConfigError: If p is below 1 or not finite.
    """

    _repr_names: ClassVar[tuple[str, ...]] = ("p",)

    def __init__(
        self,
        kernel_size: Size,
        stride: Size | None = None,
        padding: Size = 0,
        dilation: Size = 1,
        return_indices: bool = False,
        ceil_mode: bool = False,
        *,
        p: float = 2.0,
    ) -> None:
        if not (isfinite(p) and p >= 1):
            raise ConfigError(
                f"p must be at least 1 and finite, but is {p}: below 1 the gradient at 0 is "
                "infinite, and p = inf is max pooling",
                argument="p",
            )
        super().__init__(kernel_size, stride, padding, dilation, return_indices, ceil_mode)
        self.p = p

    def _pool(self, x: Tensor, windows: Windows) -> Tensor:
        return _norm(x, windows, self.p, mean=False)


class PowerAvgPool1d(_PowerAvgPool):
    """Power average over T of (N, C, T) or (C, T)."""

    ndim = 1


class PowerAvgPool2d(_PowerAvgPool):
    """Power average over H, W of (N, C, H, W) or (C, H, W)."""

    ndim = 2


class PowerAvgPool3d(_PowerAvgPool):
    """Power average over T, H, W of (N, C, T, H, W) or (C, T, H, W)."""

    ndim = 3


class _LearnedNormPool(WindowPool):
    """Norm whose p is learned.

    `(mean |a|^p)^(1/p)` with `p = 1 + log(1 + e^rho)`: Gulcehre, Cho, Pascanu and Bengio,
    "Learned-norm pooling for deep feedforward and recurrent neural networks", ECML PKDD 2014,
    equation 1, with the centers at 0. The SoftPool paper calls it "Lp". The
    result lies between the mean and the maximum of the magnitudes.

    Args:
        channels: C, to learn one p per channel as in the paper; None learns one p for all channels.
        p: Initial value, above 1.

    Raises:
        ConfigError: If p is not above 1 and finite, or `channels` is below 1.
    """

    _repr_names: ClassVar[tuple[str, ...]] = ("channels",)

    def __init__(
        self,
        kernel_size: Size,
        stride: Size | None = None,
        padding: Size = 0,
        dilation: Size = 1,
        return_indices: bool = False,
        ceil_mode: bool = False,
        *,
        channels: int | None = None,
        p: float = 2.0,
    ) -> None:
        if not (isfinite(p) and p > 1):
            raise ConfigError(
                f"p must begin above 1 and finite, but is {p}: 2 is a good choice", "p"
            )
        super().__init__(kernel_size, stride, padding, dilation, return_indices, ceil_mode)
        self._set_channels(channels)
        # the inverse of softplus, log(e^(p-1) - 1), which is p - 1 where that overflows
        rho = log(expm1(p - 1)) if p < 30 else p - 1
        self.rho = nn.Parameter(torch.full((channels or 1,), rho))

    def _pool(self, x: Tensor, windows: Windows) -> Tensor:
        p = 1 + F.softplus(per_channel(self.rho, x))
        return _norm(x, windows, p, mean=True)


class LearnedNormPool1d(_LearnedNormPool):
    """Learned-norm pooling over T of (N, C, T) or (C, T)."""

    ndim = 1


class LearnedNormPool2d(_LearnedNormPool):
    """Learned-norm pooling over H, W of (N, C, H, W) or (C, H, W)."""

    ndim = 2


class LearnedNormPool3d(_LearnedNormPool):
    """Learned-norm pooling over T, H, W of (N, C, T, H, W) or (C, T, H, W)."""

    ndim = 3
