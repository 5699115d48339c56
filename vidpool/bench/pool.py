"""The measurement of `vidpool bench pool`: SoftPool, PyTorch's own pooling, and a copy of x."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Literal, NamedTuple, get_args

import torch
from matplotlib.figure import Figure
from torch import Tensor
from torch.nn import functional as F

from vidpool import ops
from vidpool.bench.cases import Case, MemoryFormat, PoolingSetting, Values, make_input
from vidpool.bench.chart import (
    Bar,
    draw_bars,
    machine_line,
    mark_baseline,
    ratio_bar,
    use_log_scale,
)
from vidpool.bench.timing import (
    Call,
    CudaStopwatch,
    Times,
    cpu_seconds,
    cuda_peak_bytes,
    interleave,
    median_ratio,
    warm_up,
)
from vidpool.errors import ConfigError
from vidpool.figures import BLUE, GREEN, GREY, ORANGE, SKY
from vidpool.ops import reference
from vidpool.ops.geometry import Window

Pass = Literal["forward", "forward_backward"]
PASSES: tuple[Pass, ...] = get_args(Pass)
POOLS = ("soft", "max", "avg", "reference", "compiled")
COLOURS = dict(zip(POOLS, (ORANGE, BLUE, SKY, GREY, GREEN), strict=True))
TITLES = {"forward": "forward", "forward_backward": "forward + backward"}
# ratio of the longest bar to the shortest one from which a linear scale would hide the short bar
LOG_SCALE_FROM = 12


class PoolCall(NamedTuple):
    """A call that is timed.

    Attributes:
        pool: Name from ``POOLS``, or ``clone``.
        passes: ``forward``, or ``forward_backward`` for both passes.
    """

    pool: str
    passes: Pass = "forward"


CLONE = PoolCall("clone")


@dataclass
class PoolResult(PoolingSetting):
    """Times of all pools in one setting.

    Attributes:
        times: Times by call; ``CLONE`` is one of them.
        missing: Reasons why the other calls could not be measured.
        peak_bytes: Peak memory of each call on CUDA, including its result.
    """

    times: dict[PoolCall, Times]
    missing: dict[PoolCall, str] = field(default_factory=dict)
    peak_bytes: dict[PoolCall, int] = field(default_factory=dict)

    def ratio(self, numerator: PoolCall, denominator: PoolCall) -> float | None:
        """Return the ratio of two medians, or None if one of them is missing."""
        return median_ratio(self.times, numerator, denominator)

    def as_dict(self) -> dict[str, Any]:
        """Return the result as JSON values: seconds and bytes by pool, then by passes."""
        return {
            **super().as_dict(),
            "seconds": _nested({key: times.as_dict() for key, times in self.times.items()}),
            "none": _nested(self.missing),
            "peak_bytes": _nested(self.peak_bytes) if self.peak_bytes else None,
        }


def measure_pools(
    case: Case,
    layout: MemoryFormat = "contiguous",
    dtype: str = "float32",
    values: Values = "randn",
    device: str = "cpu",
    rounds: int | None = None,
    compiled: bool = False,
) -> PoolResult:
    """Time forward (without gradients) and forward + backward of all pools, interleaved.

    The forward copy ``x.clone()`` is the baseline of both.

    Args:
        case: Shape and window.
        layout: Memory format of x.
        dtype: Name from :data:`vidpool.bench.cases.DTYPES`.
        values: Distribution of x, from :data:`vidpool.bench.cases.VALUES`.
        device: ``cpu``, or ``cuda`` for the current device.
        rounds: Number of rounds; see :func:`vidpool.bench.timing.interleave`.
        compiled: Also measure the reference in plain PyTorch under ``torch.compile``.

    Raises:
        ConfigError: The window does not fit the shape, or the shape does not fit into memory.
    """
    window = case.window
    x = make_input(case.shape, layout, dtype, values, device)
    calls: dict[PoolCall, Call] = {CLONE: x.clone}
    for name, pool in _pools(window, compiled).items():
        calls[PoolCall(name)] = _without_grad(pool, x)
        calls[PoolCall(name, "forward_backward")] = _ForwardBackward(pool, x)
    missing = warm_up(calls)
    if CLONE in missing:
        raise ConfigError(f"{case.name} on {device}: no room for a copy of x ({missing[CLONE]})")
    calls = {key: call for key, call in calls.items() if key not in missing}
    peaks = {key: cuda_peak_bytes(call) for key, call in calls.items()} if device == "cuda" else {}
    times = interleave(calls, CudaStopwatch() if device == "cuda" else cpu_seconds, rounds)
    return PoolResult(case, layout, dtype, values, times, missing, peaks)


def _pools(window: Window, compiled: bool) -> dict[str, Callable[[Tensor], Tensor]]:
    """Return the pools by name, each a function of x."""
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
        # By default the compiler generalizes from the shapes of one case to those of the next, and
        # gives up after eight cases.
        torch.compiler.reset()
        pools["compiled"] = torch.compile(plain, dynamic=False)
    return pools


def _without_grad(pool: Callable[[Tensor], Tensor], x: Tensor) -> Call:
    def call() -> Tensor:
        with torch.no_grad():
            return pool(x)

    return call


class _ForwardBackward:
    """Pool x and propagate a gradient back to it, as user code does.

    The gradient is created at the first call, because it has the memory format of the result.
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


