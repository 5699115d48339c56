"""Views of a video: the frames of a clip, and how a video is preprocessed at test time.

A view is one crop of one clip. :func:`read_views` reads all views of a video file as
:class:`Preprocessing` describes them, and :func:`normalize` prepares them for the network.

A clip of T frames with temporal stride s shows frames ``start, start + s, …, start + (T-1) s``; it
spans ``(T-1) s + 1`` frames of the video::

    video     0 1 2 3 4 5 6 7 8 9          T = 3, stride = 2, start = 4
    clip              4   6   8            span = 5

Where a video is shorter than the span, its last frame is repeated at the end.
"""

from dataclasses import asdict, dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torchvision.transforms.v2 import functional as F

from vidpool.errors import ConfigError
from vidpool.video import open_video


class ClipShape(NamedTuple):
    """The shape of a clip: T frames, ``stride`` frames apart, of ``crop`` x ``crop`` pixels."""

    frames: int
    stride: int
    crop: int

    def check(self) -> "ClipShape":
        """Return the shape itself.

        Raises:
            ConfigError: A value is below 1; the message names it.
        """
        clip_span(self.frames, self.stride)
        if self.crop < 1:
            raise ConfigError(
                f"the crop must be at least 1 pixel, got crop={self.crop}", argument="crop"
            )
        return self


@dataclass(frozen=True)
class Preprocessing:
    """Preprocessing of a video at test time; it is stored in the checkpoint.

    Attributes:
        frames: T, frames of a clip.
        stride: Temporal stride, in frames of the video.
        short_side: Pixels to which the frame's shorter side is scaled.
        crop: Side of the square cut out of it, pixels.
        clips: Clips of a video, spread evenly over it.
        crops: Crops of a clip, 1 or 3.
        mean: Mean of each channel, in [0, 1].
        std: Standard deviation of each channel, in [0, 1].
        square_pixels: True to scale frames to square pixels, see
            :func:`vidpool.video.open_video`.

    Raises:
        ConfigError: A value cannot work.
    """

    frames: int
    stride: int
    short_side: int
    crop: int
    clips: int
    crops: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    square_pixels: bool = False  # checkpoints of earlier versions do not say

    def __post_init__(self) -> None:
        self.shape.check()
        if self.short_side < self.crop:
            raise ConfigError(
                f"the short side ({self.short_side}) must not be below the crop ({self.crop})",
                argument="short_side",
            )
        if self.clips < 1:
            raise ConfigError(
                f"a video needs at least 1 clip, got clips={self.clips}", argument="test_clips"
            )
        if self.crops not in (1, 3):
            raise ConfigError(
                f"a clip gives 1 or 3 crops, got crops={self.crops}", argument="test_crops"
            )
        if len(self.mean) != 3 or len(self.std) != 3 or min(self.std) <= 0:
            raise ConfigError(
                "mean and std need three values each and std positive ones, "
                f"got mean={self.mean}, std={self.std}"
            )

    @property
    def shape(self) -> ClipShape:
        """Shape of a clip."""
        return ClipShape(self.frames, self.stride, self.crop)

    def to_dict(self) -> dict[str, Any]:
        """Return plain values for a checkpoint."""
        return {**asdict(self), "mean": list(self.mean), "std": list(self.std)}

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> "Preprocessing":
        """Return the preprocessing that :meth:`to_dict` described."""
        return cls(**{**values, "mean": tuple(values["mean"]), "std": tuple(values["std"])})


def clip_span(frames: int, stride: int) -> int:
    """Return the frames of the video that a clip spans: ``(frames - 1) * stride + 1``.

    Raises:
        ConfigError: ``frames`` or ``stride`` is below 1.
    """
    if frames < 1:
        raise ConfigError(f"a clip needs at least 1 frame, got frames={frames}", argument="frames")
    if stride < 1:
        raise ConfigError(
            f"the temporal stride must be at least 1 frame, got stride={stride}", argument="stride"
        )
    return (frames - 1) * stride + 1


def random_clip(
    video_length: int, frames: int, stride: int, generator: torch.Generator | None = None
) -> Tensor:
    """Return the frame numbers of a clip at a random place; all possible starts are equally likely.

    Args:
        video_length: Frames in the video.
        frames: T, frames in the clip.
        stride: Temporal stride, in frames of the video.
        generator: Where the randomness comes from; by default PyTorch's global generator.

    Returns:
        int64 (T,), rising; the last frame of a short video is repeated at the end.

    Raises:
        ConfigError: ``frames`` or ``stride`` is below 1.
        ValueError: ``video_length`` is below 1.
    """
    room = _room(video_length, frames, stride)
    start = int(torch.randint(room + 1, (), generator=generator))
    return _clip_from(start, video_length, frames, stride)


def even_clips(video_length: int, clips: int, frames: int, stride: int) -> Tensor:
    """Return the frame numbers of K clips spread evenly over the video, for testing.

    The first starts at the first frame and the last ends at the last one; a single clip is the
    central one.

    Args:
        video_length: Frames in the video.
        clips: K, how many clips.
        frames: T, frames in a clip.
        stride: Temporal stride, in frames of the video.

    Returns:
        int64 (K, T); the last frame of a short video is repeated at the end of each clip.

    Raises:
        ConfigError: ``clips``, ``frames`` or ``stride`` is below 1.
        ValueError: ``video_length`` is below 1.
    """
    if clips < 1:
        raise ConfigError(f"a video needs at least 1 clip, got clips={clips}")
    room = _room(video_length, frames, stride)
    starts = [round(k * room / (clips - 1)) for k in range(clips)] if clips > 1 else [room // 2]
    return torch.stack([_clip_from(start, video_length, frames, stride) for start in starts])


def clip_positions(video_length: int, preprocessing: Preprocessing) -> Tensor:
    """Return the frame numbers of the clips of a video in evaluation: int64 (clips, T)."""
    p = preprocessing
    return even_clips(video_length, p.clips, p.frames, p.stride)


def read_views(path: str, preprocessing: Preprocessing, decoder: str = "auto") -> Tensor:
    """Read all views of one video.

    Returns:
        uint8 (clips * crops, C, T, crop, crop).

    Raises:
        VideoError: The video cannot be decoded.
    """
    p = preprocessing
    with open_video(path, decoder, square_pixels=p.square_pixels) as video:
        where = clip_positions(len(video), p)
        # clips overlap: reading all frames at once decodes the video only once
        frames = video.frames(where.flatten().tolist(), p.short_side)
    views = [crop_views(clip, p.crop, p.crops) for clip in frames.split(p.frames)]
    return torch.cat(views).transpose(1, 2)


def crop_views(clip: Tensor, crop: int, crops: int) -> Tensor:
    """Crop the views of a clip in evaluation: the centre, or three along the longer side.

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
        mean: Mean of each channel, in [0, 1].
        std: Standard deviation of each channel, in [0, 1].

    Returns:
        float32 (N, C, T, H, W), on the same device.
    """
    shape = (1, -1, 1, 1, 1)
    scale = clips.new_tensor([255 * s for s in std], dtype=torch.float32).view(shape)
    shift = clips.new_tensor([255 * m for m in mean], dtype=torch.float32).view(shape)
    return (clips - shift) / scale


def _room(video_length: int, frames: int, stride: int) -> int:
    """Return the last frame that a clip may start at."""
    if video_length < 1:
        raise ValueError(f"a video has at least 1 frame, got video_length={video_length}")
    return max(0, video_length - clip_span(frames, stride))


def _clip_from(start: int, video_length: int, frames: int, stride: int) -> Tensor:
    return (start + stride * torch.arange(frames)).clamp_max(video_length - 1)
