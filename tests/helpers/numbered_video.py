"""Small videos whose frames carry their numbers, of more kinds than the benchmark's."""

from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path

import av
import numpy as np

from vidpool.bench.numbered_video import draw_number, numbers

__all__ = ["numbers", "picture", "write_video"]


def picture(number: int, width: int, height: int) -> np.ndarray:
    """Draw one frame, (H, W, 3) uint8, on a background that moves from frame to frame."""
    rows, columns = np.mgrid[:height, :width]
    shade = 64 + (rows * 2 + columns + number * 3) % 96
    drawn = np.stack([shade, shade[::-1], shade[:, ::-1]], axis=-1).astype(np.uint8)
    return draw_number(drawn, number)


def write_video(
    path: Path,
    count: int,
    *,
    codec: str = "libx264",
    size: tuple[int, int] = (112, 64),
    pix_fmt: str = "yuv420p",
    gop: int = 12,
    b_frames: int = 2,
    options: dict[str, str] | None = None,
    stamps: Sequence[int] | None = None,
    streams: int = 1,
) -> Path:
    """Write numbered frames.

    Args:
        path: Its suffix chooses the container.
        count: How many frames.
        codec: Name of an encoder of FFmpeg's.
        size: Width and height.
        pix_fmt: Name of a pixel format of FFmpeg's.
        gop: Frames from key frame to key frame.
        b_frames: Most B-frames in a row.
        options: Options of the encoder.
        stamps: When each frame is shown, in 1/100 s; by default 25 frames per second from 0.
        streams: How many video streams; the numbers of the second begin at 1000, and it has four
            times the bits.

    Returns:
        The path.
    """
    stamps = range(0, 4 * count, 4) if stamps is None else stamps
    with av.open(str(path), "w") as container:
        for number in range(streams):
            stream = container.add_stream(codec, rate=25, options=dict(options or {}))
            stream.width, stream.height = size
            stream.pix_fmt = pix_fmt
            context = stream.codec_context
            context.time_base = Fraction(1, 25) if path.suffix == ".avi" else Fraction(1, 100)
            context.gop_size = gop
            context.max_b_frames = b_frames
            context.bit_rate = 400_000 * 4**number
        for index, stamp in enumerate(stamps[:count]):
            for number, stream in enumerate(container.streams.video):
                frame = av.VideoFrame.from_ndarray(picture(1000 * number + index, *size))
                frame.pts = stamp
                frame.time_base = Fraction(1, 100)
                container.mux(stream.encode(frame))
        for stream in container.streams.video:
            container.mux(stream.encode())
    return path
