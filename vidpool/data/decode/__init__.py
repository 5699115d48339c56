"""Reading frames of video files, each by its number and none of them wrong.

    with open_video("clip.mp4") as video:
        clip = video.frames(range(0, 64, 4), short_side=128)  # uint8, (16, 3, H, W)

Every file that cannot be read raises :class:`vidpool.errors.VideoError`, whose message begins with
the path.
"""

import os
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

from vidpool.data.decode.base import Video
from vidpool.data.decode.decord_video import DecordVideo
from vidpool.data.decode.pyav_video import PyAVVideo
from vidpool.errors import ConfigError

__all__ = ["DECODERS", "Video", "open_video"]

DECODERS: dict[str, type[Video]] = {"auto": PyAVVideo, "pyav": PyAVVideo, "decord": DecordVideo}
"""What ``open_video`` takes as ``decoder``; ``auto`` stands for one that returns no wrong frame."""


@contextmanager
def open_video(
    path: str | os.PathLike[str], decoder: str = "auto", length: int | None = None
) -> Iterator[Video]:
    """Open a video file for the length of a ``with`` block.

    Open, read, leave: the video is to be neither kept nor pickled, and readers that stay open hold
    much memory.

    Args:
        path: A file on disk. Never read as a URL.
        decoder: A key of :data:`DECODERS`. ``decord`` returns wrong frames on some kinds of file
            (see :class:`~vidpool.data.decode.decord_video.DecordVideo`).
        length: How many frames it has, where an index knows, which saves counting them; see
            :class:`~vidpool.data.decode.base.Video` for what happens if that is wrong.

    Yields:
        The open video. Using it after the block raises ``ValueError``.

    Raises:
        ConfigError: No decoder has this name, or it is not installed.
        VideoError: The file is missing, empty, or holds no video that can be opened.
    """
    if decoder not in DECODERS:
        raise ConfigError(f"no decoder is called {decoder!r}; there are: {', '.join(DECODERS)}")
    with closing(DECODERS[decoder](Path(path), length)) as video:
        yield video
