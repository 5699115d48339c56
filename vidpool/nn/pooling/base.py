"""What the pooling layers share: max pooling's arguments, and the way to windows and back."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, ClassVar, TypeAlias

import torch
from torch import Tensor, nn

from vidpool.errors import ConfigError
from vidpool.nn.pooling.windows import Windows, in_single_precision
from vidpool.ops.geometry import Window, check_input, make_window

Size: TypeAlias = int | Sequence[int]
"""An int for all pooled dimensions, or one a dimension."""
CONVOLUTIONS: tuple[Callable[..., Any], ...] = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
"""For one, two and three pooled dimensions."""


class PoolLayer(nn.Module):
    """A layer that takes the place of max pooling: same arguments and output sizes.

    `ceil_mode` is keyword-only because max pooling has `return_indices`, which has no meaning
    here, in its place.

    Args:
        kernel_size: Cells of a window; an int or one a dimension, like the next three.
        stride: Step from one window to the next; None means `kernel_size`.
        padding: Cells added on both sides; at most half of `kernel_size`.
        dilation: Step from one cell of a window to the next.
        ceil_mode: Round the output size up instead of down.

    Raises:
        TypeError: If a size is neither an int nor a sequence of ints.
        RuntimeError: If a size is out of range.
    """

    ndim: ClassVar[int]
    """Number of pooled dimensions."""
    _shown: ClassVar[tuple[str, ...]] = ()
    """Attributes that `repr` shows beside the geometry."""

    def __init__(
        self,
        kernel_size: Size,
        stride: Size | None = None,
        padding: Size = 0,
        dilation: Size = 1,
        *,
        ceil_mode: bool = False,
    ) -> None:
        super().__init__()
        self.kernel_size = kernel_size
        self.stride = kernel_size if stride is None else stride
        self.padding = padding
        self.dilation = dilation
        self.ceil_mode = ceil_mode
        self._window()

    def extra_repr(self) -> str:
        """Return the arguments as `repr` shows them."""
        names = ("kernel_size", "stride", "padding", "dilation", "ceil_mode", *self._shown)
        return ", ".join(f"{name}={getattr(self, name)!r}" for name in names)

    def _window(self) -> Window:
        """Expand and check the geometry, which may have been set anew since the layer was made."""
        return make_window(
            self.ndim, self.kernel_size, self.stride, self.padding, self.dilation, self.ceil_mode
        )


class WindowPool(PoolLayer, ABC):
    """A layer that computes each output from one window of the input.

    Padded cells are no values. Half-precision inputs are pooled in float32.
    """

    channels: int | None = None
    """C, where the layer has parameters for every channel."""

    def forward(self, x: Tensor) -> Tensor:
        """Pool x, (N, C, *sizes) or (C, *sizes); the dtype stays.

        Raises:
            RuntimeError: If x has the wrong number of dimensions, is empty but for N, or has no
                room for one window.
            NotImplementedError: If x is no float16, bfloat16, float32 or float64.
            ConfigError: If the layer was made for another number of channels.
        """
        return self._by_windows(x, self._pool)

    @abstractmethod
    def _pool(self, x: Tensor, windows: Windows) -> Tensor:
        """Pool x, (N, C, *sizes) in float32 or float64."""

    def _by_windows(self, x: Tensor, pool: Callable[[Tensor, Windows], Tensor]) -> Tensor:
        check_input(x, self.ndim)
        batched = x.ndim == self.ndim + 2
        channels = x.shape[1 if batched else 0]
        if self.channels is not None and channels != self.channels:
            raise ConfigError(
                f"{type(self).__name__} was made for {self.channels} channels, "
                f"but the input has {channels}: make it with channels={channels}"
            )
        windows = Windows.of(self._window(), x.shape[-self.ndim :])
        values = in_single_precision(x if batched else x.unsqueeze(0))
        out = pool(values, windows).to(x.dtype)
        return out if batched else out.squeeze(0)

    def _learn_for(self, channels: int | None) -> None:
        """Note the channels that the layer has parameters for; None: it shares them.

        `channels` is an argument, and parameters are made with the layer instead of lazily at the
        first input, because optimisers, DDP and `load_state_dict` need them before any input has
        been seen.

        Raises:
            ConfigError: If `channels` is below 1.
        """
        if channels is not None and channels < 1:
            raise ConfigError(f"channels must be at least 1, but is {channels}")
        self.channels = channels


class RandomPool(WindowPool):
    """A layer that draws at random while training and gives the expectation in evaluation."""

    def forward(self, x: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """Pool x, (N, C, *sizes) or (C, *sizes); the dtype stays.

        Args:
            x: See :meth:`WindowPool.forward`, also for what is raised.
            generator: Source of the random numbers, on x's device; None is PyTorch's own, which
                `torch.manual_seed` seeds.
        """
        return self._by_windows(x, partial(self._pool, generator=generator))

    @abstractmethod
    def _pool(
        self, x: Tensor, windows: Windows, generator: torch.Generator | None = None
    ) -> Tensor:
        """Pool x, (N, C, *sizes) in float32 or float64; `self.training` says how."""


def check_odd(name: str, size: int) -> None:
    """Check the size of a convolution that keeps the input's.

    Raises:
        ConfigError: If it is even or below 1.
    """
    if size < 1 or size % 2 == 0:
        raise ConfigError(f"{name} must be odd and positive, but is {size}")
