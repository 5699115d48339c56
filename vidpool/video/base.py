"""Videos as sequences of frames, and what all decoders share."""

import operator
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from vidpool.errors import ConfigError, VideoError
from vidpool.video.metadata import VideoMetadata, decoding

VIDEO_SUFFIXES = (
    *(".3gp", ".avi", ".flv", ".m2ts", ".m4v", ".mkv", ".mov", ".mp4", ".mpeg", ".mpg", ".mts"),
    *(".ogv", ".ts", ".vob", ".webm", ".wmv"),
)
"""Suffixes of video files, in lower case: containers that PyAV and decord read."""

IMAGE_SUFFIXES = (".bmp", ".jpeg", ".jpg", ".png", ".ppm", ".tif", ".tiff", ".webp")
"""Suffixes of image files, in lower case."""


class Video(VideoMetadata):
    """One open video file; :func:`vidpool.video.open_video` makes them.

    Frames are numbered from 0 in the order in which a player shows them. A video is a sequence of
    frames: it has a length, can be indexed and iterated over. It closes at the end of a ``with``
    block, or with :meth:`close`; using it afterwards raises ``ValueError``.

    Args:
        path: The file.
        length: How many frames decode, where an index knows. Nothing is decoded or scanned only to
            count them. A number that the file contradicts is a ``VideoError``; one that is too
            small hides the frames beyond it, and one that is too large is a ``VideoError`` when
            they are read. Frame numbers stay right with any.

    Attributes:
        path: The file.

    Examples:
        >>> import tempfile, torch
        >>> from vidpool.data.datasets.demo import write_video
        >>> from vidpool.video import open_video
        >>> path = tempfile.mkdtemp() + "/clip.mp4"
        >>> write_video(path, torch.zeros(30, 48, 64, 3, dtype=torch.uint8), fps=10)
        >>> video = open_video(path)
        >>> len(video), video.fps, video.duration
        (30, 10.0, 3.0)
        >>> video.width, video.height, video.codec, video.rotation
        (64, 48, 'h264', 0)
        >>> video[-1].shape, video[::4].shape, video[[1, 5, 3]].shape
        (torch.Size([3, 48, 64]), torch.Size([8, 3, 48, 64]), torch.Size([3, 3, 48, 64]))
        >>> video.times[:4].tolist()
        [0.0, 0.1, 0.2, 0.3]
        >>> sum(1 for frame in video)
        30
        >>> video.frames(video.span(1.0, 1.5), short_side=24).shape
        torch.Size([5, 3, 24, 32])
        >>> video.close()
    """

    def __getitem__(self, key: "int | slice | Sequence[int] | Tensor") -> Tensor:
        """Decode one frame, or several.

        Args:
            key: A frame number; a slice; or frame numbers in any order, repeated or not, as a list,
                a range, or an integer tensor or array of one dimension. Negative numbers count from
                the end.

        Returns:
            uint8 RGB: of a number the frame (3, H, W), else the frames (T, 3, H, W). An empty slice
            or list gives an empty tensor (0, 3, H, W).

        Raises:
            IndexError: There is no such frame; the message gives the number of frames.
            TypeError: The key is of another type.
            VideoError: A frame cannot be decoded.
            ValueError: The video is closed.
        """
        self._require_open()
        length = len(self)
        if isinstance(key, slice):
            return self._clip(range(length)[key])
        single = not isinstance(key, list | range) and getattr(key, "ndim", 0) == 0
        numbers = [_frame_number(index) for index in ([key] if single else key)]  # type: ignore[union-attr]
        for number in numbers:
            if not -length <= number < length:
                raise self._no_frame(number, length)
        clip = self._clip([number % length for number in numbers])
        return clip[0] if single else clip

    def __iter__(self) -> Iterator[Tensor]:
        """Decode all frames in order, one at a time: :meth:`stream` without scaling."""
        return self.stream()

    def __repr__(self) -> str:
        """Return what is known of the video; this may decode it to count its frames."""
        parts = [repr(str(self.path))]
        if self._closed:
            parts.append("closed")
        else:
            for describe in (
                lambda: f"{len(self)} frames",
                lambda: f"{self.width}x{self.height}",
                lambda: f"{self.fps:.2f} fps",
                lambda: f"{self.duration:.2f} s",
                lambda: self.codec,
            ):
                with suppress(VideoError):
                    parts.append(describe() or "unknown codec")
        return f"{type(self).__name__}({', '.join(parts)})"

    def frames(self, indices: Iterable[int], short_side: int | None = None) -> Tensor:
        """Decode the frames with these numbers.

        Args:
            indices: Frame numbers in any order, repeated or not.
            short_side: Height or width, whichever is less, of the returned frames in pixels; the
                other side keeps the aspect ratio. ``None`` leaves the size alone.

        Returns:
            RGB frames in the order asked for, turned as the file's rotation tag says: contiguous
            uint8 tensor of shape ``(T, 3, H, W)``.

        Raises:
            IndexError: An index is negative or not less than ``len(self)``.
            ValueError: No indices were given, or the video is closed.
            ConfigError: ``short_side`` is less than 1.
            VideoError: A frame cannot be decoded.
        """
        self._require_open()
        wanted = [operator.index(index) for index in indices]
        if not wanted:
            raise ValueError(f"{self.path}: no frame indices were given")
        _check_short_side(short_side)
        length = len(self)
        for index in wanted:
            if not 0 <= index < length:
                raise self._no_frame(index, length)
        places: dict[int, list[int]] = {}
        for place, index in enumerate(wanted):
            places.setdefault(index, []).append(place)
        distinct = sorted(places)
        clip: Tensor | None = None
        with decoding(self.path):
            for index, picture in zip(distinct, self._read(distinct, short_side), strict=True):
                picture = picture.permute(2, 0, 1)
                if clip is None:
                    clip = picture.new_empty(len(wanted), *picture.shape)
                for place in places[index]:
                    clip[place] = picture
        assert clip is not None
        return clip

    def stream(self, short_side: int | None = None) -> Iterator[Tensor]:
        """Decode all frames in order, one at a time; ``for frame in video`` does it unscaled.

        Other frames may be read while it runs; it then decodes again from the last key frame.

        Args:
            short_side: As in :meth:`frames`.

        Yields:
            uint8 RGB frames (3, H, W), all of one size.

        Raises:
            VideoError: A frame cannot be decoded.
            ConfigError: ``short_side`` is less than 1.
            ValueError: The video is closed.
        """
        _check_short_side(short_side)
        number, length = 0, len(self)
        while number < length:
            with decoding(self.path):
                pictures = iter(self._read(list(range(number, length)), short_side))
            reads = self._reads
            while number < length and reads == self._reads:
                self._require_open()
                with decoding(self.path):
                    picture = next(pictures)
                yield picture.permute(2, 0, 1)
                number += 1

    def _clip(self, numbers: Sequence[int]) -> Tensor:
        return self.frames(numbers) if numbers else self.frames([0])[:0]

    def _no_frame(self, number: int, length: int) -> IndexError:
        return IndexError(f"{self.path}: no frame {number}; the video has {length} frames")


