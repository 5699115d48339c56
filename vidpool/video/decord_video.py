"""Decoding with decord."""

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import torch
from torch import Tensor

from vidpool.errors import ConfigError, VideoError
from vidpool.video.base import FRAMES_AT_ONCE, Video, require_file, resize
from vidpool.video.known_issues import warn_where_wrong
from vidpool.video.pyav_source import Source
from vidpool.video.pyav_table import read_table
from vidpool.video.pyav_video import PyAVVideo
from vidpool.video.times import StampTimes


class DecordVideo(Video):
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

    def _times(self) -> StampTimes | None:
        # its own are in float32, and those of AVI files are far off
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
                batch = self._reader.get_batch(some)
            except self._failures as error:
                raise VideoError(
                    f"{self.path}: decord cannot decode all of the frames {some}"
                ) from error
            # another library may have set decord's bridge, which holds for the whole process
            frames = batch if isinstance(batch, Tensor) else torch.from_numpy(batch.asnumpy())
            yield from resize(frames.permute(0, 3, 1, 2), short_side).permute(0, 2, 3, 1)

    def _release(self) -> None:
        del self._reader
