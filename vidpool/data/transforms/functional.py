"""Transforms of training clips that torchvision does not have, and mixing of clips.

All draw from PyTorch's global CPU generator (:func:`seeded` sets it), whatever the device of the
pixels, and treat all frames of a clip alike.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torchvision import tv_tensors
from torchvision.transforms import v2
from torchvision.transforms.v2 import functional as F


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Draw from a seed within the block; what is drawn after it is as if nothing had happened."""
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)  # the CPU's alone
        yield


class ChannelCurves(v2.Transform):
    """Give each channel a random gamma and a random offset.

    Args:
        gamma: The range of the exponent of values in [0, 1].
        offset: The range of what is added, in grey levels of 255.
    """

    def __init__(self, gamma: tuple[float, float], offset: tuple[float, float]) -> None:
        super().__init__()
        self.gamma = gamma
        self.offset = offset

    def make_params(self, flat_inputs: list[Any]) -> dict[str, Any]:
        """Draw what every value of every channel becomes: uint8 (C, 256)."""
        channels = flat_inputs[0].shape[-3]
        gamma = torch.empty(channels, 1).uniform_(*self.gamma)
        offset = torch.empty(channels, 1).uniform_(*self.offset)
        values = torch.linspace(0, 1, 256) ** gamma * 255 + offset
        return {"table": values.round().clamp(0, 255).byte()}

    def transform(self, inpt: Any, params: dict[str, Any]) -> Any:
        """Look every value up; uint8 (…, C, H, W)."""
        tables = params["table"].to(inpt.device)
        channels = zip(tables, inpt.unbind(-3), strict=True)
        return torch.stack([table[channel.int()] for table, channel in channels], dim=-3)


class Blur(v2.GaussianBlur):
    """Gaussian blur that leaves a single row or column alone: it has no border to mirror."""

    def transform(self, inpt: Any, params: dict[str, Any]) -> Any:
        """Blur (…, C, H, W)."""
        return inpt if min(inpt.shape[-2:]) == 1 else super().transform(inpt, params)


class PerspectiveZoom(v2.Transform):
    """Stretch a random quadrangle to the whole picture, so that no border has to be made up.

    Args:
        reach: How far, at most, its corners lie from the picture's, as a share of the sides.
    """

    def __init__(self, reach: float) -> None:
        super().__init__()
        self.reach = reach

    def make_params(self, flat_inputs: list[Any]) -> dict[str, Any]:
        """Draw the quadrangle's corners and name the picture's."""
        height, width = flat_inputs[0].shape[-2:]
        right, bottom = width - 1, height - 1
        corners = torch.tensor([[0, 0], [right, 0], [right, bottom], [0, bottom]])
        inward = torch.tensor([[1, 1], [-1, 1], [-1, -1], [1, -1]])
        moved = corners + inward * torch.rand(4, 2) * self.reach * torch.tensor([width, height])
        return {"startpoints": moved.round().int().tolist(), "endpoints": corners.tolist()}

    def transform(self, inpt: Any, params: dict[str, Any]) -> Any:
        """Stretch (…, C, H, W); a single row or column has no quadrangle."""
        if min(inpt.shape[-2:]) == 1:
            return inpt
        return F.perspective(inpt, **params, interpolation=v2.InterpolationMode.BILINEAR)


def authors_group() -> v2.Transform:
    """Return the colour, sharpness and geometry transforms of the SRTG networks' training.

    Each comes with probability 0.4. The values are those of the authors' scripts, put in terms of
    what torchvision has: blurs of up to 2 pixels, offsets of -5 to 15 grey levels and gamma of
    0.85 to 1.15 for each channel, brightness of 0.8 to 1.2, hue and saturation by 16 of 255,
    contrast of 0.85 to 1.115, and either a perspective or a rotation by up to 10 degrees.
    """
    bilinear = v2.InterpolationMode.BILINEAR
    changes: list[v2.Transform] = [
        Blur(3, (0.1, 0.5)),
        ChannelCurves((1, 1), (-5, 15)),
        v2.ColorJitter(brightness=0.2),
        ChannelCurves((0.85, 1.15), (0, 0)),
        v2.ColorJitter(saturation=16 / 255, hue=16 / 255),
        v2.ColorJitter(contrast=(0.85, 1.115)),
        v2.RandomChoice([PerspectiveZoom(0.1), v2.RandomRotation(10, bilinear)]),
    ]
    return v2.Compose([v2.RandomApply([change], p=0.4) for change in changes])


def mix_clips(
    clips: Tensor, labels: Tensor, num_classes: int, mixup: float, cutmix: float
) -> tuple[Tensor, Tensor]:
    """Mix every clip of a batch with the one before it; each batch by mixup or by cutmix.

    Args:
        clips: float (N, C, T, H, W).
        labels: int64 (N,).
        num_classes: Classes.
        mixup: The beta distribution's parameter from which mixup draws the shares; 0 for cutmix
            alone.
        cutmix: The same for cutmix, which takes a rectangle, in all frames, from the other clip; 0
            for mixup alone.

    Returns:
        The clips, and float32 (N, num_classes) with the share of each class.
    """
    ways: list[v2.Transform] = []
    if mixup:
        ways.append(v2.MixUp(alpha=float(mixup), num_classes=num_classes))
    if cutmix:
        ways.append(v2.CutMix(alpha=float(cutmix), num_classes=num_classes))
    # torchvision takes five dimensions for a batch of videos only if told so
    mixed, targets = v2.RandomChoice(ways)(tv_tensors.Video(clips), labels)
    return mixed.as_subclass(Tensor), targets
