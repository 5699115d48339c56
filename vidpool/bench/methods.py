"""The measurement of `vidpool bench pool --methods`: the pooling methods of Table 3, as layers."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Literal, NamedTuple, get_args

import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks

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
    first_line,
    interleave,
    median_ratio,
    warm_up,
)
from vidpool.figures import GREY, ORANGE
from vidpool.nn.registry import POOLING_METHODS, find_method

Direction = Literal["forward", "backward"]
DIRECTIONS: tuple[Direction, ...] = get_args(Direction)
TABLE_3_CASE = Case("64x3x224_k2", (64, 3, 224, 224), (2,))
"""The paper's ImageNet batch per GPU; the paper states neither the layer nor the window."""
BASELINE = "avg"


class MethodCall(NamedTuple):
    """A call that is timed: a direction of a method."""

    method: str
    direction: Direction


@dataclass
class MethodsResult(PoolingSetting):
    """Times of the methods in one setting.

    Attributes:
        times: Times by call.
        clock: Kind of the times: ``cpu`` for CPU time, ``wall`` for elapsed time, ``cuda`` for the
            time of the device.
        missing: Reasons why the other methods could not be measured.
        kept_bytes: Memory that a forward pass keeps for its backward pass, by method; see
            :func:`kept_bytes`.
        peak_bytes: Peak memory of forward + backward on CUDA, by method: beyond x and the layer,
            gradients included.
    """

    times: dict[MethodCall, Times]
    clock: Literal["cpu", "wall", "cuda"] = "cpu"
    missing: dict[str, str] = field(default_factory=dict)
    kept_bytes: dict[str, int] = field(default_factory=dict)
    peak_bytes: dict[str, int] = field(default_factory=dict)

    @property
    def methods(self) -> list[str]:
        """The methods that were measured, in order."""
        return list(dict.fromkeys(call.method for call in self.times))

    def ratio(self, method: str, direction: Direction) -> float | None:
        """Return the median relative to average pooling, or None if one of them is missing."""
        return median_ratio(
            self.times, MethodCall(method, direction), MethodCall(BASELINE, direction)
        )

    def as_dict(self) -> dict[str, Any]:
        """Return the result as JSON values: seconds and bytes by method."""
        seconds: dict[str, dict[str, Any]] = {}
        for call, times in self.times.items():
            seconds.setdefault(call.method, {})[call.direction] = times.as_dict()
        return {
            **super().as_dict(),
            "clock": self.clock,
            "seconds": seconds,
            "ratio_to_average": {
                name: {direction: self.ratio(name, direction) for direction in DIRECTIONS}
                for name in self.methods
            },
            "none": self.missing,
            "kept_bytes": self.kept_bytes,
            "peak_bytes": self.peak_bytes or None,
        }


def measure_methods(
    methods: Sequence[str],
    case: Case = TABLE_3_CASE,
    layout: MemoryFormat = "contiguous",
    dtype: str = "float32",
    values: Values = "randn",
    device: str = "cpu",
    rounds: int | None = None,
) -> MethodsResult:
    """Time forward and backward of pooling layers, interleaved; always includes average pooling.

    Layers are in training mode, so that stochastic methods draw at random. Forward runs without
    gradients. Backward computes the gradients of x and of the layer's parameters, without the
    forward pass before it. Times on one CPU thread are CPU time, which other processes hardly
    affect; times on more threads are elapsed time.

    Args:
        methods: Names from :data:`vidpool.nn.registry.POOLING_METHODS`.
        case: Shape and window.
        layout: Memory format of x.
        dtype: Name from :data:`vidpool.bench.cases.DTYPES`.
        values: Distribution of x, from :data:`vidpool.bench.cases.VALUES`.
        device: ``cpu``, or ``cuda`` for the current device.
        rounds: Number of rounds; see :func:`vidpool.bench.timing.interleave`.

    Raises:
        ConfigError: The window does not fit the shape, or the shape does not fit into memory.
    """
    _ = case.window  # checks it
    x = make_input(case.shape, layout, dtype, values, device)
    names = [name for name in POOLING_METHODS if name == BASELINE or name in methods]
    missing: dict[str, str] = {}
    calls: dict[MethodCall, _Forward | _Backward] = {}
    kept: dict[str, int] = {}
    peaks: dict[str, int] = {}
    for name in names:
        own: dict[MethodCall, _Forward | _Backward] = {}
        try:
            layer = make_layer(name, case).to(x.device, x.dtype)
        except RuntimeError as error:
            missing[name] = first_line(error)
            continue
        own[MethodCall(name, "forward")] = _Forward(layer, x)
        own[MethodCall(name, "backward")] = _Backward(layer, x)
        reasons = warm_up({key: call.run_prepared for key, call in own.items()})
        if reasons:
            missing[name] = next(iter(reasons.values()))
            continue
        calls |= own
        kept[name] = kept_bytes(layer, x)
        if device == "cuda":
            peaks[name] = cuda_peak_bytes(own[MethodCall(name, "backward")].run_prepared)
    clock, stopwatch = _stopwatch(device)
    times = interleave(calls, _without_preparation(stopwatch), rounds)
    return MethodsResult(case, layout, dtype, values, times, clock, missing, kept, peaks)


