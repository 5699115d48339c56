"""Two ways to find a frame by its number: by its packet, and by counting from the start."""

from collections.abc import Generator, Iterator
from functools import cached_property

import av

from vidpool.errors import VideoError
from vidpool.video.pyav_source import Source
from vidpool.video.pyav_table import FrameTable

KEPT_PIXELS = 2**25
"""How much of a counted video stays decoded: 436 frames of 320x240, 48 MiB in 4:2:0."""

LATE = 32
"""By how many frames a decoder may at most be behind the order in which frames are shown."""


class TabledFrames:
    """Frames found by decoding from a key frame to the packet that a table names.

    Each packet is given the number of its frame as its time stamp, and its frame comes out of the
    decoder with it. Pictures that nobody asked for and no other picture refers to are left out.
    """

    def __init__(self, source: Source, table: FrameTable, length: int | None = None) -> None:
        self._source = source
        self._table = table
        self._known_length = length
        self._wanted: set[int] = set()
        self._trusts_keys = True
        self._begin(0)

    def __len__(self) -> int:
        """How many frames decode.

        Raises:
            VideoError: No frame does, or another number is known than the file holds.
        """
        return self._length

    def read(self, numbers: list[int]) -> Iterator[av.VideoFrame]:
        """Decode the frames with these numbers, ascending and distinct.

        Raises:
            VideoError: A frame is damaged or missing.
        """
        self._wanted = set(numbers)
        # what lies behind the decoder has come out of it, or may have been left out
        if any(self._table.packets[number] < self._position for number in numbers):
            self._begin(self._start(numbers[0]))
        early: dict[int, av.VideoFrame] = {}
        for number in numbers:
            frame = early.pop(number, None) or self._find(number, early)
            if frame is None:
                raise VideoError(f"{self._source.path}: frame {number} cannot be decoded")
            yield frame

    def close(self) -> None:
        """Let go of what is decoded. It refers to this object: garbage would pile up otherwise."""
        self._decoded.close()

    @cached_property
    def _length(self) -> int:
        held = len(self._table.packets)
        known = self._known_length
        if known is not None:
            if known > held or (self._table.complete and known != held):
                raise VideoError(
                    f"{self._source.path}: {known} frames are expected of it, but it holds "
                    f"{held}: has it changed since they were counted?"
                )
            return known
        if self._table.complete:
            return held
        # a file that was cut short ends where its last group of pictures breaks off
        self._wanted = set(range(held))
        last_key = self._table.keys[-1]
        self._begin(self._table.key_packets[-1])
        decoded = {number for number, _ in self._decoded}
        end = next(number for number in range(last_key, held + 1) if number not in decoded)
        if end > last_key:
            return end
        self._begin(0)
        end = max((number for number, _ in self._decoded), default=-1) + 1
        if end == 0:
            raise VideoError(f"{self._source.path}: no frame of it decodes")
        return end

    def _find(self, number: int, early: dict[int, av.VideoFrame]) -> av.VideoFrame | None:
        start = self._start(number)
        # decoding on is faster than beginning anew, unless a key frame lies between
        if start > self._position:
            self._begin(start)
        frame = self._decode_until(number, early)
        if frame is None and self._trusts_keys:
            # damage, or a key frame at which decoding cannot begin
            self._trusts_keys = False
            self._begin(0)
            frame = self._decode_until(number, early)
        return frame

    def _start(self, number: int) -> int:
        return self._table.key_packet(number) if self._trusts_keys else 0

    def _begin(self, packet: int) -> None:
        self._position = packet
        self._decoded = self._decode_from(packet)

    def _decode_until(self, number: int, early: dict[int, av.VideoFrame]) -> av.VideoFrame | None:
        for found, frame in self._decoded:
            if found == number:
                return frame
            if found > number + LATE:
                return None
            if found > number and found in self._wanted:
                early[found] = frame
        return None

    def _decode_from(self, first: int) -> Generator[tuple[int, av.VideoFrame], None, None]:
        source = self._source
        source.flush()
        if first and source.codec_name == "mpeg4":
            # headers need not be repeated, and the decoder judges the encoder by them
            for packet in source.packets():
                source.decode(packet)
                break
            source.flush()
        numbers = self._table.numbers
        for packet in source.packets(first):
            number = numbers[self._position]
            self._position += 1
            packet.pts = number
            leave_out = self._trusts_keys and number not in self._wanted
            yield from _numbered(source.decode(packet, leave_out))
        yield from _numbered(source.decode(None))


def _numbered(frames: list[av.VideoFrame]) -> Iterator[tuple[int, av.VideoFrame]]:
    # decoders make up frames without a time stamp where packets are lost
    return ((frame.pts, frame) for frame in frames if frame.pts is not None)


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

    def read(self, numbers: list[int]) -> Iterator[av.VideoFrame]:
        """Decode the frames with these numbers, ascending and distinct.

        Raises:
            VideoError: A frame that decoded before does no longer.
        """
        for number in numbers:
            yield self._kept[number] if number < len(self._kept) else self._find(number)

    def close(self) -> None:
        """Let go of what is decoded."""
        self._frames = iter(())
        self._kept = []

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

    def _find(self, number: int) -> av.VideoFrame:
        if not 0 <= self._position < number:
            self._frames = self._source.frames()
            self._position = -1
        for frame in self._frames:
            self._position += 1
            if self._position == number:
                return frame
        raise VideoError(f"{self._source.path}: frame {number} cannot be decoded")
