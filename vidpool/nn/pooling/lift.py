"""LiftPool: the sum of the sub-bands of a learned lifting scheme."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from vidpool.errors import ConfigError
from vidpool.nn.pooling.base import CONVOLUTIONS, Size, WindowPool, Windows, check_odd


class _Lifting(nn.Module):
    """Split an axis into two sub-bands of half its length.

    With the even cells x_e and the odd cells x_o, the detail is `d = x_o - P(x_e)` and the
    approximation is `s = x_e + U(d)`. P and U are a convolution along the axis, ReLU, a 1x1
    convolution and tanh; channels are not mixed.
    """

    def __init__(self, ndim: int, axis: int, channels: int, filter_size: int) -> None:
        super().__init__()
        self.dim = axis - ndim
        size = [1] * ndim
        size[axis] = filter_size
        self.predict, self.update = (
            nn.Sequential(
                CONVOLUTIONS[ndim - 1](
                    channels,
                    channels,
                    tuple(size),
                    padding=tuple(length // 2 for length in size),
                    padding_mode="replicate",
                    groups=channels,
                ),
                nn.ReLU(),
                CONVOLUTIONS[ndim - 1](channels, channels, 1, groups=channels),
                nn.Tanh(),
            )
            for _ in range(2)
        )

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return the approximation and the detail of x, (N, C, *sizes) with an even size."""
        even, odd = x.unflatten(self.dim, (-1, 2)).unbind(self.dim)
        detail = odd - self.predict(even)
        return even + self.update(detail), detail


class _LiftPool(WindowPool):
    """Sum of the sub-bands.

    Each axis is split into its even and odd cells, from which a learned predictor and a learned
    updater compute a detail and an approximation; the output is the sum of all sub-bands: Zhao and
    Snoek, "LiftPool: bidirectional ConvNet pooling", ICLR 2021 (LiftDownPool, section 2). The
    paper's two regularizers, which would be terms of the training loss, are left out.

    The filters look beyond the window, so `kernel_size` only determines the output size and the
    position of the pairs of cells (the middle of the windows). Cells beyond the border replicate
    the last cell.

    Args:
        stride: 2 along every axis that is pooled, 1 (with `kernel_size` 1) along the others.
        dilation: Must be 1.
        channels: C.
        filter_size: Length of the first convolution of the predictor and the updater, odd.

    Raises:
        ConfigError: If an axis has another stride or a dilation, or `filter_size` is even.
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
        channels: int,
        filter_size: int = 5,
    ) -> None:
        super().__init__(kernel_size, stride, padding, dilation, return_indices, ceil_mode)
        self._set_channels(channels)
        window = self._window()
        if set(window.dilation) != {1}:
            raise ConfigError(
                f"LiftPool has no dilation, but it is {dilation!r}: choose other windows or "
                "another pooling",
                argument="dilation",
            )
        for kernel, step in zip(window.kernel_size, window.stride, strict=True):
            if step != 2 and not (step == 1 and kernel == 1):
                raise ConfigError(
                    "LiftPool halves an axis (stride 2) or leaves it alone (kernel_size 1, "
                    f"stride 1), but kernel_size is {kernel_size!r} and stride "
                    f"{self.stride!r}: choose other windows or another pooling",
                    argument="stride",
                )
        check_odd("filter_size", filter_size)
        self.lifting = nn.ModuleList(
            _Lifting(self.ndim, axis, channels, filter_size)
            for axis, step in enumerate(window.stride)
            if step == 2
        )

    def _pool(self, x: Tensor, windows: Windows) -> Tensor:
        parameter = next(self.parameters(), x)
        bands = self._align(x, windows).to(parameter.dtype)
        for lifting in self.lifting:
            bands = torch.cat(lifting(bands))
        return bands.unflatten(0, (2 ** len(self.lifting), x.shape[0])).sum(0)

    def _align(self, x: Tensor, windows: Windows) -> Tensor:
        """Crop x or replicate its border so that it consists of the middle cells of the windows."""
        pads: list[int] = []
        window = windows.window
        for length, count, kernel, stride, padding in zip(
            x.shape[2:],
            windows.counts,
            window.kernel_size,
            window.stride,
            window.padding,
            strict=True,
        ):
            first = (kernel - 1) // 2 - padding
            pads = [-first, first + count * stride - length, *pads]
        if not any(pads):
            return x
        return F.pad(x, pads, mode="replicate")


class LiftPool1d(_LiftPool):
    """LiftPool over T of (N, C, T) or (C, T)."""

    ndim = 1


class LiftPool2d(_LiftPool):
    """LiftPool over H, W of (N, C, H, W) or (C, H, W)."""

    ndim = 2


class LiftPool3d(_LiftPool):
    """LiftPool over T, H, W of (N, C, T, H, W) or (C, T, H, W)."""

    ndim = 3
