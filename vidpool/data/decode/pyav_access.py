"""Two ways to find a frame by its number: by its time stamp, and by counting from the start.

Time stamps allow to seek, but those of AVI files with B-frames lie, and some codings have packets
that show no frame. So they are used only where container and coding are known to give each frame
shown a packet with its own time stamp, and every other file is counted.
"""

from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from functools import cached_property

import av

from vidpool.data.decode.pyav_source import Source
from vidpool.errors import VideoError

TIMED_CONTAINERS = {"mov,mp4,m4a,3gp,3g2,mj2", "matroska,webm", "mpegts", "flv"}
TIMED_CODECS = {"h264", "hevc", "vp9", "av1"}

KEPT_PIXELS = 2**25
"""How much of a counted video stays decoded: 436 frames of 320x240, 48 MiB in 4:2:0."""


@dataclass(frozen=True)
class TimeTable:
    """When the frames of a stream are shown, in the stream's units, read without decoding.

    Attributes:
        stamps: Time stamp of every frame shown, ascending and distinct.
        keys: Time stamps at which decoding can begin, ascending. They include frames that an edit
            list hides.
        complete: Whether the file holds all the packets that it declares, undamaged.
        time_base: The unit of time stamps, in seconds.
        declared_rate: Frames per second as the file declares them.
    """

    stamps: list[int]
    keys: list[int]
    complete: bool
    time_base: Fraction
    declared_rate: Fraction | None

    def key_before(self, stamp: int) -> int:
        """Return the latest key time stamp that is not after ``stamp``."""
        return self.keys[bisect_right(self.keys, stamp) - 1]

    def begun_before(self, seconds: float) -> int:
        """Return how many frames are first shown before a time, counted from the first one's."""
        return bisect_left(self.stamps, self.stamps[0] + seconds / self.time_base)

    def duration(self, length: int) -> float:
        """Return for how many seconds the first ``length`` frames are shown.

        The last of them counts for as long as frames last on average.
        """
        shown = (self.stamps[length - 1] - self.stamps[0]) * self.time_base
        return float(shown + (1 / self.rate if self.rate else 0))

    @property
    def rate(self) -> Fraction | None:
        """Frames per second over the whole video, or what is declared for a single frame."""
        if len(self.stamps) == 1:
            return self.declared_rate
        return (len(self.stamps) - 1) / ((self.stamps[-1] - self.stamps[0]) * self.time_base)


def read_time_table(source: Source) -> TimeTable | None:
    """Scan the packets of a stream.

    Returns:
        The table, or ``None`` where frames cannot be told by their time stamps: the container or
        coding is not among those trusted, a stamp is missing or repeated, or frames are shown
        before the first key frame.
    """
    if source.container_name not in TIMED_CONTAINERS or source.codec_name not in TIMED_CODECS:
        return None
    stamps: list[int] = []
    keys: list[int] = []
    scanned = 0
    damaged = False
    for packet in source.packets():
        if packet.pts is None:
            return None
        scanned += 1
        damaged |= packet.is_corrupt
        if packet.is_keyframe:
            keys.append(packet.pts)
        # edit lists hide frames by this flag
        if not packet.is_discard:
            stamps.append(packet.pts)
    stamps.sort()
    keys.sort()
    repeated = len(set(stamps)) < len(stamps)
    if not stamps or not keys or repeated or stamps[0] < keys[0]:
        return None
    complete = scanned == source.declared_frames and not damaged
    return TimeTable(stamps, keys, complete, source.time_base, source.declared_rate)


