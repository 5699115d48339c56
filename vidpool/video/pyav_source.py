"""The video stream of a file: its packets and their decoder."""

from collections.abc import Iterator
from fractions import Fraction
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import cast

import av
from av.bitstream import BitStreamFilterContext
from av.container import InputContainer
from av.packet import Packet
from av.stream import Disposition, Stream
from av.video.stream import VideoStream

from vidpool.errors import VideoError

KEPT_BYTES = 2**26
"""Bytes of the largest file that is kept in memory; a larger file is read again."""

MP4 = "mov,mp4,m4a,3gp,3g2,mj2"
"""FFmpeg's name for the container."""

SKIPPABLE = {"h264", "hevc", "mpeg4"}
"""Codings whose decoders can leave out frames that no other frame refers to."""


class Source:
    """The best video stream of a file, as FFmpeg chooses it.

    The file is read once, from start to end, and its packets are kept: going to another place in
    it is then to decode from another packet.

    Args:
        path: The file.
        fast: True to leave out the loop filter, which changes pixels a little.

    Attributes:
        path: The file.
        picture_size: Height and width in pixels as the file declares them, before any rotation.
        time_base: The unit of the packets' time stamps, in seconds.
    """

    def __init__(self, path: Path, fast: bool = False) -> None:
        self.path = path
        self._needs_new_decoder = False  # after damage or a new header
        self._fast = fast
        self._container, self._stream = self._open()
        self._at_start = True
        # its codec context outlives the container, which may be opened again
        self._codec = self._stream.codec_context
        self._strict: bool | None = None  # nothing has been decoded
        self._skips = False
        self._kept: list[Packet] | None = None
        self.picture_size = (self._stream.height, self._stream.width)
        self.time_base = cast(Fraction, self._stream.time_base)
        if 0 in self.picture_size:
            raise VideoError(f"{path}: no frame of it decodes")

    @property
    def container_name(self) -> str:
        """FFmpeg's name for the container format, such as ``matroska,webm``."""
        return self._container.format.name

    @property
    def codec_name(self) -> str:
        """FFmpeg's name for the coding, such as ``h264``."""
        return self._codec.codec.canonical_name

    @property
    def extradata(self) -> bytes | None:
        """Header of the codec in the container."""
        return self._codec.extradata

    @property
    def sample_aspect_ratio(self) -> Fraction:
        """Width of a pixel over its height, 1 where the file does not say."""
        return self._stream.sample_aspect_ratio or Fraction(1)

    @property
    def pixel_format(self) -> str | None:
        """FFmpeg's name for how pixels are coded, such as ``yuv420p``."""
        return self._codec.pix_fmt

    @property
    def reorders(self) -> bool:
        """True if frames are shown in another order than they are coded in (B-frames)."""
        return bool(self._codec.has_b_frames)

    @property
    def declared_packets(self) -> int:
        """Number of packets that the container declares; 0 if it declares none."""
        if self.container_name == MP4:
            # without those that an edit list leaves out altogether
            return len(self._stream.index_entries)
        return self._stream.frames

    @property
    def breaks_off(self) -> bool:
        """True if the file ends before its declared end; only MP4 and AVI declare it."""
        size = self.path.stat().st_size
        if self.container_name == "avi":
            with self.path.open("rb") as file:
                header = file.read(8)  # RIFF, and how many bytes come after these
            return size < 8 + int.from_bytes(header[4:], "little")
        if self.container_name == MP4:
            return any(size < entry.pos + entry.size for entry in self._stream.index_entries)
        return False

    @property
    def declared_rate(self) -> Fraction | None:
        """Frames per second as the file declares them, wrong where the frame rate varies."""
        return self._stream.average_rate or self._stream.guessed_rate

    def packets(self, first: int = 0) -> Iterator[Packet]:
        """Read the packets in the order in which they lie in the file.

        A file that breaks off ends where it breaks off. Where MPEG-4 packs two pictures into a
        packet, they come in packets of their own.

        Args:
            first: Position of the packet to begin at.
        """
        yield from islice(self._from_file() if self._kept is None else self._kept, first, None)

    def begin(self, strict: bool = True) -> None:
        """Prepare to decode from another packet.

        That takes a new decoder after damage, since what one holds shows in how it conceals
        damage, and after packets with a new header of the codec, which a decoder keeps.

        Args:
            strict: True if any error in a packet makes it fail, also one that the decoder could
                conceal.
        """
        if self._strict is None:
            self._set_up(strict)
        elif self._needs_new_decoder or strict is not self._strict:
            container, stream = self._open()
            self._codec = stream.codec_context
            container.close()
            self._set_up(strict)
        else:
            self.flush()
        self._needs_new_decoder = False

    def flush(self) -> None:
        """Forget what was decoded."""
        self._codec.flush_buffers()

    def decode(self, packet: Packet | None, skip: bool = False) -> list[av.VideoFrame] | None:
        """Decode a packet; ``None`` stands for the end.

        Args:
            packet: Packets come in the order of the file, from any that a frame can begin at.
            skip: True to leave out its picture if no other refers to it.

        Returns:
            The frames that are ready; ``None`` where the packet does not decode.
        """
        if skip is not self._skips and self._can_skip:
            self._codec.skip_frame = "NONREF" if skip else "DEFAULT"
            self._skips = skip
        self._needs_new_decoder |= packet is not None and has_new_header(packet)
        try:
            frames = self._codec.decode(packet)
        except av.FFmpegError:
            self._needs_new_decoder = True
            return None
        self._needs_new_decoder |= any(frame.is_corrupt for frame in frames)
        return frames

    @cached_property
    def _can_skip(self) -> bool:
        if self.codec_name == "hevc":
            # frames that none of their own temporal layer refers to may serve a higher one; in mp4
            # and mkv, the header says how many layers there are
            header = self._codec.extradata or b""
            return len(header) > 21 and header[0] == 1 and header[21] >> 3 & 7 == 1
        return self.codec_name in SKIPPABLE

    def close(self) -> None:
        """Close the file."""
        self._kept = None
        self._container.close()

    def _open(self) -> tuple[InputContainer, VideoStream]:
        try:
            # an absolute path cannot be taken for a URL; tags need not be in UTF-8
            container = av.open(str(self.path.absolute()), metadata_errors="replace")
        except av.error.InvalidDataError as error:
            raise VideoError(
                f"{self.path}: is not a video, or was cut short before its index"
            ) from error
        except av.FFmpegError as error:
            raise VideoError(f"{self.path}: cannot be opened: {error.strerror}") from error
        stream = container.streams.best("video")
        reason = self._unreadable_reason(container, stream)
        if reason:
            container.close()
            raise VideoError(f"{self.path}: {reason}")
        return container, cast(VideoStream, stream)

    @staticmethod
    def _unreadable_reason(container: InputContainer, stream: Stream | None) -> str | None:
        """Return why a stream cannot be read as a video, if so."""
        name = container.format.name
        if stream is None:
            return "holds no video stream"
        if stream.codec_context is None:
            return "its video is coded in a way that FFmpeg does not know"
        # FFmpeg holds that to be the best stream only if there is no video besides
        if stream.disposition & Disposition.attached_pic:
            return "holds no video stream, only an attached picture such as an album cover"
        if name == "image2" or name.endswith("_pipe"):
            return (
                f"is a picture ({stream.codec_context.name}), not a video; decoder 'auto' reads "
                "pictures, which it knows by their suffix"
            )
        return None

    def _set_up(self, strict: bool) -> None:
        # loader workers share the cores already: threads add work here and no speed
        self._codec.thread_count = 1
        options = {"skip_loop_filter": "all"} if self._fast else {}
        self._codec.options = options | ({"err_detect": "explode"} if strict else {})
        self._strict = strict
        self._skips = False

    def _from_file(self) -> Iterator[Packet]:
        # not every container seeks to its very first packet, and opening anew takes 1 to 2 ms
        if not self._at_start:
            self._container.close()
            self._container, self._stream = self._open()
        self._at_start = False
        if self.path.stat().st_size > KEPT_BYTES:
            yield from self._unpacked()
            return
        kept = []
        for packet in self._unpacked():
            kept.append(packet)
            yield packet
        self._kept = kept

    def _unpacked(self) -> Iterator[Packet]:
        if self.codec_name != "mpeg4":
            yield from self._demux()
            return
        unpack = BitStreamFilterContext("mpeg4_unpack_bframes", self._stream)
        for packet in self._demux():
            try:
                yield from unpack.filter(packet)
            except av.FFmpegError:
                continue

    def _demux(self) -> Iterator[Packet]:
        try:
            for packet in self._container.demux(self._stream):
                # an empty packet would tell the decoder that the file ends here
                if packet.size:
                    yield packet
        except (av.FFmpegError, IndexError):
            # The IndexError is PyAV's, where a damaged transport stream seems to begin another
            # stream.
            return


def has_new_header(packet: Packet) -> bool:
    """Return whether a header of the codec comes with a packet, in place of the container's."""
    return packet.has_sidedata("new_extradata")
