"""Cases of pooling to time: shapes and windows, and the layout and distribution of the input."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from vidpool.errors import ConfigError
from vidpool.ops.geometry import Window, make_window

MemoryFormat = Literal["contiguous", "channels_last"]
Values = Literal["randn", "spread", "offset", "wide"]

DTYPES = {
    "float32": torch.float32,
    "float16": torch.float16,
    "bfloat16": torch.bfloat16,
    "float64": torch.float64,
}
VALUES: dict[Values, tuple[float, float]] = {  # standard deviation, mean
    "randn": (1, 0),
    "spread": (30, 0),
    "offset": (1, 300),
    "wide": (100, 0),
}


@dataclass(frozen=True)
class Case:
    """A shape and the window that it is pooled with.

    Attributes:
        name: Name of the case in tables.
        shape: (N, C, T), (N, C, H, W) or (N, C, T, H, W).
        kernel_size: Size of the window; one entry per pooled dimension, or one for all of them.
        stride: Step from one window to the next, likewise; ``kernel_size`` if empty.
        padding: Cells added on both sides, likewise.
    """

    name: str
    shape: tuple[int, ...]
    kernel_size: tuple[int, ...]
    stride: tuple[int, ...] = ()
    padding: tuple[int, ...] = (0,)

    @property
    def window(self) -> Window:
        """The window, checked against the shape.

        Raises:
            ConfigError: The shape is invalid, or the window does not fit it.
        """
        text = f"shape {','.join(map(str, self.shape))}"
        if len(self.shape) not in (3, 4, 5) or min(self.shape) < 1:
            raise ConfigError(
                f"{text} cannot be pooled; give N,C,T or N,C,H,W or N,C,T,H,W, each 1 or more"
            )
        text += (
            f" cannot be pooled with kernel_size {self.kernel_size}, "
            f"stride {self.stride or self.kernel_size} and padding {self.padding}"
        )
        try:
            window = make_window(
                len(self.shape) - 2,
                self.kernel_size,
                self.stride or None,
                self.padding,
                dilation=1,
                ceil_mode=False,
            )
        except RuntimeError as error:
            raise ConfigError(f"{text}: {error}") from None
        try:
            window.output_size(self.shape[2:])
        except RuntimeError:
            raise ConfigError(
                f"{text}: no window has room in it; give a larger shape, a smaller kernel_size or "
                "more padding"
            ) from None
        return window


_TIMES_112, _TIMES_56, _TIMES_14 = (1, 64, 16, 112, 112), (2, 64, 8, 56, 56), (4, 256, 8, 14, 14)
_HALVE_ALL, _HALVE_SPACE = ((3,), (2,), (1,)), ((1, 3, 3), (1, 2, 2), (0, 1, 1))
CASES = {
    case.name: case
    for case in (
        Case("64x16x112_k2", _TIMES_112, (2,)),
        Case("64x8x56_k3", _TIMES_56, *_HALVE_ALL),
        Case("64x8x56_133", _TIMES_56, *_HALVE_SPACE),
        Case("256x8x14_k2", _TIMES_14, (2,)),
        Case("256x8x14_k3", _TIMES_14, *_HALVE_ALL),
        Case("256x8x14_133", _TIMES_14, *_HALVE_SPACE),
        Case("2d_64x112_k3", (16, 64, 112, 112), *_HALVE_ALL),
        Case("tiny_8x4_k2", (1, 8, 4, 4, 4), (2,)),
    )
}


@dataclass
class PoolingSetting:
    """A case and the input that it is measured with.

    Attributes:
        case: Shape and window.
        layout: Memory format of x.
        dtype: Name of x's dtype.
        values: Distribution of x.
    """

    case: Case
    layout: MemoryFormat
    dtype: str
    values: Values

    def as_dict(self) -> dict[str, Any]:
        """Return the setting as JSON values."""
        return {
            "case": asdict(self.case) | {"stride": self.case.stride or self.case.kernel_size},
            "layout": self.layout,
            "dtype": self.dtype,
            "values": self.values,
        }


def make_input(
    shape: Sequence[int], layout: MemoryFormat, dtype: str, values: Values, device: str = "cpu"
) -> Tensor:
    """Return a tensor of random numbers, the same in each call and in every layout.

    Args:
        shape: (N, C, *sizes).
        layout: Memory format; ``channels_last`` puts C innermost in memory, also in 1D and 3D.
        dtype: Name from ``DTYPES``.
        values: Distribution from ``VALUES``.
        device: PyTorch device. Defaults to the CPU.

    Raises:
        ConfigError: The tensor does not fit into memory.
    """
    deviation, mean = VALUES[values]
    try:
        x = torch.randn(*shape, generator=torch.Generator().manual_seed(0))
        x = x.mul_(deviation).add_(mean).to(device, DTYPES[dtype])
        return x.movedim(1, -1).contiguous().movedim(-1, 1) if layout == "channels_last" else x
    except RuntimeError as error:  # on the CPU PyTorch has no class for out of memory
        text = ",".join(map(str, shape))
        raise ConfigError(
            f"shape {text} is too large for {device}, give a smaller one: {error}"
        ) from None
