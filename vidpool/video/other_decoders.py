"""Decoding with decord and torchcodec, and a warning where they return wrong frames."""

import warnings
from abc import abstractmethod
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import torch
from torch import Tensor

from vidpool.errors import ConfigError, VideoError
from vidpool.video.base import Video, require_file, resize
from vidpool.video.pyav_source import Source
from vidpool.video.pyav_table import read_table
from vidpool.video.pyav_video import PyAVVideo
from vidpool.video.times import StampTimes

AVI = "AVI with B-frames"
AVI_KEYS = "AVI with B-frames and several key frames"
MPEG = "MPEG transport and program streams"
MPEG4 = "MPEG-4 Part 2 with B-frames"
HIDDEN = "video trimmed without re-encoding (edit lists)"
OPEN = "open groups of pictures"

WRONG: dict[str, set[str]] = {
    "decord": {AVI_KEYS, MPEG, MPEG4, HIDDEN, OPEN},
    "torchcodec": {AVI, MPEG},
}
"""Kinds of files of which each decoder returns wrong frames.

Measured with numbered frames, decord 0.6 and torchcodec 0.17, the latter in its exact mode.
"""

FRAMES_AT_ONCE = 64
"""Most frames that are decoded in one call, which bounds the memory."""

_warned: set[tuple[str, str]] = set()


class BatchVideo(Video):
    """A video whose decoder decodes many frames in one call; PyAV reads the file's metadata."""

    @abstractmethod
    def _decode_batch(self, indices: list[int]) -> Tensor:
        """Return the frames with ascending and distinct numbers, uint8 (T, 3, H, W)."""

    def _decode(self, indices: list[int], short_side: int | None) -> Iterator[Tensor]:
        for first in range(0, len(indices), FRAMES_AT_ONCE):
            frames = self._decode_batch(indices[first : first + FRAMES_AT_ONCE])
            yield from resize(frames, short_side).permute(0, 2, 3, 1)

    def _times(self) -> StampTimes | None:
        # decord's own are in float32, and those of AVI files are far off
        with closing(Source(self.path)) as source:
            table = read_table(source)
        return table.times if table else None

    def _codec(self) -> str:
        with closing(Source(self.path)) as source:
            return source.codec_name

    def _rotation(self) -> int | None:
        with PyAVVideo(self.path) as video:
            return video.rotation


class DecordVideo(BatchVideo):
    """A video read by decord 0.6, for comparison and to reproduce results of other projects.

    It finds frames by seeking, and on some kinds of file it silently returns wrong frames;
    vidpool warns once for each such kind. Measured with numbered frames:

    - trimmed without re-encoding (edit lists): the length counts hidden frames, and what is read
      beyond the true end is wrong;
    - AVI with B-frames and many key frames: 80 to 90 %, by up to 112 frames;
    - open groups of pictures, in h264 and HEVC: up to 45 %; MPEG-4 Part 2 in mp4 and mkv: 40 %;
    - MPEG transport streams: nearly all;
    - AVI with B-frames and one key frame, such as UCF-101's files: none, but for the last frame, in
      1 of 20 tries.

    It was right on h264 with closed groups of pictures in mp4 and mkv, and on VP8 and VP9. It does
    not read AV1, nor every file cut short. Of several video streams it may take another.
    """

    def __init__(self, path: Path, length: int | None = None) -> None:
        super().__init__(path, length)
        require_file(path)
        try:
            import decord
        except ImportError as error:
            raise ConfigError(
                "decoder 'decord' needs the package decord: `pip install decord` (there are wheels "
                "for x86-64 Linux and Windows only); decoder 'auto' works without it"
            ) from error
        warn_where_wrong(path, "decord")
        # decord checks lengths by `assert`, and what it raises itself is a bare Exception
        self._failures = (decord.DECORDError, RuntimeError, AssertionError)
        try:
            # an absolute path cannot be taken for a URL
            self._reader = decord.VideoReader(
                str(path.absolute()), ctx=decord.cpu(0), num_threads=1
            )
        except self._failures as error:
            raise VideoError(f"{path}: decord finds no video in it that it can read") from error

    def _count(self) -> int:
        return self._require_known_length(len(self._reader))

    def _average_rate(self) -> float:
        return float(self._reader.get_avg_fps())

    def _decode_batch(self, indices: list[int]) -> Tensor:
        try:
            batch = self._reader.get_batch(indices)
        except self._failures as error:
            raise VideoError(
                f"{self.path}: decord cannot decode all of the frames {indices}"
            ) from error
        # another library may have set decord's bridge, which holds for the whole process
        frames = batch if isinstance(batch, Tensor) else torch.from_numpy(batch.asnumpy())
        return frames.permute(0, 3, 1, 2)

    def _release(self) -> None:
        del self._reader