def _nested(by_key: dict[PoolCall, Any]) -> dict[str, dict[str, Any]]:
    nested: dict[str, dict[str, Any]] = {}
    for key, value in by_key.items():
        nested.setdefault(key.pool, {})[key.passes] = value
    return nested


def pool_chart(results: Sequence[PoolResult], machine: dict[str, Any]) -> Figure:
    """Draw how many times as long as ``x.clone()`` each pool takes.

    Each setting is a group of bars, whose whiskers are the quartiles. Forward is on the left and
    forward + backward on the right, both relative to the same forward copy.

    Args:
        results: Results, at least one.
        machine: Description by :func:`vidpool.bench.timing.describe_machine`.
    """
    measured = {call.pool for result in results for call in (*result.times, *result.missing)}
    pools = [pool for pool in POOLS if pool in measured]
    figure = Figure(
        figsize=(13, 2.2 + 0.17 * len(results) * (len(pools) + 1)), layout="constrained"
    )
    panels = figure.subplots(1, 2, sharex=True, sharey=True)
    ends = [1.0]  # of the baseline
    height = 1 / (len(pools) + 1)
    for axes, passes in zip(panels, PASSES, strict=True):
        for i, pool in enumerate(pools):
            shift = (i - (len(pools) - 1) / 2) * height
            bars = [
                _bar(result, PoolCall(pool, passes), group + shift)
                for group, result in enumerate(results)
            ]
            ends += draw_bars(axes, bars, pool, COLOURS[pool], 0.92 * height)
        mark_baseline(axes)
        axes.set(title=TITLES[passes], xlabel="times as long as x.clone()")
    left = panels[0]
    if max(ends) / min(ends) > LOG_SCALE_FROM:
        use_log_scale(left, 0.7 * min(ends), 1.7 * max(ends))
    else:
        left.set_xlim(0, 1.15 * max(ends))
    # settings that all results share are in the title, the others at each group
    settings = {
        name: [str(getattr(result, name)) for result in results]
        for name in ("layout", "dtype", "values")
    }
    varying = [values for values in settings.values() if len(set(values)) > 1]
    shared = ", ".join(values[0] for values in settings.values() if len(set(values)) == 1)
    labels = [
        "\n".join(filter(None, [result.case.name, ", ".join(parts)]))
        for result, *parts in zip(results, *varying, strict=True)
    ]
    left.set_yticks(range(len(results)), labels)
    left.set_ylim(len(results) - 0.5, -0.5)  # the first case on top
    figure.suptitle(
        f"Pooling beside a copy of its input{shared and f' ({shared})'}\n{machine_line(machine)}"
    )
    figure.legend(*left.get_legend_handles_labels(), loc="outside lower center", ncols=len(pools))
    return figure


def _bar(result: PoolResult, call: PoolCall, position: float) -> Bar:
    if result.ratio(call, CLONE) is None:
        return Bar(position, None)
    return ratio_bar(position, result.times[call], result.times[CLONE])
