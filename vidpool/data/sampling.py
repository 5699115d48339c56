"""Which frames make a clip, and which clips make the views of a video, as plain functions.

A clip of T frames with temporal stride s shows frames ``start, start + s, …, start + (T-1) s``; it
spans ``(T-1) s + 1`` frames of the video::

    video     0 1 2 3 4 5 6 7 8 9          T = 3, stride = 2, start = 4
    clip              4   6   8            span = 5

Where a video is shorter than the span, its last frame is repeated at the end.
"""

import torch
from torch import Tensor

from vidpool.errors import ConfigError


def clip_span(frames: int, stride: int) -> int:
    """How many frames of the video a clip reaches over: ``(frames - 1) * stride + 1``.

    Raises:
        ConfigError: ``frames`` or ``stride`` is below 1.
    """
    if frames < 1:
        raise ConfigError(f"a clip needs at least 1 frame, got frames={frames}")
    if stride < 1:
        raise ConfigError(f"the temporal stride must be at least 1 frame, got stride={stride}")
    return (frames - 1) * stride + 1


def random_clip(
    video_length: int, frames: int, stride: int, generator: torch.Generator | None = None
) -> Tensor:
    """Frame numbers of a clip at a random place, every possible start being equally likely.

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
    """Frame numbers of K clips spread evenly over the video, for testing.

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


def _room(video_length: int, frames: int, stride: int) -> int:
    """The last frame a clip may start at."""
    if video_length < 1:
        raise ValueError(f"a video has at least 1 frame, got video_length={video_length}")
    return max(0, video_length - clip_span(frames, stride))


def _clip_from(start: int, video_length: int, frames: int, stride: int) -> Tensor:
    return (start + stride * torch.arange(frames)).clamp_max(video_length - 1)