def make_layer(method: str, case: Case) -> nn.Module:
    """Create the layer of a method for a case, in training mode, with its initial parameters.

    Average pooling does not count padding, because padding has no weight in the other methods.

    Raises:
        ConfigError: The method cannot pool with this window.
        RuntimeError: Likewise.
    """
    factory = find_method(method).factory(len(case.shape) - 2)
    window = case.window
    options: dict[str, Any] = {
        "kernel_size": window.kernel_size,
        "stride": window.stride,
        "padding": window.padding,
    }
    if factory.channels == "needed":
        options["channels"] = case.shape[1]
    return factory(**options)


def kept_bytes(layer: nn.Module, x: Tensor) -> int:
    """Return the bytes that a forward pass keeps for backward, beyond x and the parameters.

    This memory is in use until the network's backward pass reaches the layer. The layer's output
    counts if it is kept; tensors that share a storage count once.

    Args:
        layer: Any module.
        x: Input of the layer.
    """
    given = {tensor.untyped_storage().data_ptr() for tensor in (x, *layer.parameters())}
    kept: dict[int, int] = {}

    def count(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in given:
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    with saved_tensors_hooks(count, lambda tensor: tensor):
        y = layer(x.detach().requires_grad_())
    del y
    return sum(kept.values())


class _Forward:
    """Pool x without gradients."""

    def __init__(self, layer: nn.Module, x: Tensor) -> None:
        self._layer = layer
        self._x = x

    def prepare(self) -> None:
        """Do nothing: the forward pass needs no preparation."""

    def __call__(self) -> Tensor:
        with torch.no_grad():
            result: Tensor = self._layer(self._x)
        return result

    def run_prepared(self) -> object:
        return self()


class _Backward:
    """Propagate a gradient back through a layer to x and to the layer's parameters."""

    def __init__(self, layer: nn.Module, x: Tensor) -> None:
        self._layer = layer
        self._x = x.detach().requires_grad_()
        self._y: Tensor | None = None
        self._gradient: Tensor | None = None

    def prepare(self) -> None:
        """Pool x; the first call also creates the gradient, which has the layout of the result."""
        self._y = self._layer(self._x)
        if self._gradient is None:
            self._gradient = torch.randn_like(self._y)

    def __call__(self) -> tuple[Tensor | None, ...]:
        assert self._y is not None
        wanted = (self._x, *self._layer.parameters())
        gradients = torch.autograd.grad(self._y, wanted, self._gradient, allow_unused=True)
        self._y = None
        return gradients

    def run_prepared(self) -> object:
        """Run forward and backward."""
        self.prepare()
        return self()


def _stopwatch(device: str) -> tuple[Literal["cpu", "wall", "cuda"], Callable[[Call], float]]:
    if device == "cuda":
        return "cuda", CudaStopwatch()
    if torch.get_num_threads() == 1:
        return "cpu", partial(cpu_seconds, clock=time.process_time)
    return "wall", cpu_seconds


def _without_preparation(seconds_of: Callable[[Call], float]) -> Callable[[Any], float]:
    """Return a function that measures a call, but not its preparation."""

    def seconds(call: _Forward | _Backward) -> float:
        call.prepare()
        return seconds_of(call)

    return seconds


def methods_chart(
    result: MethodsResult,
    machine: dict[str, Any],
    published: Mapping[str, Mapping[Direction, float]],
) -> Figure:
    """Draw how many times as long as average pooling each method takes.

    Forward is on the left, backward on the right; whiskers are the quartiles.

    Args:
        result: Times of the methods.
        machine: Description by :func:`vidpool.bench.timing.describe_machine`.
        published: The paper's ratios for the same kind of device, by method.
    """
    methods = [name for name in result.methods if name != BASELINE]
    figure = Figure(figsize=(12, 2.2 + 0.42 * len(methods)), layout="constrained")
    left, right = figure.subplots(1, 2, sharey=True)
    for axes, direction in zip((left, right), DIRECTIONS, strict=True):
        _draw_direction(axes, result, methods, direction, published)
    left.set_yticks(range(len(methods)), methods)
    left.set_ylim(len(methods) - 0.5, -0.5)  # the first method on top
    shape = ", ".join(map(str, result.case.shape))
    figure.suptitle(
        f"Pooling methods over average pooling (Table 3)\n({shape}), "
        f"window {' x '.join(map(str, result.case.window.kernel_size))}, "
        f"{result.dtype}, {result.layout}; {machine_line(machine)}"
    )
    figure.legend(*left.get_legend_handles_labels(), loc="outside lower center", ncols=2)
    return figure


def _draw_direction(
    axes: Axes,
    result: MethodsResult,
    methods: list[str],
    direction: Direction,
    published: Mapping[str, Mapping[Direction, float]],
) -> None:
    """Draw the measured and the published ratios of one direction."""
    measured_bars, published_bars = [], []
    for row, method in enumerate(methods):
        if result.ratio(method, direction) is not None:
            times, baseline = (
                result.times[MethodCall(name, direction)] for name in (method, BASELINE)
            )
            measured_bars.append(ratio_bar(row - 0.2, times, baseline))
        if method in published:
            published_bars.append(Bar(row + 0.2, published[method][direction]))
    ends = [
        1.0,  # of average pooling
        *draw_bars(axes, measured_bars, "measured here", ORANGE, 0.38, offset=4),
        *draw_bars(axes, published_bars, "the paper", GREY, 0.38, offset=4),
    ]
    use_log_scale(axes, 0.7 * min(ends), 2.2 * max(ends))
    mark_baseline(axes)
    axes.set(title=direction, xlabel="times as long as average pooling")