class TimedFrames:
    """Frames found by going to a key frame and decoding on to the right time stamp."""

    def __init__(self, source: Source, table: TimeTable, length: int | None = None) -> None:
        self._source = source
        self._table = table
        self._known_length = length
        self._seeks = True
        self._begin(None)

    def __len__(self) -> int:
        """How many frames decode.

        Raises:
            VideoError: No frame does.
        """
        return self._length

    def read(self, indices: Iterable[int]) -> Iterator[av.VideoFrame]:
        """Decode the frames with these numbers, fastest where they ascend.

        Raises:
            VideoError: A frame is damaged or missing.
        """
        for index in indices:
            frame = self._find(index)
            if frame is None:
                raise VideoError(f"{self._source.path}: frame {index} cannot be decoded")
            yield frame

    @cached_property
    def _length(self) -> int:
        stamps = self._table.stamps
        known = self._known_length
        if known is not None:
            if known > len(stamps) or (self._table.complete and known != len(stamps)):
                raise VideoError(
                    f"{self._source.path}: {known} frames are expected of it, but it holds "
                    f"{len(stamps)}: has it changed since they were counted?"
                )
            return known
        if self._table.complete:
            return len(stamps)
        for key in (self._table.keys[-1], None):
            self._begin(key)
            decoded = {frame.pts for frame in self._frames}
            numbers = [number for number, stamp in enumerate(stamps) if stamp in decoded]
            if numbers:
                return numbers[-1] + 1
        raise VideoError(f"{self._source.path}: no frame of it decodes")

    def _find(self, index: int) -> av.VideoFrame | None:
        stamps = self._table.stamps
        key = self._table.key_before(stamps[index]) if self._seeks else self._table.keys[0]
        # decoding on is faster than seeking, unless a key frame lies between the next and this one
        if self._next is not None and self._next <= index and key <= stamps[self._next]:
            frame = self._decode_until(stamps[index])
            if frame is not None:
                return frame
        if self._seeks:
            self._begin(key)
            frame = self._decode_until(stamps[index])
            if frame is not None:
                return frame
            # this container goes elsewhere than it is told to
            self._seeks = False
        self._begin(None)
        return self._decode_until(stamps[index])

    def _begin(self, key: int | None) -> None:
        self._frames = self._source.frames(key)
        self._next: int | None = None

    def _decode_until(self, stamp: int) -> av.VideoFrame | None:
        for frame in self._frames:
            # decoders make up frames without a time stamp where packets are lost
            if frame.pts is None:
                continue
            self._next = bisect_right(self._table.stamps, frame.pts)
            if frame.pts >= stamp:
                return frame if frame.pts == stamp else None
        return None


class CountedFrames:
    """Frames found by decoding from the start and counting.

    The length takes a pass over the whole file. The first frames of that pass are kept, such that
    reading a clip of a short video does not decode it twice.
    """

    def __init__(self, source: Source, length: int | None = None) -> None:
        self._source = source
        self._known_length = length
        self._kept: list[av.VideoFrame] = []
        self._frames: Iterator[av.VideoFrame] = iter(())
        self._position = -1

    def __len__(self) -> int:
        """How many frames decode.

        Raises:
            VideoError: No frame does.
        """
        return self._length

    def read(self, indices: Iterable[int]) -> Iterator[av.VideoFrame]:
        """Decode the frames with these numbers, fastest where they ascend.

        Raises:
            VideoError: A frame that decoded before does no longer.
        """
        for index in indices:
            yield self._kept[index] if index < len(self._kept) else self._find(index)

    @cached_property
    def _length(self) -> int:
        if self._known_length is not None:
            return self._known_length
        height, width = self._source.picture_size
        limit = KEPT_PIXELS // (height * width)
        length = 0
        for length, frame in enumerate(self._source.frames(), start=1):
            if length <= limit:
                self._kept.append(frame)
        if length == 0:
            raise VideoError(f"{self._source.path}: no frame of it decodes")
        return length

    def _find(self, index: int) -> av.VideoFrame:
        if not 0 <= self._position < index:
            self._frames = self._source.frames()
            self._position = -1
        for frame in self._frames:
            self._position += 1
            if self._position == index:
                return frame
        raise VideoError(f"{self._source.path}: frame {index} cannot be decoded")