def _frame_number(index: Any) -> int:
    """Return a frame number as an int.

    Raises:
        TypeError: It is none, or a truth value: masks are not supported.
    """
    if isinstance(index, bool | np.bool_) or getattr(index, "dtype", None) == torch.bool:
        raise TypeError("frames are chosen by number, not by truth values")
    try:
        return operator.index(index)
    except TypeError:
        raise TypeError(
            f"frames are chosen by an int, a slice or a list of ints, not by {type(index).__name__}"
        ) from None


def _check_short_side(short_side: int | None) -> None:
    if short_side is not None and short_side < 1:
        raise ConfigError(f"short_side must be at least 1, not {short_side}", "short_side")


def require_file(path: Path) -> None:
    """Check that there is something to read at a path.

    Raises:
        VideoError: Nothing is there, or a folder, or an empty file.
    """
    try:
        size = path.stat().st_size
    except FileNotFoundError as error:
        raise VideoError(f"{path}: no such file") from error
    except OSError as error:
        raise VideoError(f"{path}: cannot be read: {error.strerror}") from error
    if path.is_dir():
        raise VideoError(f"{path}: is a folder, not a video")
    if size == 0:
        raise VideoError(f"{path}: is empty (0 bytes)")


def scaled_size(height: int, width: int, short_side: int | None) -> tuple[int, int]:
    """Return ``(height, width)`` scaled such that the lesser is ``short_side``.

    The other side is rounded to the nearest pixel. ``None`` leaves both alone.
    """
    if short_side is None:
        return height, width
    scale = short_side / min(height, width)
    return round(height * scale), round(width * scale)


def resize(frames: Tensor, short_side: int | None) -> Tensor:
    """Scale decoded frames, smoothly.

    Args:
        frames: uint8, shape ``(T, 3, H, W)``.
        short_side: See :func:`scaled_size`.
    """
    size = scaled_size(frames.shape[2], frames.shape[3], short_side)
    if size == frames.shape[2:]:
        return frames
    # what torchvision's resize calls for uint8
    return functional.interpolate(frames, size, mode="bilinear", antialias=True)
