"""Learned pooling, trained to lose as little as possible of images."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from vidpool.analysis.images import read_image
from vidpool.errors import DataError

CELLS = 24
"""Windows of a training crop on each axis."""
BATCH = 8
IMAGES_IN_MEMORY = 64


def read_training(images: Sequence[Path], seed: int) -> tuple[list[Tensor], list[str]]:
    """Read the images to train with: at most 64, which the seed chooses.

    Args:
        images: Image files.
        seed: Of the choice.

    Returns:
        Pictures, uint8 (3, H, W), and why others could not be read.
    """
    order = torch.randperm(len(images), generator=torch.Generator().manual_seed(seed))
    pictures: list[Tensor] = []
    failures: list[str] = []
    for place in order.tolist():
        try:
            pictures.append((read_image(images[place]) * 255).round().byte())
        except DataError as error:
            failures.append(str(error))
        if len(pictures) == IMAGES_IN_MEMORY:
            break
    return pictures, failures


def train_layer(
    layer: nn.Module,
    pictures: Sequence[Tensor],
    steps: int,
    seed: int,
    stepped: Callable[[], object] = lambda: None,
) -> list[float]:
    """Train a pooling layer to reconstruct images.

    The loss is the mean squared error between random crops of ``24 k`` pixels and the crops after
    pooling and enlarging (:func:`vidpool.analysis.pooled.pool_and_enlarge`, but not clipped).
    Adam, learning rate 0.01, which falls to 0 along a cosine; 8 crops a step.

    Args:
        layer: Of :func:`vidpool.analysis.pooled.make_layer`, for pictures; trained in place.
        pictures: Of :func:`read_training`; those that are smaller than a crop are left out.
        steps: Training steps.
        seed: Of the choice of crops.
        stepped: Called after each step.

    Returns:
        The loss of each step.

    Raises:
        DataError: None is large enough.
    """
    kernel_size: int = layer.kernel_size  # type: ignore[assignment]
    side = CELLS * kernel_size
    generator = torch.Generator().manual_seed(seed)
    large = [picture for picture in pictures if min(picture.shape[1:]) >= side]
    if not large:
        raise DataError(
            f"no image to train with is {side} pixels wide and high, as k = {kernel_size} needs"
        )

    def crop() -> Tensor:
        picture = large[int(torch.randint(len(large), (), generator=generator))]
        top, left = (
            int(torch.randint(size - side + 1, (), generator=generator))
            for size in picture.shape[1:]
        )
        return picture[:, top : top + side, left : left + side].float() / 255

    optimizer = torch.optim.Adam(layer.parameters(), lr=0.01)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    losses = []
    for _ in range(steps):
        batch = torch.stack([crop() for _ in range(BATCH)])
        enlarged = F.interpolate(layer(batch), scale_factor=kernel_size, mode="nearest")
        loss = F.mse_loss(enlarged, batch)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
        losses.append(float(loss.detach()))
        stepped()
    return losses
