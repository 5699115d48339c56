"""Pictures and clips after pooling, at their own size again, so that they can be compared."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from vidpool.errors import ConfigError
from vidpool.nn import POOLING_METHODS

LEARNED = ("lp", "gated", "dpp", "lip", "ordinal", "lift")
"""Methods with parameters; untrained they do what they begin with."""
RANDOM = ("stochastic", "s3")
"""Methods that draw at random while training, as they are compared here."""


def make_layer(method: str, kernel_size: int, dimensions: int, seed: int = 0) -> nn.Module:
    """Make a layer that pools RGB pictures or clips by windows that do not overlap.

    Windows that reach beyond the last pixels pool the pixels that they have.

    Args:
        method: A short name of ``vidpool.nn.POOLING_METHODS``.
        kernel_size: k, the window's size and stride on every axis.
        dimensions: 2 for pictures, 3 for clips.
        seed: Of parameters that begin at random (LiftPool's).

    Raises:
        ConfigError: The method is unknown, or cannot pool by this factor.
    """
    if method not in POOLING_METHODS:
        raise ConfigError(f"unknown pooling {method!r}: choose from {', '.join(POOLING_METHODS)}")
    if kernel_size < 1:
        raise ConfigError(f"a window has at least 1 pixel, got k = {kernel_size}")
    layers, channels = POOLING_METHODS[method]
    options = {} if channels == "none" else {"channels": 3}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        layer = layers[dimensions - 1](kernel_size, ceil_mode=True, **options)
    return layer.train(method in RANDOM)


def pool_and_enlarge(x: Tensor, layer: nn.Module, seed: int = 0) -> Tensor:
    """Pool a picture or clip, and enlarge the result to the size that it had.

    It is enlarged by area interpolation, as the paper does (Figure S1): for a whole factor that
    repeats each pooled value over its window, with OpenCV's `INTER_AREA` as with
    `torch.nn.functional.interpolate(mode="area")`.

    Args:
        x: float32 (3, H, W) or (3, T, H, W) in [0, 1].
        layer: See :func:`make_layer`.
        seed: Of what the layer draws.

    Returns:
        Of x's shape, clipped to [0, 1]: sums, and what learned layers make of a picture, may lie
        outside.

    Raises:
        ConfigError: x is smaller than a window.
    """
    kernel_size: Any = layer.kernel_size
    if min(x.shape[1:]) < kernel_size:
        raise ConfigError(
            f"pixels or frames {tuple(x.shape[1:])} are fewer than those of a window, "
            f"{kernel_size} on every axis: choose a smaller k"
        )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        pooled = layer(x[None])[0]
    for axis, size in enumerate(x.shape[1:], start=1):
        pooled = pooled.repeat_interleave(kernel_size, axis).narrow(axis, 0, size)
    return pooled.clamp(0, 1)
