"""Frame-accurate reading of video files by frame number.

    with open_video("clip.mp4") as video:
        frame = video[10]  # uint8, (3, H, W)
        clip = video.frames(range(0, 64, 4), short_side=128)  # uint8, (16, 3, H, W)

Every file that cannot be read raises :class:`vidpool.errors.VideoError`, whose message begins with
the path.
"""

import os
from pathlib import Path
from typing import Any, Literal

from vidpool.errors import ConfigError
from vidpool.video.base import IMAGE_SUFFIXES, VIDEO_SUFFIXES, Video, decoding
from vidpool.video.image_video import FramesDbVideo, ImageFileVideo
from vidpool.video.other_decoders import DecordVideo, TorchCodecVideo
from vidpool.video.pyav_video import PyAVVideo

__all__ = ["DECODERS", "IMAGE_SUFFIXES", "VIDEO_SUFFIXES", "Decoder", "Video", "open_video"]

Decoder = Literal["auto", "pyav", "torchcodec", "decord", "frames_db"]
DECODERS: dict[str, type[Video]] = {
    "auto": PyAVVideo,
    "pyav": PyAVVideo,
    "torchcodec": TorchCodecVideo,
    "decord": DecordVideo,
    "frames_db": FramesDbVideo,
}
"""Values of ``open_video``'s ``decoder``; ``auto`` stands for a frame-accurate one."""


def open_video(
    path: str | os.PathLike[str],
    decoder: str = "auto",
    length: int | None = None,
    fast: bool = False,
    device: str = "cpu",
    square_pixels: bool = False,
) -> Video:
    """Open a video, usually for the length of a ``with`` block.

    A video that is opened without ``with`` is closed by ``video.close()``. Videos that stay open
    hold much memory, and cannot be pickled.

    Args:
        path: A file on disk, never read as a URL; for ``frames_db`` the folder of a video, which
            ``auto`` knows by its ``frames.db``. ``auto`` also knows pictures, by their suffix.
        decoder: A key of :data:`DECODERS`. ``decord`` and ``torchcodec`` return wrong frames of
            some kinds of file, and warn when they meet one; ``frames_db`` reads frames that were
            taken out beforehand (:class:`~vidpool.video.image_video.FramesDbVideo`).
        length: How many frames it has, where an index knows, which saves counting them; see
            :class:`~vidpool.video.base.Video` for what happens if that is wrong.
        fast: Leave out the loop filter, which costs exactness of pixels (`vidpool bench decode`
            tells how much) but never of frame numbers. For ``auto`` and ``pyav``; does nothing for
            codings without such a filter, as MPEG-4 Part 2.
        device: For ``torchcodec``: ``cuda`` decodes on the GPU, and frames stay there.
        square_pixels: Scale the width of frames by the sample aspect ratio that the file declares,
            as a player does, so that circles are round. By default frames have the pixels that are
            coded, as with other decoders. For ``auto`` and ``pyav``.

    Returns:
        The open video, see :class:`~vidpool.video.base.Video`.

    Raises:
        ConfigError: No decoder has this name, it is not installed, or it has not these options.
        VideoError: The file is missing, empty, or holds no video that can be opened.
        ValueError: ``length`` is less than 1.

    Examples:
        >>> import tempfile, torch
        >>> from vidpool.data.datasets.demo import write_video
        >>> path = tempfile.mkdtemp() + "/clip.mp4"
        >>> write_video(path, torch.zeros(60, 48, 64, 3, dtype=torch.uint8), fps=25)
        >>> with open_video(path) as video:
        ...     print(video[10].shape, video[::4].shape, video.fps, video.duration)
        torch.Size([3, 48, 64]) torch.Size([15, 3, 48, 64]) 25.0 2.4
    """
    if length is not None and length < 1:
        raise ValueError(f"{path}: a video has at least 1 frame, not {length}")
    if decoder not in DECODERS:
        raise ConfigError(
            f"no decoder is called {decoder!r}; there are: {', '.join(DECODERS)}", "decoder"
        )
    for option, value in (("fast", fast), ("square_pixels", square_pixels)):
        if value and decoder not in ("auto", "pyav"):
            raise ConfigError(f"{option} is for decoder 'auto' or 'pyav', not {decoder!r}", option)
    kind = DECODERS[decoder]
    # os.path, unlike pathlib, takes a path that cannot be for one that is not
    if decoder == "auto" and os.path.isfile(os.path.join(path, "frames.db")):  # noqa: PTH113, PTH118
        kind = FramesDbVideo
    elif decoder == "auto" and str(path).lower().endswith(IMAGE_SUFFIXES):
        kind = ImageFileVideo
    options: dict[str, Any] = {}
    if kind is PyAVVideo:
        options = {"fast": fast, "square_pixels": square_pixels}
    if device != "cpu":
        if kind is not TorchCodecVideo:
            raise ConfigError(
                f"device {device!r} is for decoder 'torchcodec', not {decoder!r}", "device"
            )
        options["device"] = device
    with decoding(Path(path)):
        return kind(Path(path), length, **options)
