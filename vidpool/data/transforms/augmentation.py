"""Augmentation of clips; all frames of a clip are treated alike.

Clips stay uint8 until they are a batch on the device: :func:`vidpool.data.views.normalize` is the
only step in float.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor
from torchvision.transforms import v2

from vidpool.data.schedule import mix_seeds
from vidpool.data.transforms.functional import authors_group, mix_clips, seeded
from vidpool.errors import ConfigError

MAGNITUDES = 31  # of RandAugment, as torchvision counts them
GREY = (110, 101, 96)  # the mean of Kinetics-400's pixels, which erasing paints with


@dataclass
class Augmentation:
    """Settings of the augmentation of training clips, the same for all frames of a clip.

    Attributes:
        crop: ``"resized"`` cuts a random share of the picture in a random aspect ratio and scales
            it; ``"short_side"`` scales the short side at random and cuts a square out of it.
        scale: For ``"resized"``: the range of the share of the picture's area.
        ratio: For ``"resized"``: the range of the aspect ratio, width / height.
        short_side: For ``"short_side"``: the range of the short side, as a multiple of the crop.
        stride: The range of the temporal stride, as a multiple of the clip's; whole strides within
            it are equally likely.
        flip: Probability of a horizontal flip; 0 where left and right are different classes.
        brightness: Strength of the change of brightness, 0 for none (torchvision's ColorJitter).
        contrast: Strength of the change of contrast.
        saturation: Strength of the change of saturation.
        hue: Strength of the change of hue, at most 0.5.
        authors: Probability of the SRTG authors' group of changes in colour, sharpness, perspective
            and angle (theirs: 0.8), see :func:`vidpool.data.transforms.functional.authors_group`.
        rand_augment: How many changes RandAugment makes, 0 for none.
        magnitude: How strong they are, from 0 to 30.
        erase: Probability that a rectangle, the same in all frames, is painted over.
        mixup: Mix clips and their labels within a batch, by shares from a beta distribution with
            this parameter (often 0.8); 0 for none.
        cutmix: The same with a rectangle from another clip (often 1). Where both are given, each
            batch draws one of them.
        on_device: Change colours and all that follows them in this list on the device, after the
            transfer, instead of in the loader's processes. The draws are the same.
    """

    crop: Literal["resized", "short_side"] = "resized"
    scale: tuple[float, float] = (0.4, 1.0)
    ratio: tuple[float, float] = (3 / 4, 4 / 3)
    short_side: tuple[float, float] = (1.14, 1.43)
    stride: tuple[float, float] = (1.0, 1.0)
    flip: float = 0.5
    brightness: float = 0.0
    contrast: float = 0.0
    saturation: float = 0.0
    hue: float = 0.0
    authors: float = 0.0
    rand_augment: int = 0
    magnitude: int = 9
    erase: float = 0.0
    mixup: float = 0.0
    cutmix: float = 0.0
    on_device: bool = False

    def __post_init__(self) -> None:
        if self.crop not in ("resized", "short_side"):
            raise ConfigError(f"augment.crop must be resized or short_side, got {self.crop!r}")
        low, high = self.scale
        if not 0 < low <= high <= 1:
            raise ConfigError(f"augment.scale must lie within (0, 1] and rise, got {self.scale}")
        low, high = self.ratio
        if not 0 < low <= high:
            raise ConfigError(f"augment.ratio must be positive and rise, got {self.ratio}")
        low, high = self.short_side
        if not 1 <= low <= high:
            raise ConfigError(
                f"augment.short_side must be at least 1 and rise, got {self.short_side}"
            )
        low, high = self.stride
        if not 0 < low <= high:
            raise ConfigError(f"augment.stride must be positive and rise, got {self.stride}")
        for name in ("flip", "authors", "erase"):
            if not 0 <= getattr(self, name) <= 1:
                raise ConfigError(f"augment.{name} is a probability, got {getattr(self, name)}")
        for name in ("brightness", "contrast", "saturation", "hue"):
            limit = 0.5 if name == "hue" else 1.0
            if not 0 <= getattr(self, name) <= limit:
                raise ConfigError(
                    f"augment.{name} must lie within [0, {limit}], got {getattr(self, name)}"
                )
        if self.rand_augment < 0:
            raise ConfigError(f"augment.rand_augment must not be negative, got {self.rand_augment}")
        if not 0 <= self.magnitude < MAGNITUDES:
            raise ConfigError(
                f"augment.magnitude must lie within [0, {MAGNITUDES - 1}], got {self.magnitude}"
            )
        for name in ("mixup", "cutmix"):
            if not 0 <= getattr(self, name) < math.inf:
                raise ConfigError(
                    f"augment.{name} must be 0 or a positive number, got {getattr(self, name)}"
                )

    def reading_short_side(self, crop: int) -> int:
        """Return the short side, in pixels, to which the decoder should scale the frames.

        For ``"short_side"`` it is the random scale itself, so that the picture is scaled once; for
        ``"resized"`` it is the smallest size from which no square cut has to be enlarged.
        """
        if self.crop == "short_side":
            low, high = self.short_side
            return round(crop * float(torch.empty(()).uniform_(low, high)))
        return math.ceil(crop / math.sqrt(self.scale[0]))

    def temporal_stride(self, stride: int) -> int:
        """Draw the temporal stride of a clip from PyTorch's global generator.

        Args:
            stride: The clip's own.
        """
        low, high = (max(1, round(stride * share)) for share in self.stride)
        return low if low == high else int(torch.randint(low, high + 1, ()))

    def cut(self, clip: Tensor, crop: int) -> Tensor:
        """Crop and flip a clip, drawing from PyTorch's global generator.

        Args:
            clip: uint8 (T, C, H, W), read with :meth:`reading_short_side`.
            crop: The side of the result, pixels.

        Returns:
            uint8 (T, C, crop, crop).
        """
        steps: list[torch.nn.Module] = []
        if self.crop == "short_side":
            steps.append(v2.RandomCrop(crop))
        else:
            if crop == 1:
                # PyTorch's resize of contiguous frames to one pixel fails
                clip = clip.contiguous(memory_format=torch.channels_last)
            steps.append(v2.RandomResizedCrop(crop, self.scale, self.ratio, antialias=True))
        steps.append(v2.RandomHorizontalFlip(self.flip))
        return v2.Compose(steps)(clip)

    def change(self, clip: Tensor, seed: int) -> Tensor:
        """Change a clip's colours and all else that needs no other clip.

        Args:
            clip: uint8 (T, C, H, W), on any device.
            seed: The clip's own; it decides all draws, whatever the device.

        Returns:
            uint8 (T, C, H, W); the clip itself where nothing is to be changed.
        """
        steps: list[torch.nn.Module] = []
        if self.brightness or self.contrast or self.saturation or self.hue:
            steps.append(v2.ColorJitter(self.brightness, self.contrast, self.saturation, self.hue))
        if self.authors:
            steps.append(v2.RandomApply([authors_group()], p=self.authors))
        if self.rand_augment:
            bilinear = v2.InterpolationMode.BILINEAR
            steps.append(v2.RandAugment(self.rand_augment, self.magnitude, MAGNITUDES, bilinear))
        if self.erase:
            steps.append(v2.RandomErasing(self.erase, value=GREY))
        if not steps:
            return clip
        # of the same seed as the cut's, the draws would follow those of the cut
        with seeded(mix_seeds(seed, 1)):
            return v2.Compose(steps)(clip)

    def mix(
        self, clips: Tensor, labels: Tensor, num_classes: int, seeds: Sequence[int]
    ) -> tuple[Tensor, Tensor]:
        """Mix the clips of a batch by mixup or cutmix, one of which must be on.

        Args:
            clips: float (N, C, T, H, W).
            labels: int64 (N,).
            num_classes: Classes.
            seeds: The clips' own, which decide the draws.

        Returns:
            The clips, and float32 (N, num_classes) with the share of each class.
        """
        with seeded(mix_seeds(*seeds, 2)):
            return mix_clips(clips, labels, num_classes, self.mixup, self.cutmix)