class TorchCodecVideo(BatchVideo):
    """A video read by torchcodec in its exact mode, in one thread.

    It goes by time stamps, so it returns wrong frames of AVI files with B-frames (UCF-101: each is
    the one before) and of MPEG transport and program streams (60 to 80 %), and warns once when it
    meets one. It was right on all other kinds of file that were tried.

    Args:
        path: The file.
        length: As for :class:`~vidpool.video.base.Video`.
        device: ``cuda`` decodes on the GPU (NVDEC) and returns frames that lie there; loader
            processes must then be spawned, not forked. This has not been run where it was made.

    Raises:
        ConfigError: torchcodec is missing, or the FFmpeg libraries that it needs are, or it cannot
            use the device.
        VideoError: The file is missing, empty, or holds no video that can be opened.
    """

    def __init__(self, path: Path, length: int | None = None, device: str = "cpu") -> None:
        super().__init__(path, length)
        require_file(path)
        try:
            from torchcodec.decoders import VideoDecoder
        except ImportError as error:
            raise ConfigError(
                "decoder 'torchcodec' needs the package torchcodec: `pip install torchcodec`; "
                "decoder 'auto' works without it"
            ) from error
        except RuntimeError as error:
            raise _missing_libraries_error() from error
        warn_where_wrong(path, "torchcodec")
        try:
            # an absolute path cannot be taken for a URL
            self._decoder = VideoDecoder(
                str(path.absolute()), num_ffmpeg_threads=1, device=device, seek_mode="exact"
            )
        except (RuntimeError, ValueError) as error:
            if "Could not load libtorchcodec" in str(error):
                raise _missing_libraries_error() from error
            if "cuda" in device and "CUDA" in str(error):
                raise ConfigError(
                    f"torchcodec cannot decode on {device!r}: {error}", "device"
                ) from error
            raise VideoError(f"{path}: torchcodec finds no video in it that it can read") from error

    def _count(self) -> int:
        return self._require_known_length(len(self._decoder))

    def _average_rate(self) -> float:
        rate = self._decoder.metadata.average_fps
        if not rate:
            raise VideoError(f"{self.path}: does not say its frame rate")
        return float(rate)

    def _decode_batch(self, indices: list[int]) -> Tensor:
        try:
            return self._decoder.get_frames_at(indices).data
        except (RuntimeError, ValueError, IndexError) as error:
            raise VideoError(
                f"{self.path}: torchcodec cannot decode all of the frames {indices}"
            ) from error

    def _release(self) -> None:
        del self._decoder


def _missing_libraries_error() -> ConfigError:
    """Return the error for an installed torchcodec that cannot load its libraries."""
    return ConfigError(
        "decoder 'torchcodec' cannot load its libraries: it needs FFmpeg's shared ones on the "
        "system (Debian and Ubuntu: `apt-get install ffmpeg`) and must be made for the PyTorch "
        "that is installed; decoder 'auto' works without it"
    )


def warn_where_wrong(path: Path, decoder: str) -> None:
    """Warn if a decoder returns wrong frames of a file, once for each kind of file and process.

    The file's packets are read for that, if need be, which takes some milliseconds.

    Args:
        path: The file.
        decoder: A key of :data:`WRONG`.
    """
    kinds = {kind for kind in WRONG[decoder] if (decoder, kind) not in _warned}
    if not kinds:
        return
    try:
        with closing(Source(path)) as source:
            found = _affected_kinds(source, kinds)
    except VideoError:
        return  # the decoder says so itself
    for kind in sorted(found):
        _warned.add((decoder, kind))
        warnings.warn(
            f"{path}: decoder {decoder!r} returns wrong frames of {kind}, or fails; decoder "
            "'auto' does not. (This is said once for each kind of file.)",
            stacklevel=2,
        )


def _affected_kinds(source: Source, among: set[str]) -> set[str]:
    """Return the kinds, among some, that a file belongs to."""
    avi = source.container_name == "avi" and source.reorders
    found = {AVI} if avi else set()
    if source.container_name in ("mpegts", "mpeg"):
        found.add(MPEG)
    elif source.codec_name == "mpeg4" and source.reorders and not avi:
        found.add(MPEG4)
    if among & {AVI_KEYS, HIDDEN, OPEN}:  # these take reading the packets
        table = read_table(source)
        if avi and (table is None or len(table.keys) > 1):
            found.add(AVI_KEYS)
        elif table and len(table.packets) < len(table.numbers):
            found.add(HIDDEN)
        elif table and table.leading and not found:
            found.add(OPEN)
    return found & among
