"""What happens to a clip's pixels; every frame of a clip is treated alike.

Clips stay uint8 until they are a batch on the device: :func:`normalize` is the only step in float.
"""

import math
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor
from torchvision.transforms import v2
from torchvision.transforms.v2 import functional as F

from vidpool.errors import ConfigError


@dataclass
class Augmentation:
    """How training clips are varied, the same for all frames of a clip.

    Attributes:
        crop: ``"resized"`` cuts a random share of the picture in a random aspect ratio and scales
            it; ``"short_side"`` scales the short side at random and cuts a square out of it.
        scale: For ``"resized"``: the range of the share of the picture's area.
        ratio: For ``"resized"``: the range of the aspect ratio, width / height.
        short_side: For ``"short_side"``: the range of the short side, as a multiple of the crop.
        flip: Probability of a horizontal flip; 0 where left and right are different classes.
        brightness: Strength of the change of brightness, 0 for none (torchvision's ColorJitter).
        contrast: Strength of the change of contrast.
        saturation: Strength of the change of saturation.
        hue: Strength of the change of hue, at most 0.5.
    """

    crop: Literal["resized", "short_side"] = "resized"
    scale: tuple[float, float] = (0.4, 1.0)
    ratio: tuple[float, float] = (3 / 4, 4 / 3)
    short_side: tuple[float, float] = (1.14, 1.43)
    flip: float = 0.5
    brightness: float = 0.0
    contrast: float = 0.0
    saturation: float = 0.0
    hue: float = 0.0

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
        if not 0 <= self.flip <= 1:
            raise ConfigError(f"augment.flip is a probability, got {self.flip}")
        for name in ("brightness", "contrast", "saturation", "hue"):
            limit = 0.5 if name == "hue" else 1.0
            if not 0 <= getattr(self, name) <= limit:
                raise ConfigError(
                    f"augment.{name} must lie within [0, {limit}], got {getattr(self, name)}"
                )

    def reading_short_side(self, crop: int) -> int:
        """The short side, in pixels, to which the decoder should scale the frames.

        For ``"short_side"`` it is the random scale itself, so that the picture is scaled once; for
        ``"resized"`` it is the smallest size from which no square cut has to be enlarged.
        """
        if self.crop == "short_side":
            low, high = self.short_side
            return round(crop * float(torch.empty(()).uniform_(low, high)))
        return math.ceil(crop / math.sqrt(self.scale[0]))

    def __call__(self, clip: Tensor, crop: int) -> Tensor:
        """Vary a clip, drawing from PyTorch's global generator.

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
            steps.append(v2.RandomResizedCrop(crop, self.scale, self.ratio, antialias=True))
        steps.append(v2.RandomHorizontalFlip(self.flip))
        if self.brightness or self.contrast or self.saturation or self.hue:
            steps.append(v2.ColorJitter(self.brightness, self.contrast, self.saturation, self.hue))
        return v2.Compose(steps)(clip)


def crop_views(clip: Tensor, crop: int, crops: int) -> Tensor:
    """Cut the views of evaluation out of a clip: the centre, or three along the longer side.

    Args:
        clip: (T, C, H, W), neither H nor W below ``crop``.
        crop: The side of the views, pixels.
        crops: 1 for the centre; 3 for left, centre, right (or top, centre, bottom).

    Returns:
        (crops, T, C, crop, crop), of the clip's dtype.

    Raises:
        ConfigError: ``crops`` is neither 1 nor 3.
    """
    height, width = clip.shape[-2:]
    if crops == 1:
        return F.center_crop(clip, [crop, crop])[None]
    if crops != 3:
        raise ConfigError(f"a clip gives 1 or 3 crops, got crops={crops}")
    down, across = height - crop, width - crop
    views = []
    for part in (0.0, 0.5, 1.0):
        top = round((part if height > width else 0.5) * down)
        left = round((0.5 if height > width else part) * across)
        views.append(F.crop(clip, top, left, crop, crop))
    return torch.stack(views)


def normalize(clips: Tensor, mean: tuple[float, ...], std: tuple[float, ...]) -> Tensor:
    """Scale uint8 to [0, 1], subtract the mean and divide by the standard deviation.

    Args:
        clips: uint8 (N, C, T, H, W).
        mean: Of each channel, in [0, 1].
        std: Of each channel, in [0, 1].

    Returns:
        float32 (N, C, T, H, W), on the same device.
    """
    shape = (1, -1, 1, 1, 1)
    scale = clips.new_tensor([255 * s for s in std], dtype=torch.float32).view(shape)
    shift = clips.new_tensor([255 * m for m in mean], dtype=torch.float32).view(shape)
    return (clips - shift) / scale
