"""The interface of all decoders, and what they share."""

import math
import operator
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from torch import Tensor
from torch.nn import functional

from vidpool.errors import ConfigError, VideoError, VidpoolError

VIDEO_SUFFIXES = (
    *(".3gp", ".avi", ".flv", ".m2ts", ".m4v", ".mkv", ".mov", ".mp4", ".mpeg", ".mpg", ".mts"),
    *(".ogv", ".ts", ".vob", ".webm", ".wmv"),
)
"""Suffixes of video files, in lower case: containers that PyAV and decord read."""

IMAGE_SUFFIXES = (".bmp", ".jpeg", ".jpg", ".png", ".ppm", ".tif", ".tiff", ".webp")
"""Suffixes of image files, in lower case."""

INSTANT = 1e-6
"""Seconds by which times may differ and be the same: 0.3 is a little less than 3/10."""


class Times(Protocol):
    """When the frames of a video are shown, in seconds from the moment the first one is."""

    def begun_before(self, seconds: float) -> int:
        """Return how many frames are first shown before a time within the video."""

    def duration(self, length: int) -> float:
        """Return for how long the first ``length`` frames are shown."""


@dataclass(frozen=True)
class EvenTimes:
    """Frames at a constant rate.

    Attributes:
        rate: Frames per second.
    """

    rate: float

    def begun_before(self, seconds: float) -> int:
        """Return how many frames are first shown before a time."""
        return math.ceil(seconds * self.rate)

    def duration(self, length: int) -> float:
        """Return for how long ``length`` frames are shown."""
        return length / self.rate


class Video(ABC):
    """One open video file; :func:`vidpool.video.open_video` makes them.

    Frames are numbered from 0 in the order in which a player shows them.

    Args:
        path: The file.
        length: How many frames decode, where an index knows. Nothing is decoded or scanned only to
            count them. A number that the file contradicts is a ``VideoError``; one that is too
            small hides the frames beyond it, and one that is too large is a ``VideoError`` when
            they are read. Frame numbers stay right with any.

    Attributes:
        path: The file.
    """

    def __init__(self, path: Path, length: int | None = None) -> None:
        self.path = path
        self._known_length = length
        self._closed = False

    def __len__(self) -> int:
        """Return the number of frames that decode; at least 1.

        Raises:
            VideoError: No frame decodes.
            ValueError: The video is closed.
        """
        self._require_open()
        with decoding(self.path):
            return self._count()

    @property
    def fps(self) -> float:
        """Frames per second, on average where the frame rate varies.

        Raises:
            VideoError: The file does not say.
            ValueError: The video is closed.
        """
        self._require_open()
        with decoding(self.path):
            return self._average_rate()

    @property
    def cut_from(self) -> int | None:
        """Frames that a file had before it was cut short; ``None`` where none are known to be lost.

        PyAV tells it, of MP4 and AVI.

        Raises:
            VideoError: No frame decodes.
            ValueError: The video is closed.
        """
        self._require_open()
        return None

    def span(self, start: float, end: float) -> range:
        """Return the numbers of the frames shown within ``[start, end)``.

        They are found by their time stamps where those can be trusted, so that a variable frame
        rate does no harm, and elsewhere by the average rate.

        Args:
            start: Seconds from the moment at which the first frame is shown.
            end: Seconds, more than ``start``; may lie beyond the end of the video.

        Returns:
            Numbers of successive frames, at least one, the first of them on the screen at
            ``start``.

        Raises:
            VideoError: The video ends before ``start``, or does not say its frame rate.
            ValueError: ``start`` is negative, ``end`` is not more than ``start``, or the video is
                closed.
        """
        self._require_open()
        if not 0 <= start < end:
            raise ValueError(f"{self.path}: no frames lie within {start} s and {end} s")
        with decoding(self.path):
            length = self._count()
            times = self._times()
            if times is None:
                times = EvenTimes(self._average_rate())
            duration = times.duration(length)
            if start > duration - INSTANT:
                raise VideoError(f"{self.path}: ends at {duration:.3f} s, before {start} s")
            first = min(times.begun_before(start + INSTANT), length) - 1
            stop = length if end > duration else min(times.begun_before(end - INSTANT), length)
            return range(first, max(stop, first + 1))

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
        if short_side is not None and short_side < 1:
            raise ConfigError(f"short_side must be at least 1, not {short_side}")
        length = len(self)
        for index in wanted:
            if not 0 <= index < length:
                raise IndexError(f"{self.path}: no frame {index}; the video has {length} frames")
        places: dict[int, list[int]] = {}
        for place, index in enumerate(wanted):
            places.setdefault(index, []).append(place)
        distinct = sorted(places)
        clip: Tensor | None = None
        with decoding(self.path):
            for index, picture in zip(distinct, self._decode(distinct, short_side), strict=True):
                picture = picture.permute(2, 0, 1)
                if clip is None:
                    clip = picture.new_empty(len(wanted), *picture.shape)
                for place in places[index]:
                    clip[place] = picture
        assert clip is not None
        return clip

    def stream(self, short_side: int | None = None) -> Iterator[Tensor]:
        """Decode all frames in order, one at a time.

        Args:
            short_side: As in :meth:`frames`.

        Yields:
            uint8 RGB frames (3, H, W), all of one size.

        Raises:
            VideoError: A frame cannot be decoded.
            ValueError: The video is closed.
        """
        self._require_open()
        indices = list(range(len(self)))
        with decoding(self.path):
            for picture in self._decode(indices, short_side):
                yield picture.permute(2, 0, 1)

    def close(self) -> None:
        """Close the file; closing twice does no harm."""
        if not self._closed:
            self._closed = True
            self._release()

    def _require_known_length(self, length: int) -> int:
        """Return the length, or raise ``VideoError`` if another one was known beforehand."""
        if self._known_length not in (None, length):
            raise VideoError(
                f"{self.path}: {self._known_length} frames are expected of it, but it holds "
                f"{length}: has it changed since they were counted?"
            )
        return length

    def _require_open(self) -> None:
        if self._closed:
            raise ValueError(f"{self.path}: the video is closed")

    @abstractmethod
    def _count(self) -> int:
        """Return how many frames decode, or raise ``VideoError`` where none does."""

    @abstractmethod
    def _average_rate(self) -> float:
        """Return frames per second, or raise ``VideoError``."""

    @abstractmethod
    def _times(self) -> "Times | None":
        """Return when frames are shown, or ``None`` where only the average rate tells."""

    @abstractmethod
    def _decode(self, indices: list[int], short_side: int | None) -> Iterable[Tensor]:
        """Decode frames.

        Args:
            indices: At least one valid frame number, ascending and distinct.
            short_side: As in :meth:`frames`.

        Returns:
            One uint8 tensor of shape ``(H, W, 3)`` per index, in their order, all of one size.
        """

    @abstractmethod
    def _release(self) -> None:
        """Close what the decoder holds open."""


@contextmanager
def decoding(path: Path) -> Iterator[None]:
    """Raise a ``VideoError`` for whatever a decoder raises.

    What a decoder makes of a damaged or unusual file is not limited to its documented errors.

    Args:
        path: The file that is decoded.

    Raises:
        VideoError: Any exception was raised within the block that is not vidpool's own.
    """
    try:
        yield
    except VidpoolError:
        raise
    except Exception as error:
        raise VideoError(f"{path}: cannot be decoded ({type(error).__name__}: {error})") from error


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
