"""What ``vidpool bench pool --methods`` measures: the pooling methods of Table 3, as layers."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from functools import partial
from typing import Any, Literal, NamedTuple, get_args

import torch
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks

from vidpool.bench.pool import Case, Layout, Values, make_input
from vidpool.bench.timing import (
    Call,
    CudaStopwatch,
    Times,
    cpu_seconds,
    cuda_peak,
    interleave,
    warm_up,
)
from vidpool.nn.registry import POOLING_METHODS

Direction = Literal["forward", "backward"]
DIRECTIONS: tuple[Direction, ...] = get_args(Direction)
TABLE_3_CASE = Case("64x3x224_k2", (64, 3, 224, 224), (2,))
"""As many ImageNet pictures as the paper had on a GPU; layer and window are not in the paper."""
BASELINE = "avg"


class Timed(NamedTuple):
    """One of the things that are timed: a method, and a direction."""

    method: str
    direction: Direction


@dataclass
class MethodsResult:
    """What the methods took in one setting.

    Attributes:
        case: Shape and window.
        layout: Memory format of x.
        dtype: Name of x's dtype.
        values: How x is distributed.
        times: What could be measured.
        clock: What the times are of: ``cpu`` is CPU time, ``wall`` that by the clock, ``cuda`` the
            device's.
        missing: Why the others could not.
        kept_bytes: What a forward pass keeps for its backward pass, by method: see
            :func:`kept_bytes`.
        peak_bytes: On CUDA, what forward + backward held at most beyond x and the layer, its
            gradients included, by method.
    """

    case: Case
    layout: Layout
    dtype: str
    values: Values
    times: dict[Timed, Times]
    clock: Literal["cpu", "wall", "cuda"] = "cpu"
    missing: dict[str, str] = field(default_factory=dict)
    kept_bytes: dict[str, int] = field(default_factory=dict)
    peak_bytes: dict[str, int] = field(default_factory=dict)

    @property
    def methods(self) -> list[str]:
        """The methods that were measured, in order."""
        return list(dict.fromkeys(key.method for key in self.times))

    def ratio(self, method: str, direction: Direction) -> float | None:
        """The median over average pooling's, or None where one of them is missing."""
        of, to = Timed(method, direction), Timed(BASELINE, direction)
        if of not in self.times or not (to in self.times and self.times[to].median):
            return None
        return self.times[of].median / self.times[to].median

    def as_dict(self) -> dict[str, Any]:
        """For JSON; seconds and bytes by method."""
        seconds: dict[str, dict[str, Any]] = {}
        for key, times in self.times.items():
            seconds.setdefault(key.method, {})[key.direction] = times.as_dict()
        return {
            "case": asdict(self.case) | {"stride": self.case.stride or self.case.kernel_size},
            "layout": self.layout,
            "dtype": self.dtype,
            "values": self.values,
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
    layout: Layout = "contiguous",
    dtype: str = "float32",
    values: Values = "randn",
    device: str = "cpu",
    rounds: int | None = None,
) -> MethodsResult:
    """Time forward and backward of pooling layers, interleaved, average pooling among them.

    Layers are in training mode, where those that draw at random do so. Forward is without
    gradients; backward alone is what remains of a training step: the gradients of x and of what
    the layer learns. On one thread of a CPU its time counts, which other processes disturb little;
    with more threads that by the clock.

    Args:
        methods: Of :data:`vidpool.nn.registry.POOLING_METHODS`.
        case: Shape and window.
        layout: Memory format of x.
        dtype: One of :data:`vidpool.bench.pool.DTYPES`.
        values: One of :data:`vidpool.bench.pool.VALUES`.
        device: `cpu` or `cuda`, the current device.
        rounds: See :func:`vidpool.bench.timing.interleave`.

    Raises:
        ConfigError: The window does not fit the shape, or the shape does not fit into memory.
    """
    _ = case.window  # checks it
    x = make_input(case.shape, layout, dtype, values, device)
    names = [name for name in POOLING_METHODS if name == BASELINE or name in methods]
    missing: dict[str, str] = {}
    calls: dict[Timed, _Forward | _Backward] = {}
    kept: dict[str, int] = {}
    peaks: dict[str, int] = {}
    for name in names:
        own: dict[Timed, _Forward | _Backward] = {}
        try:
            layer = make_layer(name, case).to(x.device, x.dtype)
        except RuntimeError as error:
            missing[name] = str(error).strip().splitlines()[0]
            continue
        own[Timed(name, "forward")] = _Forward(layer, x)
        own[Timed(name, "backward")] = _Backward(layer, x)
        reasons = warm_up({key: call.prepared for key, call in own.items()})
        if reasons:
            missing[name] = next(iter(reasons.values()))
            continue
        calls |= own
        kept[name] = kept_bytes(layer, x)
        if device == "cuda":
            peaks[name] = cuda_peak(own[Timed(name, "backward")].prepared)
    clock, stopwatch = _stopwatch(device)
    times = interleave(calls, _after_preparing(stopwatch), rounds)
    return MethodsResult(case, layout, dtype, values, times, clock, missing, kept, peaks)


