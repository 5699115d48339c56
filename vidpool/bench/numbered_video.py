"""Videos whose frames carry their numbers: writing them, and reading the numbers back.

Below a quarter of the height lies a band a quarter high, of 14 equal columns. Columns 1 to 12 hold
bits 0 to 11 of the number, bright for 1.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any, cast

import av
import numpy as np
from av.video.stream import VideoStream
from numpy.typing import NDArray
from torch import Tensor

COLUMNS = 14
BITS = 12

Picture = NDArray[np.uint8]


def draw_number(picture: Picture, number: int) -> Picture:
    """Draw the band over a picture (H, W, 3), in place, and return it."""
    height, width, _ = picture.shape
    edges = np.linspace(0, width, COLUMNS + 1).round().astype(int)
    band = picture[height // 4 : height // 2]
    band[:] = 0
    for bit in range(BITS):
        if number >> bit & 1:
            band[:, edges[bit + 1] : edges[bit + 2]] = 255
    return picture


def numbers(clip: Tensor) -> list[int]:
    """Read the numbers of the frames of a clip of shape (T, 3, H, W)."""
    _, _, height, width = clip.shape
    row = clip[:, :, height * 3 // 8].float().mean(dim=1)
    centres = [int((bit + 1.5) * width / COLUMNS) for bit in range(BITS)]
    bright = row[:, centres] > 128
    return [sum(1 << bit for bit, one in enumerate(bits) if one) for bits in bright.tolist()]


def scenes(count: int, width: int, height: int) -> Iterator[Picture]:
    """Draw numbered frames that cost about as much to code and decode as filmed ones.

    A camera pans over a landscape of blurred noise, two patches of another move across it, and the
    sensor is noisy.
    """
    rng = np.random.default_rng(0)
    landscape = _texture(rng, 2 * height, 2 * width)
    patches = _texture(rng, height // 2, width // 2)
    for number in range(count):
        swing = number / 40
        y, x = int(height * (1 + np.sin(swing)) / 2), int(width * (1 + np.cos(0.7 * swing)) / 2)
        picture = landscape[y : y + height, x : x + width].copy()
        for phase in (0.0, 2.0):
            top = int(height * (1 + np.sin(2.3 * swing + phase)) / 4)
            left = int(width * (1 + np.cos(1.9 * swing + phase)) / 4)
            picture[top : top + height // 2, left : left + width // 2] = patches
        picture += rng.normal(0, 2, picture.shape).astype(np.float32)
        yield draw_number(picture.clip(0, 255).astype(np.uint8), number)


def _texture(rng: np.random.Generator, height: int, width: int) -> NDArray[np.float32]:
    """Noise with ever finer grain at ever less contrast, (height, width, 3)."""
    texture = np.full((height, width, 3), 110, np.float32)
    for grain, contrast in ((64, 50), (16, 20), (4, 8), (1, 3)):
        coarse = rng.normal(0, contrast, (height // grain + 2, width // grain + 2, 3))
        texture += np.kron(coarse, np.ones((grain, grain, 1)))[:height, :width]
    return texture


def write_video(
    path: Path,
    pictures: Iterable[Picture],
    codec: str,
    *,
    gop: int,
    bit_rate: int = 400_000,
    options: dict[str, str] | None = None,
    stamps: Sequence[int] | None = None,
) -> Path:
    """Code pictures.

    Args:
        path: Its suffix chooses the container.
        pictures: All of one size (H, W, 3), with even sides.
        codec: Name of an encoder of FFmpeg's.
        gop: Frames from key frame to key frame.
        bit_rate: Bits a second.
        options: Options of the encoder.
        stamps: When each frame is shown, in 1/100 s; by default 25 frames a second.

    Returns:
        The path.
    """
    unit = Fraction(1, 100) if stamps else Fraction(1, 25)
    with av.open(str(path), "w") as container:
        stream: VideoStream | None = None
        for index, picture in enumerate(pictures):
            if stream is None:
                added: Any = container.add_stream(codec, rate=25, options=dict(options or {}))
                stream = cast(VideoStream, added)
                stream.height, stream.width, _ = picture.shape
                stream.pix_fmt = "yuv420p"
                stream.codec_context.time_base = unit
                stream.codec_context.gop_size = gop
                stream.codec_context.bit_rate = bit_rate
                if codec == "mpeg4":
                    stream.codec_context.max_b_frames = 2
            frame = av.VideoFrame.from_ndarray(picture)
            frame.pts = stamps[index] if stamps else index
            frame.time_base = unit
            container.mux(stream.encode(frame))
        if stream is not None:
            container.mux(stream.encode())
    return path


def trim(source: Path, target: Path, first: int) -> Path:
    """Cut off the first frames of a video without coding it anew, as ``ffmpeg -ss -c copy`` does.

    What lies between the key frame before and the first frame that is shown stays in the file,
    hidden by an edit list.

    Args:
        source: An mp4 file.
        target: An mp4 file to write.
        first: Number of the first frame to show.

    Returns:
        The target's path.
    """
    with av.open(str(source)) as reading, av.open(str(target), "w") as writing:
        stream = reading.streams.video[0]
        packets = [packet for packet in reading.demux(stream) if packet.pts is not None]
        begin = sorted(cast(int, packet.pts) for packet in packets)[first]
        keys = [i for i, p in enumerate(packets) if p.is_keyframe and cast(int, p.pts) <= begin]
        copy = writing.add_stream_from_template(stream)
        for packet in packets[keys[-1] :]:
            packet.pts = cast(int, packet.pts) - begin
            packet.dts = cast(int, packet.dts) - begin
            packet.stream = copy
            writing.mux(packet)
    return target
