"""Replacing the pooling of a network, with a small input for methods that need one."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from torch import nn

from vidpool.errors import ConfigError
from vidpool.models.common import first_convolution
from vidpool.nn import Swap, swap_pooling


def replace_pooling(
    model: nn.Module,
    pooling: str | Callable[..., nn.Module] | None,
    options: Mapping[str, Any] | None = None,
    *,
    name: str | None = None,
    example: Sequence[int] | None = None,
) -> list[Swap]:
    """Replace the pooling of a network by :func:`vidpool.nn.swap_pooling`.

    A forward pass of a small input shows the number of channels to methods that learn parameters
    for each channel.

    Args:
        model: The network, changed in place.
        pooling: Method of the new layers; see the argument `to` of `swap_pooling`. None keeps the
            network's pooling.
        options: Further arguments of `swap_pooling` and of the new layers.
        name: Name of the network for messages; defaults to its class.
        example: Shape of the small input; defaults to 64x64 pixels, and 8 frames if the network's
            first convolution is three-dimensional.

    Returns:
        The replaced layers.

    Raises:
        ConfigError: If the network has no pooling to replace, or an option cannot work.
    """
    options = dict(options or {})
    if pooling is None:
        if options:
            raise ConfigError(
                f"pooling_options {options} need a pooling, but it is None", "pooling_options"
            )
        return []
    name = name or type(model).__name__
    example = example or _guess_example(model)
    try:
        return swap_pooling(model, pooling, **({"example": example} | options))
    except ConfigError as error:
        if error.argument in options:
            raise _option_error(options, error) from error
        raise ConfigError(
            f"pooling {pooling!r} of {name}: {error}; pooling=None keeps the network's own pooling",
            argument="pooling",
        ) from error
    except (TypeError, ValueError, RuntimeError) as error:
        raise _option_error(options, error) from error


def _option_error(options: Mapping[str, Any], error: Exception) -> ConfigError:
    return ConfigError(f"pooling_options {options}: {error}", "pooling_options")


def _guess_example(model: nn.Module) -> tuple[int, ...] | None:
    """Return the shape of a small input by the first convolution; None if there is none."""
    layer = first_convolution(model)
    if layer is None:
        return None
    frames = (8,) if isinstance(layer, nn.Conv3d) else ()
    return 1, layer.in_channels, *frames, 64, 64
