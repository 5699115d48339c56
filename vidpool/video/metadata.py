"""Metadata of an open video file, and the interface of decoders."""

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from types import TracebackType
from typing import TypeVar

from torch import Tensor

from vidpool.errors import VideoError, VidpoolError
from vidpool.video.times import INSTANT, EvenTimes, StampTimes, Times

OpenVideo = TypeVar("OpenVideo", bound="VideoMetadata")


class VideoMetadata(ABC):
    """Metadata of an open video file; :class:`~vidpool.video.base.Video` reads its frames.

    Args:
        path: The file.
        length: See :class:`~vidpool.video.base.Video`.

    Attributes:
        path: The file.
    """

    def __init__(self, path: Path, length: int | None = None) -> None:
        self.path = path
        self._known_length = length
        self._closed = False
        self._reads = 0

    def __enter__(self: OpenVideo) -> OpenVideo:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

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
            rate = self._frame_times.rate
        if not rate:
            raise VideoError(f"{self.path}: does not say its frame rate")
        return float(rate)

    @property
    def times(self) -> Tensor:
        """Presentation time of every frame in seconds from the first one's, float64 (T,).

        They are the time stamps where those can be trusted, and elsewhere even times at the
        average rate.

        Raises:
            VideoError: The file tells neither time stamps nor its frame rate.
            ValueError: The video is closed.
        """
        length = len(self)
        with decoding(self.path):
            return self._frame_times.starts(length)

    @property
    def duration(self) -> float:
        """Seconds for which the frames are shown.

        They are counted from :attr:`times`; the last frame is shown for as long as frames are on
        average. Sound may last longer.

        Raises:
            VideoError: The file tells neither time stamps nor its frame rate.
            ValueError: The video is closed.
        """
        length = len(self)
        with decoding(self.path):
            return self._frame_times.duration(length)

    @property
    def width(self) -> int:
        """Width of the frames in pixels, as they are returned: turned, and scaled to square pixels.

        Raises:
            VideoError: The first frame cannot be decoded.
            ValueError: The video is closed.
        """
        self._require_open()
        return self._frame_size[1]

    @property
    def height(self) -> int:
        """Height of the frames in pixels, as they are returned.

        Raises:
            VideoError: The first frame cannot be decoded.
            ValueError: The video is closed.
        """
        self._require_open()
        return self._frame_size[0]

    @property
    def codec(self) -> str | None:
        """FFmpeg's name of the codec, such as ``h264``; ``None`` if it is not known.

        Raises:
            ValueError: The video is closed.
        """
        self._require_open()
        with decoding(self.path):
            return self._codec()

    @property
    def rotation(self) -> int | None:
        """Degrees by which returned frames are turned counter-clockwise: 0, 90, 180 or 270.

        The file's rotation tag says it. ``None`` if it is not known.

        Raises:
            VideoError: The first frame cannot be decoded.
            ValueError: The video is closed.
        """
        self._require_open()
        with decoding(self.path):
            return self._rotation()

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
            times = self._frame_times
            duration = times.duration(length)
            if start > duration - INSTANT:
                raise VideoError(f"{self.path}: ends at {duration:.3f} s, before {start} s")
            first = min(times.begun_before(start + INSTANT), length) - 1
            stop = length if end > duration else min(times.begun_before(end - INSTANT), length)
            return range(first, max(stop, first + 1))

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

    @cached_property
    def _frame_times(self) -> Times:
        times = self._times()
        # decord counts frames that others hide
        if times is None or len(times.stamps) < self._count():
            return EvenTimes(self._average_rate())
        return times

    @cached_property
    def _frame_size(self) -> tuple[int, int]:
        """Height and width of the first frame, as it is returned."""
        with decoding(self.path):
            height, width, _ = next(iter(self._read([0], None))).shape
        return height, width

    def _read(self, indices: list[int], short_side: int | None) -> Iterable[Tensor]:
        """Decode frames as :meth:`_decode` does; an earlier reading cannot go on."""
        self._reads += 1
        return self._decode(indices, short_side)

    @abstractmethod
    def _count(self) -> int:
        """Return how many frames decode, or raise ``VideoError`` where none does."""

    @abstractmethod
    def _average_rate(self) -> float:
        """Return frames per second where :meth:`_times` does not tell, or raise ``VideoError``."""

    @abstractmethod
    def _times(self) -> StampTimes | None:
        """Return when frames are shown, or ``None`` where only the average rate tells."""

    @abstractmethod
    def _codec(self) -> str | None:
        """Return FFmpeg's name of the codec, or ``None``."""

    @abstractmethod
    def _rotation(self) -> int | None:
        """Return the degrees by which frames are turned counter-clockwise, or ``None``."""

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
