"""Pooling of images and clips for comparison with the original: layers, training, enlarging.

Pooled images are enlarged to their original size, so that they can be compared with the original.
Learned pooling methods can be trained to lose as little as possible.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from vidpool.analysis.images import read_image
from vidpool.errors import ConfigError, DataError
from vidpool.nn.registry import find_method

LEARNED = ("lp", "gated", "dpp", "lip", "ordinal", "lift")
"""Methods with parameters, which have their initial values until they are trained."""
RANDOM = ("stochastic", "s3")
"""Methods that draw at random in training mode, in which they are compared here."""
CROP_WINDOWS = 24
"""Windows of a training crop on each axis."""
BATCH_SIZE = 8
MAX_TRAINING_IMAGES = 64


class Setting(NamedTuple):
    """A pooling method and the size of its window."""

    method: str
    kernel_size: int


def make_pooling_layer(method: str, kernel_size: int, dimensions: int, seed: int = 0) -> nn.Module:
    """Create a layer that pools RGB images or clips with windows that do not overlap.

    Windows that reach beyond the border pool the pixels within it.

    Args:
        method: Name of a pooling method from ``vidpool.nn.POOLING_METHODS``.
        kernel_size: Size and stride of the window on each axis.
        dimensions: 2 for images, 3 for clips.
        seed: Seed of parameters with random initial values (LiftPool's). Defaults to 0.

    Raises:
        ConfigError: The method is unknown, or does not support this kernel size.
    """
    factory = find_method(method).factory(dimensions)
    if kernel_size < 1:
        raise ConfigError(f"a window has at least 1 pixel, got k = {kernel_size}")
    options: dict[str, Any] = {} if factory.channels == "none" else {"channels": 3}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        layer = factory(kernel_size=kernel_size, ceil_mode=True, **options)
    return layer.train(method in RANDOM)


def make_layers(
    methods: Sequence[str], kernel_sizes: Sequence[int], seed: int = 0, dimensions: int = 2
) -> dict[Setting, nn.Module]:
    """Create a layer for each setting that its method supports.

    Args:
        methods: Names of pooling methods from ``vidpool.nn.POOLING_METHODS``.
        kernel_sizes: Sizes of windows.
        seed: Seed of parameters with random initial values. Defaults to 0.
        dimensions: 2 for images, 3 for clips.

    Raises:
        ConfigError: A method is unknown, or supports none of the kernel sizes.
    """
    layers: dict[Setting, nn.Module] = {}
    for method in methods:
        reason = None
        for kernel_size in kernel_sizes:
            try:
                layers[Setting(method, kernel_size)] = make_pooling_layer(
                    method, kernel_size, dimensions, seed
                )
            except ConfigError as error:
                reason = error
        if reason and not any(setting.method == method for setting in layers):
            raise reason
    return layers


def pool_and_enlarge(x: Tensor, layer: nn.Module, seed: int = 0) -> Tensor:
    """Pool an image or clip, and enlarge the result to the original size.

    Enlarging uses area interpolation as in the paper (Figure S1). For an integer factor this
    repeats each pooled value over its window, like OpenCV's ``INTER_AREA`` and
    ``torch.nn.functional.interpolate(mode="area")``.

    Args:
        x: float32 (3, H, W) or (3, T, H, W) in [0, 1].
        layer: Layer created by :func:`make_pooling_layer`.
        seed: Seed of the layer's random draws. Defaults to 0.

    Returns:
        Tensor of x's shape, clipped to [0, 1] because sums and learned layers may exceed that.

    Raises:
        ConfigError: x is smaller than the window.
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


def read_training_images(images: Sequence[Path], seed: int) -> tuple[list[Tensor], list[str]]:
    """Read up to 64 randomly chosen images for training.

    Args:
        images: Image files.
        seed: Seed of the choice.

    Returns:
        Images, uint8 (3, H, W), and the errors of files that could not be read.
    """
    order = torch.randperm(len(images), generator=torch.Generator().manual_seed(seed))
    chosen: list[Tensor] = []
    failures: list[str] = []
    for number in order.tolist():
        try:
            chosen.append((read_image(images[number]) * 255).round().byte())
        except DataError as error:
            failures.append(str(error))
        if len(chosen) == MAX_TRAINING_IMAGES:
            break
    return chosen, failures


def train_layer(
    layer: nn.Module,
    images: Sequence[Tensor],
    steps: int,
    seed: int,
    on_step: Callable[[], object] = lambda: None,
) -> list[float]:
    """Train a pooling layer to reconstruct images.

    The loss is the mean squared error between random crops and the crops after pooling and
    enlarging (:func:`pool_and_enlarge`, without clipping). A crop is 24 windows wide and high. The
    optimizer is Adam with a learning rate of 0.01, which decays to 0 along a cosine, and batches
    of 8 crops.

    Args:
        layer: Layer for images, created by :func:`make_pooling_layer`; trained in place.
        images: Images from :func:`read_training_images`; those smaller than a crop are skipped.
        steps: Number of training steps.
        seed: Seed of the random crops.
        on_step: Function called after each step.

    Returns:
        The loss of each step.

    Raises:
        DataError: No image is large enough.
    """
    kernel_size: int = layer.kernel_size  # type: ignore[assignment]
    side = CROP_WINDOWS * kernel_size
    generator = torch.Generator().manual_seed(seed)
    large = [image for image in images if min(image.shape[1:]) >= side]
    if not large:
        raise DataError(
            f"no image to train with is {side} pixels wide and high, as k = {kernel_size} needs"
        )

    def crop() -> Tensor:
        image = large[int(torch.randint(len(large), (), generator=generator))]
        top, left = (
            int(torch.randint(size - side + 1, (), generator=generator)) for size in image.shape[1:]
        )
        return image[:, top : top + side, left : left + side].float() / 255

    optimizer = torch.optim.Adam(layer.parameters(), lr=0.01)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    losses = []
    for _ in range(steps):
        batch = torch.stack([crop() for _ in range(BATCH_SIZE)])
        enlarged = F.interpolate(layer(batch), scale_factor=kernel_size, mode="nearest")
        loss = F.mse_loss(enlarged, batch)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
        losses.append(float(loss.detach()))
        on_step()
    return losses
