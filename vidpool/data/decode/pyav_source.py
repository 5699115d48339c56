"""One video stream of one file: its packets, and its frames in the order they are shown in."""

from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import cast

import av
from av.container import InputContainer
from av.packet import Packet
from av.video.stream import VideoStream

from vidpool.errors import VideoError


class Source:
    """The video stream of a file that FFmpeg holds to be the best.

    There is one place in the file at which packets and frames are read: begin no iteration before
    the last one has been given up.

    Attributes:
        path: The file.
        picture_size: Height and width in pixels as the file declares them, before any rotation.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._open()
        self.picture_size = (self._stream.height, self._stream.width)
        if 0 in self.picture_size:
            raise VideoError(f"{path}: no frame of it decodes")

    @property
    def container_name(self) -> str:
        """FFmpeg's name for the container format, such as ``matroska,webm``."""
        return self._container.format.name

    @property
    def codec_name(self) -> str:
        """FFmpeg's name for the coding, such as ``h264``."""
        return self._stream.codec_context.codec.canonical_name

    @property
    def declared_frames(self) -> int:
        """How many frames the container says it holds; 0 where it does not say."""
        return self._stream.frames

    @property
    def declared_rate(self) -> Fraction | None:
        """Frames per second as the file declares them, wrong where the frame rate varies."""
        return self._stream.average_rate or self._stream.guessed_rate

    @property
    def time_base(self) -> Fraction:
        """The unit of time stamps, in seconds."""
        return cast(Fraction, self._stream.time_base)

    def packets(self) -> Iterator[Packet]:
        """Read all packets from the start of the file without decoding them."""
        self._rewind()
        yield from self._demux()

    def frames(self, key: int | None = None) -> Iterator[av.VideoFrame]:
        """Decode frames in the order in which they are shown.

        Packets that do not decode are passed over.

        Args:
            key: Time stamp of the key frame to begin at, in units of the stream. Containers may
                land on another one, earlier or later. ``None`` begins at the start of the file.
        """
        packets = self.packets() if key is None else self._packets_from(key)
        for packet in packets:
            yield from self._decode(packet)
        yield from self._decode(None)

    def close(self) -> None:
        """Close the file."""
        self._container.close()

    def _open(self) -> None:
        try:
            # an absolute path cannot be taken for a URL; tags need not be in UTF-8
            self._container: InputContainer = av.open(
                str(self.path.absolute()), metadata_errors="replace"
            )
        except av.error.InvalidDataError as error:
            raise VideoError(
                f"{self.path}: is not a video, or was cut short before its index"
            ) from error
        except av.FFmpegError as error:
            raise VideoError(f"{self.path}: cannot be opened: {error.strerror}") from error
        stream = self._container.streams.best("video")
        if stream is None:
            self._container.close()
            raise VideoError(f"{self.path}: holds no video stream")
        if stream.codec_context is None:
            self._container.close()
            raise VideoError(f"{self.path}: its video is coded in a way that FFmpeg does not know")
        self._stream = cast(VideoStream, stream)
        # loader workers share the cores already: threads add work here and no speed
        self._stream.codec_context.thread_count = 1
        self._at_start = True

    def _rewind(self) -> None:
        # not every container seeks to its very first packet, and opening anew takes 1 to 2 ms
        if not self._at_start:
            self._container.close()
            self._open()

    def _packets_from(self, key: int) -> Iterator[Packet]:
        try:
            self._container.seek(key, stream=self._stream)
        except av.FFmpegError:
            return
        packets = self._demux()
        for packet in packets:
            # some containers land between key frames, where decoders show broken pictures
            if packet.is_keyframe:
                yield packet
                break
        yield from packets

    def _demux(self) -> Iterator[Packet]:
        self._at_start = False
        try:
            for packet in self._container.demux(self._stream):
                # an empty packet would tell the decoder that the file ends here
                if packet.size:
                    yield packet
        except (av.FFmpegError, IndexError):
            # A file that breaks off ends where it breaks off. The IndexError is PyAV's, where a
            # damaged transport stream seems to begin another stream.
            return

    def _decode(self, packet: Packet | None) -> list[av.VideoFrame]:
        try:
            return self._stream.decode(packet)
        except av.FFmpegError:
            return []
