"""Samples and batches of clips, as datasets return them."""

from typing import NamedTuple, TypedDict

import torch
from torch import Tensor

from vidpool.data.transforms.augmentation import Augmentation
from vidpool.errors import ConfigError


class Sample(TypedDict):
    """A sample of a dataset; PyTorch's default collate function makes batches of samples.

    Attributes:
        clip: uint8 (C, T, H, W).
        label: Class id.
        video: Index of the video in the dataset.
        counted: False for a black clip that stands for a video that cannot be read.
    """

    clip: Tensor
    label: int
    video: int
    counted: bool


class _Optional(TypedDict, total=False):
    target: Tensor
    augment: Augmentation


class Batch(_Optional):
    """A batch of clips; N counts each crop of an evaluated clip by itself.

    Attributes:
        clip: uint8 (N, C, T, H, W); normalized float32 once it is on the device.
        label: int64 (N,), class ids; of mixed clips that with the larger share.
        target: float32 (N, classes), the share of each class; only where clips were mixed.
        augment: The augmentation of training clips, only if a part of it remains to be done on the
            device: changes (``on_device``), mixup or cutmix.
        video: int64 (N,), the video's place in the data set.
        counted: bool (N,), False for clips that only fill up the batch.
        seed: N numbers from which changes on the device draw; a list, because to look at a tensor
            there would mean to wait for the device.
        requested: How many clips were to be read.
        bad: What was wrong with those that could not be, a message for each, which begins with the
            file. In training they are left out or other clips stand in for them; in evaluation
            they are not ``counted``.
    """

    clip: Tensor
    label: Tensor
    video: Tensor
    counted: Tensor
    seed: list[int]
    requested: int
    bad: list[str]


class Clip(NamedTuple):
    """One element of a batch, as :class:`Batch` has it; ``frames`` is (T, C, H, W)."""

    frames: Tensor
    label: int
    video: int
    counted: bool
    seed: int


def sample(clip: Clip) -> Sample:
    """Return a clip as a sample."""
    frames = clip.frames.transpose(0, 1).contiguous()
    return Sample(clip=frames, label=clip.label, video=clip.video, counted=clip.counted)


def collate(clips: list[Clip], requested: int, bad: list[str]) -> Batch:
    """Return a batch of clips.

    Args:
        clips: The clips, at least one.
        requested: Number of clips that were to be read.
        bad: Messages about those that cannot be read.

    Raises:
        ConfigError: The clips differ in size, which only a transform of the user's can cause.
    """
    sizes = sorted({tuple(clip.frames.shape) for clip in clips})
    if len(sizes) > 1:
        raise ConfigError(
            "transform must return clips of one size within a batch, but returned "
            f"{' and '.join(map(str, sizes))}",
            argument="transform",
        )
    return Batch(
        clip=torch.stack([clip.frames for clip in clips]).transpose(1, 2).contiguous(),
        label=torch.tensor([clip.label for clip in clips]),
        video=torch.tensor([clip.video for clip in clips]),
        counted=torch.tensor([clip.counted for clip in clips]),
        seed=[clip.seed for clip in clips],
        requested=requested,
        bad=bad,
    )
