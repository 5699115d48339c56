"""Videos whose frames carry their numbers: writing them, and reading the numbers back.

Below a quarter of the height lies a band a quarter high, of 14 equal columns. Columns 1 to 12 hold
bits 0 to 11 of the number, bright for 1. `shared/videos` holds files of the same kind.
"""

from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from torch import Tensor

COLUMNS = 14
BITS = 12


def picture(number: int, width: int, height: int) -> np.ndarray:
    """Draw one frame, (H, W, 3) uint8, on a background that moves from frame to frame."""
    rows, columns = np.mgrid[:height, :width]
    shade = 64 + (rows * 2 + columns + number * 3) % 96
    drawn = np.stack([shade, shade[::-1], shade[:, ::-1]], axis=-1).astype(np.uint8)
    edges = np.linspace(0, width, COLUMNS + 1).round().astype(int)
    drawn[height // 4 : height // 2] = 0
    for bit in range(BITS):
        if number >> bit & 1:
            drawn[height // 4 : height // 2, edges[bit + 1] : edges[bit + 2]] = 255
    return drawn


def numbers(clip: Tensor) -> list[int]:
    """Read the numbers of the frames of a clip of shape (T, 3, H, W)."""
    _, _, height, width = clip.shape
    row = clip[:, :, height * 3 // 8].float().mean(dim=1)
    centres = [int((bit + 1.5) * width / COLUMNS) for bit in range(BITS)]
    bright = row[:, centres] > 128
    return [sum(1 << bit for bit, one in enumerate(bits) if one) for bits in bright.tolist()]


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