def make_layer(method: str, case: Case) -> nn.Module:
    """The layer of a method for a case, in training mode; its parameters are as when it is new.

    Average pooling leaves padding out, since it weighs nothing in the others.

    Raises:
        ConfigError: The method cannot pool such windows.
        RuntimeError: Likewise.
    """
    layers, channels = POOLING_METHODS[method]
    cls: Callable[..., nn.Module] = layers[len(case.shape) - 3]
    options: dict[str, Any] = {"channels": case.shape[1]} if channels == "needed" else {}
    if method == "avg":
        options["count_include_pad"] = False
    window = case.window
    return cls(window.kernel_size, window.stride, window.padding, **options)


def kept_bytes(layer: nn.Module, x: Tensor) -> int:
    """Bytes that a forward pass keeps for its backward pass, beyond x and the layer's parameters.

    They stay in memory until the network's backward pass comes back to the layer. The result counts
    where it is kept, and what has a memory of its own counts once.

    Args:
        layer: Any module.
        x: Its input.
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
    """Pools x without gradients."""

    def __init__(self, layer: nn.Module, x: Tensor) -> None:
        self._layer = layer
        self._x = x

    def prepare(self) -> None:
        """Nothing is to be done before."""

    def __call__(self) -> Tensor:
        with torch.no_grad():
            result: Tensor = self._layer(self._x)
        return result

    def prepared(self) -> object:
        return self()


class _Backward:
    """Propagates a gradient back through a layer to x and to what the layer learns."""

    def __init__(self, layer: nn.Module, x: Tensor) -> None:
        self._layer = layer
        self._x = x.detach().requires_grad_()
        self._y: Tensor | None = None
        self._gradient: Tensor | None = None

    def prepare(self) -> None:
        """Pool x; the gradient is made at the first time, because it has the result's layout."""
        self._y = self._layer(self._x)
        if self._gradient is None:
            self._gradient = torch.randn_like(self._y)

    def __call__(self) -> tuple[Tensor | None, ...]:
        assert self._y is not None
        wanted = (self._x, *self._layer.parameters())
        gradients = torch.autograd.grad(self._y, wanted, self._gradient, allow_unused=True)
        self._y = None
        return gradients

    def prepared(self) -> object:
        """Forward and backward."""
        self.prepare()
        return self()


def _stopwatch(device: str) -> tuple[Literal["cpu", "wall", "cuda"], Callable[[Call], float]]:
    if device == "cuda":
        return "cuda", CudaStopwatch()
    if torch.get_num_threads() == 1:
        return "cpu", partial(cpu_seconds, clock=time.process_time)
    return "wall", cpu_seconds


def _after_preparing(seconds_of: Callable[[Call], float]) -> Callable[[Any], float]:
    """Measure a call, but not what it prepares."""

    def seconds(call: _Forward | _Backward) -> float:
        call.prepare()
        return seconds_of(call)

    return seconds
