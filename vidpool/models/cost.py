"""The cost of a network: parameters, multiply-adds in three conventions, and its pooling layers.

The forward pass runs on the meta device, so it takes neither time nor memory for large clips.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import prod
from typing import Any

import torch
from torch import Tensor, nn

# PyTorch has no public name for what its batch norms share
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils.flop_counter import FlopCounterMode

from vidpool.errors import ConfigError
from vidpool.models.common import meta_copy
from vidpool.nn.functional import find_calls
from vidpool.nn.registry import adaptive_dimensions, pooled_dimensions
from vidpool.nn.selection import skip_reason

aten = torch.ops.aten


@dataclass(frozen=True)
class Cost:
    """Number of parameters, and of operations in one forward pass in evaluation mode."""

    parameters: int
    products: int
    """Multiply-adds of convolutions, linear layers and attention."""
    batch_norm: int
    """Operations of batch norm: 2 per element, or 1 without a scale."""
    relu: int
    """Operations of ReLU: 1 per element."""
    recurrent: int
    """Multiply-adds of LSTM and other recurrent layers; their activations are not counted."""

    @property
    def conv_linear(self) -> int:
        """Multiply-adds of convolutions, linear layers and attention only.

        Most papers report this number as "FLOPs".
        """
        return self.products

    @property
    def fvcore(self) -> int:
        """Multiply-adds plus batch norm, as `fvcore.nn.FlopCountAnalysis` counts.

        Unlike in fvcore, layer norm and interpolation are not counted.
        """
        return self.products + self.batch_norm

    @property
    def paper(self) -> int:
        """Multiply-adds plus batch norm, ReLU and recurrent layers, but not pooling.

        This convention reproduces Table 7 of "Refining activation downsampling with SoftPool".
        """
        return self.products + self.batch_norm + self.relu + self.recurrent


@dataclass(frozen=True)
class PoolingLayer:
    """A pooling layer of a network."""

    name: str
    """Dotted name in the model."""
    kind: str
    """Name of its class."""
    geometry: dict[str, Any]
    """Arguments that differ from the defaults of the class, such as `kernel_size` and `stride`;
    `output_size` of adaptive layers."""
    sizes: tuple[tuple[int, ...], tuple[int, ...]] | None
    """Sizes of input and output; None if the forward pass does not reach the layer."""
    swapped: bool
    """True if :func:`vidpool.nn.swap_pooling` replaces the layer by default."""
    called: bool = False
    """True for a call of a pooling function, which `functional=True` replaces."""


def measure_cost(model: nn.Module, size: Sequence[int], channels: int = 3) -> Cost:
    """Count the parameters, and the operations for one clip or picture.

    Args:
        model: Any network; it is not changed, and its weights are not used.
        size: (T, H, W) of the clip, or (H, W) of the picture.
        channels: Channels of the clip or picture.

    Returns:
        The counts; the properties of :class:`Cost` give the three conventions.

    Raises:
        ConfigError: If the network does not accept this size.
    """
    # number of operations of operators for which PyTorch's counter has no formula
    formulas = {
        aten.native_batch_norm: lambda x, scale, *_, **__: prod(x) * (1 if scale is None else 2),
        aten.relu: lambda x, **_: prod(x),
        aten.relu_: lambda x, **_: prod(x),
    }
    # PyTorch 2.11 decomposes operators whose overload has no formula
    overloads = {operator.default: formula for operator, formula in formulas.items()}
    empty = meta_copy(model)
    recurrent_layers = _shorten_recurrent_layers(empty)
    counter = FlopCounterMode(display=False, custom_mapping=formulas | overloads)
    with counter:
        _forward(empty, size, channels)
    counts = counter.get_flop_counts()
    total: dict[Any, int] = counts.get("Global", {})
    root = type(empty).__name__
    single_steps = sum(
        sum(counts.get(f"{root}.{name}" if name else root, {}).values())
        for name in recurrent_layers
    )
    products = sum(count for operator, count in total.items() if operator not in formulas)
    return Cost(
        parameters=sum(parameter.numel() for parameter in model.parameters()),
        products=(products - single_steps) // 2,
        batch_norm=total.get(aten.native_batch_norm, 0),
        relu=total.get(aten.relu, 0) + total.get(aten.relu_, 0),
        recurrent=sum(layer.products for layer in recurrent_layers.values()),
    )


def values_per_channel(model: nn.Module, size: Sequence[int], channels: int = 3) -> int | None:
    """Return the fewest values per channel that a trained batch norm gets of one clip or picture.

    Where it is 1, a batch of a single clip has no variance, and PyTorch refuses it in training.

    Args:
        model: Any network; it stays as it is and is not computed with. Its batch norms in
            evaluation mode, such as frozen ones, do not count.
        size: (T, H, W) of the clip, or (H, W) of the picture.
        channels: Channels of either.

    Returns:
        T * H * W of the smallest input of these batch norms; None if there is none.

    Raises:
        ConfigError: If the network cannot take this size.
    """
    counts: list[int] = []

    def count(_: nn.Module, inputs: tuple[Any, ...]) -> None:
        counts.append(prod(inputs[0].shape[2:]))

    empty = meta_copy(model)
    for name, module in model.named_modules():
        if isinstance(module, _BatchNorm) and module.training:
            empty.get_submodule(name).register_forward_pre_hook(count)
    _forward(empty, size, channels)
    return min(counts, default=None)


def pooling_layers(model: nn.Module, size: Sequence[int], channels: int = 3) -> list[PoolingLayer]:
    """List the pooling layers of a network, in its order.

    Calls of max and average pooling functions are listed last, under the names that
    :func:`vidpool.nn.swap_pooling` gives them; calls that it cannot replace are left out.

    Args:
        model: Any network; it is not changed, and its weights are not used.
        size: (T, H, W) of the clip, or (H, W) of the picture, for the sizes of the layers.
        channels: Channels of the clip or picture.

    Raises:
        ConfigError: If the network does not accept this size.
    """
    empty = meta_copy(model)
    layers = {name: module for name, module in empty.named_modules() if _is_pooling(module)}
    calls = find_calls(empty)
    for block in dict.fromkeys(call.block for call in calls.values()):
        block.install(block.calls)
    called = {name: call.layer for name, call in calls.items() if not skip_reason(call.layer)}
    _shorten_recurrent_layers(empty)
    sizes: dict[str, tuple[tuple[int, ...], tuple[int, ...]]] = {}

    def recorder(name: str) -> Callable[..., None]:
        def record(_: nn.Module, inputs: tuple[Any, ...], output: Any) -> None:
            sizes[name] = (tuple(inputs[0].shape[2:]), tuple(output.shape[2:]))

        return record

    for name, layer in (layers | called).items():
        layer.register_forward_hook(recorder(name))
    _forward(empty, size, channels)
    return [
        PoolingLayer(
            name,
            type(layer).__name__,
            _geometry(layer),
            sizes.get(name),
            swapped=name in layers and not skip_reason(layer),
            called=name in called,
        )
        for name, layer in (layers | called).items()
    ]


class _RecurrentLayer:
    """Run only the first step of a recurrent layer, and count the multiply-adds of all steps.

    PyTorch unrolls recurrent layers on tensors without data, which would take seconds.

    Args:
        layer: The layer, whose forward pass is replaced.
    """

    def __init__(self, layer: nn.RNNBase) -> None:
        self.products = 0
        self._layer = layer
        self._run = layer.forward
        layer.forward = self._forward

    def _forward(self, x: Tensor, state: Any = None) -> tuple[Tensor, Any]:
        time = 1 if self._layer.batch_first and x.dim() == 3 else 0
        output, state = self._run(x.narrow(time, 0, 1), state)
        weights = (w for name, w in self._layer.named_parameters() if name.startswith("weight"))
        self.products += x.shape[:-1].numel() * sum(weight.numel() for weight in weights)
        return output.new_empty(*x.shape[:-1], output.shape[-1]), state


def _shorten_recurrent_layers(model: nn.Module) -> dict[str, _RecurrentLayer]:
    """Replace the forward pass of each recurrent layer; the counts by name of the layer."""
    return {
        name: _RecurrentLayer(module)
        for name, module in model.named_modules()
        if isinstance(module, nn.RNNBase)
    }


def _forward(model: nn.Module, size: Sequence[int], channels: int) -> None:
    """Run a forward pass of a model on the meta device."""
    dtype = next((p.dtype for p in model.parameters() if p.is_floating_point()), torch.float32)
    with torch.no_grad():
        try:
            model(torch.empty(1, channels, *size, dtype=dtype, device="meta"))
        except ConfigError:
            raise
        except (RuntimeError, ValueError) as error:
            shape = "x".join(map(str, size))
            raise ConfigError(
                f"{type(model).__name__} cannot take {channels} channels of size {shape}: {error}"
            ) from error


def _is_pooling(module: nn.Module) -> bool:
    """Return whether a module is a registered or adaptive pooling layer or one of PyTorch's."""
    return (
        pooled_dimensions(module) > 0
        or adaptive_dimensions(module) > 0
        or any(
            cls.__module__ == nn.MaxPool2d.__module__ and "Pool" in cls.__name__
            for cls in type(module).__mro__
        )
    )


def _geometry(layer: nn.Module) -> dict[str, Any]:
    """Return the arguments of a pooling layer that differ from the defaults."""
    defaults = {"padding": 0, "dilation": 1, "ceil_mode": False, "count_include_pad": True}
    geometry = {}
    for name in ("output_size", "kernel_size", "stride", *defaults):
        value = getattr(layer, name, None)
        value = tuple(value) if isinstance(value, list) else value
        values = {*value} if isinstance(value, tuple) else {value}
        if value is not None and values != {defaults.get(name)}:
            geometry[name] = value
    return geometry
