"""What `vidpool bench pool` measures: SoftPool, the pooling that PyTorch has, and a copy of x."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from functools import partial
from typing import Any, Literal, NamedTuple, get_args

import torch
from torch import Tensor
from torch.nn import functional as F

from vidpool import ops
from vidpool.bench.timing import (
    Call,
    CudaStopwatch,
    Times,
    cpu_seconds,
    cuda_peak,
    interleave,
    warm_up,
)
from vidpool.errors import ConfigError
from vidpool.ops import reference
from vidpool.ops.geometry import Window, make_window

Layout = Literal["contiguous", "channels_last"]
Values = Literal["randn", "spread", "offset", "wide"]
Pass = Literal["forward", "forward_backward"]
PASSES: tuple[Pass, ...] = get_args(Pass)
POOLS = ("soft", "max", "avg", "reference", "compiled")

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
        name: For tables.
        shape: (N, C, T), (N, C, H, W) or (N, C, T, H, W).
        kernel_size: Cells of a window, one entry a pooled dimension or one for all, as below.
        stride: Step from one window to the next; empty means `kernel_size`.
        padding: Cells added on both sides.
    """

    name: str
    shape: tuple[int, ...]
    kernel_size: tuple[int, ...]
    stride: tuple[int, ...] = ()
    padding: tuple[int, ...] = (0,)

    @property
    def window(self) -> Window:
        """The checked window.

        Raises:
            ConfigError: The shape is none, or the window does not fit it.
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


class Measured(NamedTuple):
    """One of the things that are timed: a pool, or `clone`, and how far it goes."""

    what: str
    to: Pass = "forward"


CLONE = Measured("clone")


@dataclass
class Result:
    """What one case took.

    Attributes:
        case: Shape and window.
        layout: Memory format of x.
        dtype: Name of x's dtype.
        values: How x is distributed.
        times: What could be measured; `CLONE` among it.
        missing: Why the others could not.
        peak_bytes: On CUDA, what each call held at most, its result included.
    """

    case: Case
    layout: Layout
    dtype: str
    values: Values
    times: dict[Measured, Times]
    missing: dict[Measured, str] = field(default_factory=dict)
    peak_bytes: dict[Measured, int] = field(default_factory=dict)

    def ratio(self, of: Measured, to: Measured) -> float | None:
        """The ratio of two medians, or None where one of them is missing."""
        if of not in self.times or not (to in self.times and self.times[to].median):
            return None
        return self.times[of].median / self.times[to].median

    def as_dict(self) -> dict[str, Any]:
        """For JSON; seconds and bytes, by what was measured and then by how far it went."""
        return {
            "case": asdict(self.case) | {"stride": self.case.stride or self.case.kernel_size},
            "layout": self.layout,
            "dtype": self.dtype,
            "values": self.values,
            "seconds": _nested({key: times.as_dict() for key, times in self.times.items()}),
            "none": _nested(self.missing),
            "peak_bytes": _nested(self.peak_bytes) if self.peak_bytes else None,
        }


def measure(
    case: Case,
    layout: Layout = "contiguous",
    dtype: str = "float32",
    values: Values = "randn",
    device: str = "cpu",
    rounds: int | None = None,
    compiled: bool = False,
) -> Result:
    """Time forward (without gradients) and forward + backward of all pools, interleaved.

    The copy `x.clone()`, forward, is the yardstick for both.

    Args:
        case: Shape and window.
        layout: Memory format of x.
        dtype: One of `DTYPES`.
        values: One of `VALUES`.
        device: `cpu` or `cuda`, the current device.
        rounds: See :func:`vidpool.bench.timing.interleave`.
        compiled: Whether the plain-PyTorch reference is also measured under torch.compile.

    Raises:
        ConfigError: The window does not fit the shape, or the shape does not fit into memory.
    """
    window = case.window
    x = make_input(case.shape, layout, dtype, values, device)
    calls: dict[Measured, Call] = {CLONE: x.clone}
    for name, pool in _pools(window, compiled).items():
        calls[Measured(name)] = _without_grad(pool, x)
        calls[Measured(name, "forward_backward")] = _ForwardBackward(pool, x)
    missing = warm_up(calls)
    if CLONE in missing:
        raise ConfigError(f"{case.name} on {device}: no room for a copy of x ({missing[CLONE]})")
    calls = {key: call for key, call in calls.items() if key not in missing}
    peaks = {key: cuda_peak(call) for key, call in calls.items()} if device == "cuda" else {}
    times = interleave(calls, CudaStopwatch() if device == "cuda" else cpu_seconds, rounds)
    return Result(case, layout, dtype, values, times, missing, peaks)


def make_input(
    shape: Sequence[int], layout: Layout, dtype: str, values: Values, device: str = "cpu"
) -> Tensor:
    """Random numbers, the same each time and in every layout.

    Args:
        shape: (N, C, *sizes).
        layout: `channels_last` puts C innermost in memory, also in 1D and 3D.
        dtype: One of `DTYPES`.
        values: One of `VALUES`.
        device: A PyTorch device.

    Raises:
        ConfigError: They do not fit into memory.
    """
    deviation, mean = VALUES[values]
    try:
        x = torch.randn(*shape, generator=torch.Generator().manual_seed(0))
        x = x.mul_(deviation).add_(mean).to(device, DTYPES[dtype])
        return x.movedim(1, -1).contiguous().movedim(-1, 1) if layout == "channels_last" else x
    except RuntimeError as error:  # PyTorch has no error of its own for this on the CPU
        text = ",".join(map(str, shape))
        raise ConfigError(
            f"shape {text} is too large for {device}, give a smaller one: {error}"
        ) from None


def _pools(window: Window, compiled: bool) -> dict[str, Callable[[Tensor], Tensor]]:
    """The pools by name, each a function of x."""
    ndim = len(window.kernel_size)
    geometry = {name: getattr(window, name) for name in ("kernel_size", "stride", "padding")}

    def plain(x: Tensor) -> Tensor:
        return reference.soft_pool(x, window, "exact")

    pools: dict[str, Callable[[Tensor], Tensor]] = {
        "soft": partial(getattr(ops, f"soft_pool{ndim}d"), **geometry),
        "max": partial(getattr(F, f"max_pool{ndim}d"), **geometry),
        "avg": partial(getattr(F, f"avg_pool{ndim}d"), **geometry, count_include_pad=False),
        "reference": plain,
    }
    if compiled:
        # Left to itself the compiler would generalise from one case's shapes to the next one's,
        # and give up after eight of them.
        torch.compiler.reset()
        pools["compiled"] = torch.compile(plain, dynamic=False)
    return pools


def _without_grad(pool: Callable[[Tensor], Tensor], x: Tensor) -> Call:
    def call() -> Tensor:
        with torch.no_grad():
            return pool(x)

    return call


class _ForwardBackward:
    """Pools x and propagates a gradient back to it, as a user would.

    The gradient is made at the first call, because it has the result's memory format.
    """

    def __init__(self, pool: Callable[[Tensor], Tensor], x: Tensor) -> None:
        self._pool = pool
        self._x = x.detach().requires_grad_()
        self._gradient: Tensor | None = None

    def __call__(self) -> Tensor:
        y = self._pool(self._x)
        if self._gradient is None:
            self._gradient = torch.randn_like(y)
        (gradient,) = torch.autograd.grad(y, self._x, self._gradient)
        return gradient


def _nested(by_key: dict[Measured, Any]) -> dict[str, dict[str, Any]]:
    nested: dict[str, dict[str, Any]] = {}
    for key, value in by_key.items():
        nested.setdefault(key.what, {})[key.to] = value
    return nested
