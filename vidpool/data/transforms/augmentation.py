"""Augmentation of training clips: its settings, and the transforms that torchvision does not have.

All frames of a clip are treated alike. Clips stay uint8 until they are a batch on the device:
:func:`vidpool.data.views.normalize` is the only step in float. Transforms draw from PyTorch's
global CPU generator (:func:`seeded` sets it), whatever the device of the pixels.
"""

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor
from torchvision import tv_tensors
from torchvision.transforms import v2
from torchvision.transforms.v2 import functional as F

from vidpool.data.schedule import mix_seeds
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
            and angle (theirs: 0.8), see :func:`authors_group`.
        rand_augment: How many changes RandAugment makes, 0 for none.
        magnitude: How strong they are, from 0 to 30.
        erase: Probability that a rectangle, the same in all frames, is painted over.
        mixup: Mix clips and their labels within a batch, by shares from a beta distribution with
            this parameter (often 0.8); 0 for none.
        cutmix: The same with a rectangle from another clip (often 1). Where both are given, each
            batch draws one of them.
        on_device: Change colours and all that follows them in this list on the device, after the
            transfer, instead of in the loader's processes. The draws are the same.

    Examples:
        >>> augment = Augmentation(crop="short_side", flip=0.5, brightness=0.2, mixup=0.8)
        >>> clip = torch.zeros(16, 3, 128, 171, dtype=torch.uint8)
        >>> augment.change(augment.cut(clip, crop=112), seed=1).shape
        torch.Size([16, 3, 112, 112])
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
            raise ConfigError(f"crop must be resized or short_side, got {self.crop!r}", "crop")
        self._check("scale", 0 < self.scale[0] <= self.scale[1] <= 1, "lie within (0, 1] and rise")
        self._check("ratio", 0 < self.ratio[0] <= self.ratio[1], "be positive and rise")
        sides = self.short_side
        self._check("short_side", 1 <= sides[0] <= sides[1], "be at least 1 and rise")
        self._check("stride", 0 < self.stride[0] <= self.stride[1], "be positive and rise")
        for name in ("flip", "authors", "erase"):
            self._check(name, 0 <= getattr(self, name) <= 1, "be a probability")
        for name in ("brightness", "contrast", "saturation", "hue"):
            limit = 0.5 if name == "hue" else 1.0
            self._check(name, 0 <= getattr(self, name) <= limit, f"lie within [0, {limit}]")
        self._check("rand_augment", self.rand_augment >= 0, "not be negative")
        last = MAGNITUDES - 1
        self._check("magnitude", 0 <= self.magnitude <= last, f"lie within [0, {last}]")
        for name in ("mixup", "cutmix"):
            self._check(name, 0 <= getattr(self, name) < math.inf, "be 0 or a positive number")

    def _check(self, name: str, valid: bool, rule: str) -> None:
        if not valid:
            raise ConfigError(f"{name} must {rule}, got {getattr(self, name)}", argument=name)

    @property
    def needs_device(self) -> bool:
        """True if a part is left to do on the device: changes, mixup or cutmix."""
        return bool(self.on_device or self.mixup or self.cutmix)

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
