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


def train_layer(
    layer: nn.Module,
    images: Sequence[Path],
    steps: int,
    seed: int,
    stepped: Callable[[], object] = lambda: None,
) -> list[float]:
    """Train a pooling layer to reconstruct images.

    The loss is the mean squared error between random crops of ``24 k`` pixels and the crops after
    pooling and enlarging (:func:`vidpool.analysis.pooled.pool_and_enlarge`, but not clipped).
    Adam, learning rate 0.01, which falls to 0 along a cosine; 8 crops a step. Crops are of at most
    64 of the images, which the seed chooses.

    Args:
        layer: Of :func:`vidpool.analysis.pooled.make_layer`, for pictures; trained in place.
        images: Image files; those that are smaller than a crop are left out.
        steps: Training steps.
        seed: Of the choice of images and crops.
        stepped: Called after each step.

    Returns:
        The loss of each step.

    Raises:
        DataError: An image cannot be read, or none is large enough.
    """
    kernel_size: int = layer.kernel_size  # type: ignore[assignment]
    side = CELLS * kernel_size
    generator = torch.Generator().manual_seed(seed)
    order = torch.randperm(len(images), generator=generator).tolist()
    pictures: list[Tensor] = []
    for place in order:
        picture = read_image(images[place])
        if min(picture.shape[1:]) >= side:
            pictures.append((picture * 255).round().byte())
        if len(pictures) == IMAGES_IN_MEMORY:
            break
    if not pictures:
        raise DataError(
            f"{images[0].parent}: no image is {side} pixels wide and high, as training with "
            f"k = {kernel_size} needs"
        )

    def crop() -> Tensor:
        picture = pictures[int(torch.randint(len(pictures), (), generator=generator))]
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
