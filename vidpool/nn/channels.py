"""Finding the number of channels of a model's pooling layers by a forward pass."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from vidpool.errors import ConfigError
from vidpool.nn.registry import pooled_dimensions


class _AllReached(Exception):  # noqa: N818 - not an error, but ends the forward pass
    """Every layer has been reached."""


def find_channels(
    model: nn.Module, layers: Mapping[str, nn.Module], example: Any
) -> dict[nn.Module, int]:
    """Return the number of input channels of some of a model's pooling layers.

    The model runs once in evaluation mode and, if some layers are only reached in training
    (auxiliary classifiers), once more in training mode. Parameters, buffers, modes and the state
    of the random number generators are restored.

    Args:
        model: The model.
        layers: Pooling layers of the model, by name.
        example: Input of the model; a sequence of ints is the shape of a tensor of zeros.

    Raises:
        ConfigError: If a layer is not reached, or is called with different numbers of channels.
    """
    if isinstance(example, Sequence) and all(isinstance(size, int) for size in example):
        like = next(model.parameters(), torch.empty(0))
        example = torch.zeros(*example, dtype=like.dtype, device=like.device)
    channels: dict[nn.Module, int] = {}
    names = {layer: name for name, layer in layers.items()}

    def record(layer: nn.Module, args: tuple[Any, ...]) -> None:
        x: Tensor = args[0]
        count = x.shape[-1 - pooled_dimensions(layer)]
        if channels.setdefault(layer, count) != count:
            raise ConfigError(
                f"{names[layer]} pools {channels[layer]} channels at one place and {count} at "
                "another, so it cannot learn anything for each: choose another pooling for it",
                argument="to",
            )

    def record_and_stop(layer: nn.Module, args: tuple[Any, ...]) -> None:
        record(layer, args)
        if len(channels) == len(names):
            raise _AllReached

    with _restored(model), torch.no_grad():
        _run(model.eval(), names, record, example)
        if len(channels) < len(names):
            _run(model.train(), names, record_and_stop, example)
    unreached = [name for layer, name in names.items() if layer not in channels]
    if unreached:
        raise ConfigError(
            f"the example does not reach {', '.join(unreached)}: say how many channels they have, "
            f"as in channels={{{unreached[0]!r}: 64}}, or leave them out with `where`",
            argument="example",
        )
    return channels


def _run(
    model: nn.Module,
    layers: Mapping[nn.Module, str],
    hook: Callable[[nn.Module, tuple[Any, ...]], None],
    example: Any,
) -> None:
    """Call a model with a forward pre-hook on some layers, which may raise `_AllReached`."""
    handles = [layer.register_forward_pre_hook(hook) for layer in layers]
    try:
        model(example)
    except _AllReached:
        pass
    finally:
        for handle in handles:
            handle.remove()


@contextmanager
def _restored(model: nn.Module) -> Iterator[None]:
    """Restore modes, buffers and the state of the random number generators at the end."""
    modes = {module: module.training for module in model.modules()}
    buffers = {buffer: buffer.clone() for buffer in model.buffers()}
    with torch.random.fork_rng():
        try:
            yield
        finally:
            for module, mode in modes.items():
                module.training = mode
            with torch.no_grad():
                for buffer, value in buffers.items():
                    buffer.copy_(value)
