"""Two ways to find a frame by its number: by its packet, and by counting from the start."""

from collections.abc import Generator, Iterator
from functools import cached_property
from itertools import chain

import av
from av.video.frame import PictureType

from vidpool.errors import VideoError
from vidpool.video.pyav_source import Source
from vidpool.video.pyav_table import FrameTable

KEPT_PIXELS = 2**25
"""Pixels of a counted video that stay decoded: 436 frames of 320x240, 48 MiB in 4:2:0."""

LATE = 32
"""By how many frames a decoder may at most be behind the order in which frames are shown."""


CONCEALED_OPENLY = {"h264", "mpeg4"}
"""Codings whose decoders mark the frames in which they conceal damage."""


class TabledFrames:
    """Frames found by decoding from a key frame to the packet that a table names.

    Each packet is given the number of its frame as its time stamp, and its frame comes out of the
    decoder with it. Pictures that nobody asked for and no other picture refers to are left out.

    A frame depends on the packets from its key frame on and on nothing else. Where one of them is
    damaged, the frames from there to the next key frame cannot be decoded: what a decoder makes up
    for damage depends on what it decoded before.
    """

    def __init__(self, source: Source, table: FrameTable, length: int | None = None) -> None:
        self._source = source
        self._table = table
        self._known_length = length
        self._wanted: set[int] = set()
        self._keys = set(table.key_packets)
        self._begin(0)

    def __len__(self) -> int:
        """Return the number of frames that decode.

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
            self._begin(self._table.key_packet(numbers[0]))
        early: dict[int, av.VideoFrame] = {}
        for number in numbers:
            frame = early.pop(number, None) or self._find(number, early)
            if frame is None:
                raise VideoError(f"{self._source.path}: frame {number} cannot be decoded")
            yield frame

    def close(self) -> None:
        """Release decoded frames: their generator refers to this object and delays its deletion."""
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
        for key in reversed(self._table.keys):
            number = key
            while number < held and self._find(number, {}) is not None:
                number += 1
            if number > key:
                return number
        raise VideoError(f"{self._source.path}: no frame of it decodes")

    def _find(self, number: int, early: dict[int, av.VideoFrame]) -> av.VideoFrame | None:
        key = self._table.key_packet(number)
        first, strict = self._run
        # decoding on is faster than beginning again, unless a key frame lies between
        if key > self._position or not (strict or first == key):
            self._begin(key)
        frame = self._decode_until(number, early)
        # some errors, as in messages beside the pictures, do no harm to any
        ways = (True, False) if self._source.codec_name in CONCEALED_OPENLY else (True,)
        for strict in ways:
            if frame is None and self._run != (key, strict):
                self._begin(key, strict)
                frame = self._decode_until(number, early)
        return frame

    def _begin(self, packet: int, strict: bool = True) -> None:
        self._position = packet
        self._run = (packet, strict)
        self._decoded = self._decode_from(packet, strict)

    def _decode_until(self, number: int, early: dict[int, av.VideoFrame]) -> av.VideoFrame | None:
        for found, frame in self._decoded:
            if found == number:
                return frame
            if found > number + LATE:
                return None
            if found > number and found in self._wanted:
                early[found] = frame
        return None

    def _decode_from(
        self, first: int, strict: bool
    ) -> Generator[tuple[int, av.VideoFrame], None, None]:
        """Decode from a key frame to the end, or to the first damage."""
        source, table = self._source, self._table
        source.begin(strict)
        if first and source.codec_name == "mpeg4":
            # headers need not be repeated, and the decoder judges the encoder by them
            for packet in source.packets():
                source.decode(packet)
                break
            source.flush()
        knows_before = False
        for packet in source.packets(first):
            position = self._position
            self._position += 1
            knows_before |= position in self._keys and position > first
            if position in table.leading and not knows_before:
                continue
            number = table.numbers[position]
            packet.pts = number
            frames = source.decode(packet, strict and number not in self._wanted)
            whole, sound = self._sound(frames)
            yield from sound
            if not whole:
                # what came before is still in the decoder, and nothing can be decoded from here
                _, rest = self._sound(source.decode(None))
                self._position = len(table.numbers)
                yield from (
                    (number, frame) for number, frame in rest if table.packets[number] < position
                )
                return
        yield from self._sound(source.decode(None))[1]

    def _sound(
        self, frames: list[av.VideoFrame] | None
    ) -> tuple[bool, list[tuple[int, av.VideoFrame]]]:
        """Return whether all is well with frames, and those with their numbers that can be used."""
        if frames is None:
            return False, []
        # decoders make up frames without a time stamp where packets are lost
        numbered = [(frame.pts, frame) for frame in frames if frame.pts is not None]
        packets = self._table.packets
        damage = min(
            (packets[number] for number, frame in numbered if frame.is_corrupt),
            default=len(self._table.numbers),
        )
        sound = [(number, frame) for number, frame in numbered if packets[number] < damage]
        return len(sound) == len(numbered), sound


class CountedFrames:
    """Frames found by decoding from the start and counting.

    The length takes a pass over the whole file. The first frames of that pass are kept, such that
    reading a clip of a short video does not decode it twice.

    Frames from damage to the next key frame are counted, but cannot be read; the video ends with
    the last frame that can.
    """

    def __init__(self, source: Source, length: int | None = None) -> None:
        self._source = source
        self._known_length = length
        self._kept: list[av.VideoFrame | None] = []
        self._frames: Iterator[av.VideoFrame | None] = iter(())
        self._position = -1

    def __len__(self) -> int:
        """Return the number of frames that decode.

        Raises:
            VideoError: No frame does.
        """
        return self._length

    def read(self, numbers: list[int]) -> Iterator[av.VideoFrame]:
        """Decode the frames with these numbers, ascending and distinct.

        Raises:
            VideoError: A frame is damaged, or does not decode that did before.
        """
        for number in numbers:
            frame = self._kept[number] if number < len(self._kept) else self._find(number)
            if frame is None:
                raise VideoError(f"{self._source.path}: frame {number} cannot be decoded")
            yield frame

    def close(self) -> None:
        """Release decoded frames."""
        self._frames = iter(())
        self._kept = []

    @cached_property
    def _length(self) -> int:
        if self._known_length is not None:
            return self._known_length
        height, width = self._source.picture_size
        limit = KEPT_PIXELS // (height * width)
        length = 0
        for number, frame in enumerate(self._decode()):
            if number < limit:
                self._kept.append(frame)
            if frame is not None:
                length = number + 1
        if length == 0:
            raise VideoError(f"{self._source.path}: no frame of it decodes")
        return length

    def _find(self, number: int) -> av.VideoFrame | None:
        if not 0 <= self._position < number:
            self._frames = self._decode()
            self._position = -1
        for frame in self._frames:
            self._position += 1
            if self._position == number:
                return frame
        return None

    def _decode(self) -> Iterator[av.VideoFrame | None]:
        """Decode all frames in the order in which they are shown; ``None`` stands for damage."""
        source = self._source
        # HEVC's decoder does not mark what it could not decode
        source.begin(strict=source.codec_name == "hevc")
        sound = True
        for packet in chain(source.packets(), [None]):
            frames = source.decode(packet)
            sound &= frames is not None
            for frame in frames or ():
                alone = frame.key_frame and frame.pict_type == PictureType.I
                sound = (sound or alone) and not frame.is_corrupt
                yield frame if sound else None
