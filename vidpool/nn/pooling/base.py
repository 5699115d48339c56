"""Base classes of the pooling layers, and the windows that they read."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from itertools import product
from types import EllipsisType
from typing import Any, ClassVar, NamedTuple, NoReturn, TypeAlias

import torch
from torch import Tensor, fx, nn
from torch.nn import functional as F

from vidpool.errors import ConfigError
from vidpool.nn.pooling.docstrings import complete_docstring
from vidpool.ops.geometry import Window, check_input, check_return_indices, make_window
from vidpool.ops.operator import refuse_scripting

Size: TypeAlias = int | Sequence[int]
"""An int for all pooled dimensions, or one int per dimension."""
CONVOLUTIONS: tuple[Callable[..., Any], ...] = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
"""Convolutions of one, two and three pooled dimensions."""
_MAX_POOL = (F.max_pool1d, F.max_pool2d, F.max_pool3d)


class PoolLayer(nn.Module):
    """A drop-in replacement for max pooling, with the same arguments and output sizes.

    The docstring of a subclass with an attribute `ndim` is completed by the arguments below and by
    those of its base class.

    Args:
        kernel_size: Size of the window; an int or one int per dimension.
        stride: Stride of the window, like `kernel_size`; defaults to `kernel_size`.
        padding: Number of cells added on both sides, which do not count as values; at most half of
            `kernel_size`.
        dilation: Distance between neighboring cells of a window.
        return_indices: Must be False. The argument keeps the positions of `torch.nn.MaxPool3d`'s
            arguments; unlike a maximum, the output does not come from one cell of the window.
        ceil_mode: Round the output size up instead of down.

    Raises:
        TypeError: If a size is neither an int nor a sequence of ints.
        RuntimeError: If a size is out of range.
        ConfigError: If `return_indices` is set.
    """

    ndim: ClassVar[int]
    """Number of pooled dimensions."""
    _repr_names: ClassVar[tuple[str, ...]] = ()
    """Attributes that `repr` shows in addition to the geometry."""

    def __init_subclass__(cls, **kwargs: Any) -> None:
        """Complete the docstring of a layer class; see :func:`complete_docstring`."""
        super().__init_subclass__(**kwargs)
        if "ndim" in vars(cls):
            cls.__doc__ = complete_docstring(cls, PoolLayer)

    def __init__(
        self,
        kernel_size: Size,
        stride: Size | None = None,
        padding: Size = 0,
        dilation: Size = 1,
        return_indices: bool = False,
        ceil_mode: bool = False,
    ) -> None:
        super().__init__()
        check_return_indices(type(self).__name__, return_indices)
        self.kernel_size = kernel_size
        self.stride = kernel_size if stride is None else stride
        self.padding = padding
        self.dilation = dilation
        self.ceil_mode = ceil_mode
        self._window()

    def extra_repr(self) -> str:
        """Return the arguments for `repr`."""
        names = ("kernel_size", "stride", "padding", "dilation", "ceil_mode", *self._repr_names)
        return ", ".join(f"{name}={getattr(self, name)!r}" for name in names)

    def __prepare_scriptable__(self) -> NoReturn:
        """Refuse torch.jit.script, also for a network that contains the layer."""
        refuse_scripting()

    def _window(self) -> Window:
        """Expand and check the geometry, whose attributes may have changed since construction."""
        return make_window(
            self.ndim, self.kernel_size, self.stride, self.padding, self.dilation, self.ceil_mode
        )


class WindowPool(PoolLayer, ABC):
    """A layer that computes each output from one window of the input.

    Padding does not count as values. Half-precision inputs are pooled in float32.
    """

    channels: int | None = None
    """C, if the layer has parameters for every channel."""

    def forward(self, x: Tensor) -> Tensor:
        """Pool x, (N, C, *sizes) or (C, *sizes), and return the same dtype.

        Raises:
            RuntimeError: If x has the wrong number of dimensions, a dimension other than N is
                empty, or x is smaller than one window.
            NotImplementedError: If x is not float16, bfloat16, float32 or float64.
            ConfigError: If the layer was made for another number of channels.
        """
        return self._pool_windows(x, self._pool)

    @abstractmethod
    def _pool(self, x: Tensor, windows: Windows) -> Tensor:
        """Pool x, (N, C, *sizes) in float32 or float64."""

    def _pool_windows(self, x: Tensor, pool: Callable[[Tensor, Windows], Tensor]) -> Tensor:
        if isinstance(x, fx.Proxy):
            if is_traced_part(self, x):
                return record_as_leaf(self, x)
            raise ConfigError(
                f"torch.fx can record {type(self).__name__} only as a part of a network and "
                "without hooks: trace nn.Sequential(layer), and register hooks after tracing"
            )
        check_input(x, self.ndim)
        batched = x.ndim == self.ndim + 2
        channels = x.shape[1 if batched else 0]
        if self.channels is not None and channels != self.channels:
            raise ConfigError(
                f"{type(self).__name__} was made for {self.channels} channels, "
                f"but the input has {channels}: make it with channels={channels}",
                argument="channels",
            )
        windows = Windows.of(self._window(), x.shape[-self.ndim :])
        values = in_single_precision(x if batched else x.unsqueeze(0))
        out = pool(values, windows).to(x.dtype)
        return out if batched else out.squeeze(0)

    def _set_channels(self, channels: int | None) -> None:
        """Set the number of channels with parameters of their own; None if they share parameters.

        `channels` is an argument, and parameters are created with the layer instead of lazily with
        the first input, because optimizers, DDP and `load_state_dict` need them before.

        Raises:
            ConfigError: If `channels` is below 1.
        """
        if channels is not None and channels < 1:
            raise ConfigError(f"channels must be at least 1, but is {channels}", "channels")
        self.channels = channels


class RandomPool(WindowPool):
    """A layer that samples at random in training and returns the expectation in evaluation."""

    def forward(self, x: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """Pool x, (N, C, *sizes) or (C, *sizes), and return the same dtype.

        Args:
            x: See :meth:`WindowPool.forward`, which also lists the exceptions.
            generator: Source of the random numbers, on x's device; defaults to PyTorch's global
                generator.
        """
        if generator is not None and isinstance(x, fx.Proxy):
            raise ConfigError("torch.fx cannot record a generator: leave it out", "generator")
        return self._pool_windows(x, partial(self._pool, generator=generator))

    @abstractmethod
    def _pool(
        self, x: Tensor, windows: Windows, generator: torch.Generator | None = None
    ) -> Tensor:
        """Pool x, (N, C, *sizes) in float32 or float64, depending on `self.training`."""


def is_traced_part(layer: nn.Module, x: Tensor) -> bool:
    """Return whether torch.fx is tracing a network that contains the layer, which can be a leaf."""
    return (
        isinstance(x, fx.Proxy)
        and isinstance(x.tracer, fx.Tracer)
        and x.tracer.root is not layer  # a layer alone cannot be called by its name
        # hooks are traced with the call of this layer, and would run again with the leaf
        and not (layer._forward_hooks or layer._forward_pre_hooks)
    )


def record_as_leaf(layer: nn.Module, x: Any) -> Any:
    """Record the call of a layer in the graph that torch.fx is tracing.

    PyTorch's own layers are recorded so by default; torch.fx enters the layers of other packages.

    Args:
        layer: The called layer, part of the traced network.
        x: Its input, an `fx.Proxy`.
    """
    return x.tracer.create_proxy("call_module", x.tracer.path_of_module(layer), (x,), {})


def check_odd(name: str, size: int) -> None:
    """Check the size of a convolution whose output is as large as its input.

    Raises:
        ConfigError: If it is even or below 1.
    """
    if size < 1 or size % 2 == 0:
        raise ConfigError(f"{name} must be odd and positive, but is {size}", name)


class Windows(NamedTuple):
    """A window, and the number of windows along each pooled axis of an input.

    Tensors are (N, C, *sizes) before and (N, C, *counts) after pooling. Windows are read through
    one strided view per cell, so only the memory of autograd grows with the number of cells.
    """

    window: Window
    counts: tuple[int, ...]

    @classmethod
    def of(cls, window: Window, size: Sequence[int]) -> Windows:
        """Return the windows of max pooling for an input of these pooled sizes.

        Raises:
            RuntimeError: If the input is smaller than one window.
        """
        return cls(window, window.output_size(size))

    def dense(self, size: Sequence[int]) -> Windows:
        """Return the same windows at stride 1, up to the end of the padding or the last window."""
        counts = tuple(
            max(length + 2 * padding - extent + 1, (count - 1) * stride + 1)
            for length, padding, extent, count, stride in zip(
                size,
                self.window.padding,
                self.window.extent,
                self.counts,
                self.window.stride,
                strict=True,
            )
        )
        return Windows(self.window._replace(stride=(1,) * len(counts)), counts)

    def pad(self, x: Tensor, value: float) -> Tensor:
        """Pad x with a value, or crop it at the end, to exactly the cells that the windows read."""
        return self.window.pad(x, self.counts, value)

    def cells(self, padded: Tensor) -> Iterator[Tensor]:
        """Yield the first cell of every window as (N, C, *counts), then the second, and so on.

        Args:
            padded: Result of :meth:`pad`.
        """
        axes: list[list[slice]] = [
            [
                slice(cell * dilation, cell * dilation + (count - 1) * stride + 1, stride)
                for cell in range(kernel)
            ]
            for kernel, dilation, count, stride in zip(
                self.window.kernel_size,
                self.window.dilation,
                self.counts,
                self.window.stride,
                strict=True,
            )
        ]
        for place in product(*axes):
            index: tuple[slice | EllipsisType, ...] = (..., *place)
            yield padded[index]

    def total(self, x: Tensor) -> Tensor:
        """Return the sum of each window, where padding counts as 0."""
        out = self.pad(x, 0)
        for axis in range(len(self.counts)):
            out = self.window.cut(out, axis).sum(-1)
        return out

    def maximum(self, x: Tensor) -> Tensor:
        """Return the maximum of each window; -inf for windows of padding only."""
        pool = _MAX_POOL[len(self.counts) - 1]
        # padded here, since max pooling's own padding is too small for `dense`
        padded = self.pad(x, float("-inf"))
        return pool(padded, self.window.kernel_size, self.window.stride, 0, self.window.dilation)

    def inside(self, x: Tensor) -> Tensor:
        """Return 1 for every cell of x, 0 for padding: (1, 1, *padded sizes), for `cells`."""
        return self.pad(x.new_ones(1, 1, *x.shape[-len(self.counts) :]), 0)

    def sizes(self, x: Tensor) -> Tensor:
        """Return the number of cells of each window inside x, at least 1: (1, 1, *counts)."""
        return self.total(x.new_ones(1, 1, *x.shape[-len(self.counts) :])).clamp_min(1)

    def mean(self, x: Tensor) -> Tensor:
        """Return the average of each window without its padding; 0 for windows of padding only."""
        return self.total(x) / self.sizes(x)


def per_channel(parameter: Tensor, x: Tensor) -> Tensor:
    """Reshape a parameter (C) or (1) to broadcast with x (N, C, *sizes), in x's dtype."""
    return parameter.to(x.dtype).view(-1, *(1,) * (x.ndim - 2))


def in_single_precision(x: Tensor) -> Tensor:
    """Return x as float32, or unchanged if it is float64."""
    return x if x.dtype == torch.float64 else x.float()
