"""Decoding with torchcodec."""

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

from torch import Tensor

from vidpool.errors import ConfigError, VideoError
from vidpool.video.base import FRAMES_AT_ONCE, Video, require_file, resize
from vidpool.video.known_issues import warn_where_wrong
from vidpool.video.pyav_source import Source
from vidpool.video.pyav_table import read_table
from vidpool.video.pyav_video import PyAVVideo
from vidpool.video.times import StampTimes


class TorchCodecVideo(Video):
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

    def _times(self) -> StampTimes | None:
        with closing(Source(self.path)) as source:
            table = read_table(source)
        return table.times if table else None

    def _codec(self) -> str:
        with closing(Source(self.path)) as source:
            return source.codec_name

    def _rotation(self) -> int | None:
        with PyAVVideo(self.path) as video:
            return video.rotation

    def _decode(self, indices: list[int], short_side: int | None) -> Iterator[Tensor]:
        for first in range(0, len(indices), FRAMES_AT_ONCE):
            some = indices[first : first + FRAMES_AT_ONCE]
            try:
                frames = self._decoder.get_frames_at(some).data
            except (RuntimeError, ValueError, IndexError) as error:
                raise VideoError(
                    f"{self.path}: torchcodec cannot decode all of the frames {some}"
                ) from error
            yield from resize(frames, short_side).permute(0, 2, 3, 1)

    def _release(self) -> None:
        del self._decoder


def _missing_libraries_error() -> ConfigError:
    """Return the error for an installed torchcodec that cannot load its libraries."""
    return ConfigError(
        "decoder 'torchcodec' cannot load its libraries: it needs FFmpeg's shared ones on the "
        "system (Debian and Ubuntu: `apt-get install ffmpeg`) and must be made for the PyTorch "
        "that is installed; decoder 'auto' works without it"
    )
