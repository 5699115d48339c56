"""What of a file is read with PyAV: colours, shape, and which files are no videos."""

import io
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
import torch
from av.packet import Packet
from PIL import Image

from vidpool.errors import ConfigError, VideoError
from vidpool.video import open_video

WEIGHTS = {"BT.601": (0.299, 0.114), "BT.709": (0.2126, 0.0722), "BT.2020": (0.2627, 0.0593)}
"""Weights of red and blue in luma: BT.601-7, BT.709-6 and BT.2020-2."""
MATRICES = {"BT.601": 6, "BT.709": 1, "BT.2020": 9}
"""Their numbers in H.273."""
COLOURS = [(255, 0, 0), (0, 255, 0), (0, 0, 255), (40, 120, 200), (200, 180, 20), (128, 128, 128)]


def coded(rgb: tuple[int, int, int], matrix: str, full: bool) -> list[int]:
    """Y', Cb, Cr of a colour in 8 bits, from the definitions in the standards."""
    red, blue = WEIGHTS[matrix]
    r, g, b = (value / 255 for value in rgb)
    luma = red * r + (1 - red - blue) * g + blue * b
    chroma = [(b - luma) / (2 - 2 * blue), (r - luma) / (2 - 2 * red)]
    scales = (255, 0, 255) if full else (219, 16, 224)
    return [
        round(scales[0] * luma + scales[1]),
        *(min(round(scales[2] * c + 128), 255) for c in chroma),
    ]


@pytest.mark.parametrize("full", [False, True], ids=["limited range", "full range"])
@pytest.mark.parametrize("matrix", WEIGHTS)
@pytest.mark.parametrize("name", ["a.mp4", "a.mkv"])
def test_colours_are_those_of_the_standards(
    tmp_path: Path, name: str, matrix: str, full: bool
) -> None:
    with av.open(str(tmp_path / name), "w") as container:
        stream = container.add_stream(
            "libx264", rate=10, options={"qp": "0", "preset": "ultrafast"}
        )
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        stream.codec_context.colorspace = MATRICES[matrix]
        stream.codec_context.color_range = 2 if full else 1
        for colour in COLOURS:
            planes = [
                np.full(64 * 48 // (4 if i else 1), value, np.uint8)
                for i, value in enumerate(coded(colour, matrix, full))
            ]
            picture = np.concatenate(planes).reshape(72, 64)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, "yuv420p")))
        container.mux(stream.encode(None))
    with open_video(tmp_path / name) as video:
        found = video.frames(range(len(COLOURS))).permute(0, 2, 3, 1).double().mean((1, 2))
    assert (found - torch.tensor(COLOURS)).abs().max() < 2.5  # 8 bits of chroma, rounded
    assert (found - torch.tensor(COLOURS)).abs().mean() < 1


def jpeg(orientation: int | None = None) -> bytes:
    """A picture, 48 x 36, with EXIF data if it has an orientation."""
    exif = Image.Exif()
    if orientation:
        exif[0x0112] = orientation
    out = io.BytesIO()
    Image.fromarray(np.arange(36 * 48 * 3, dtype=np.uint8).reshape(36, 48, 3)).save(
        out, "JPEG", exif=exif
    )
    return out.getvalue()


def write_pictures(path: Path, pictures: list[bytes], cover: bool = False) -> Path:
    """Put JPEG pictures into a video stream, or one as the cover of what is sound otherwise."""
    with av.open(str(path), "w") as container:
        if cover:
            sound = container.add_stream("aac", rate=16000)
        stream = container.add_stream("mjpeg", rate=10)
        stream.width, stream.height, stream.pix_fmt = 48, 36, "yuvj420p"
        if cover:
            stream.disposition = av.stream.Disposition.attached_pic.value
            silence = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), "fltp", "mono")
            silence.sample_rate = 16000
            container.mux(sound.encode(silence))
            container.mux(sound.encode(None))
        for number, data in enumerate(pictures):
            packet = Packet(data)
            packet.pts = packet.dts = number
            packet.time_base = Fraction(1, 10)
            packet.stream = stream
            packet.is_keyframe = True
            container.mux(packet)
    return path


def test_side_data_that_pyav_has_no_name_for(tmp_path: Path) -> None:
    # EXIF is one of them in PyAV 18; another orders the frames to be turned
    path = write_pictures(tmp_path / "a.mkv", 3 * [jpeg(orientation=6)])
    with open_video(path) as video:
        assert video.frames([0, 2]).shape == (2, 3, 48, 36)


def test_a_cover_is_not_a_video(tmp_path: Path) -> None:
    path = write_pictures(tmp_path / "a.mp4", [jpeg()], cover=True)
    with (
        pytest.raises(VideoError, match=f"{path}: holds no video stream, only an attached picture"),
        open_video(path),
    ):
        pass


@pytest.mark.parametrize("kind", ["png", "jpeg", "bmp", "tiff", "webp"])
def test_a_picture_by_the_name_of_a_video(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "a.mp4"
    Image.new("RGB", (48, 36)).save(path, kind)
    with pytest.raises(VideoError, match=f"{path}: is a picture .*, not a video"), open_video(path):
        pass
    path.rename(tmp_path / f"a.{kind}")
    with open_video(tmp_path / f"a.{kind}") as video:
        assert video.frames([0]).shape == (1, 3, 36, 48)


@pytest.fixture(scope="module")
def oblong(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """PAL's pixels: 16 / 15 of their height."""
    path = tmp_path_factory.mktemp("oblong") / "a.mp4"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=10)
        stream.width, stream.height, stream.pix_fmt = 90, 72, "yuv420p"
        stream.codec_context.sample_aspect_ratio = Fraction(16, 15)
        picture = np.full((72, 90, 3), 128, np.uint8)
        picture[:, 45:] = 0
        container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, "rgb24")))
        container.mux(stream.encode(None))
    return path


def test_square_pixels(oblong: Path, written: Callable[[str], Path]) -> None:
    with open_video(oblong) as video:
        assert video.frames([0]).shape == (1, 3, 72, 90)
        assert video.frames([0], 36).shape == (1, 3, 36, 45)
    with open_video(oblong, square_pixels=True) as video:
        clip = video.frames([0])
        assert clip.shape == (1, 3, 72, 96)
        assert clip[..., 40].float().mean() > 100 > 20 > clip[..., 56].float().mean()
        assert video.frames([0], 36).shape == (1, 3, 36, 48)
    with open_video(written("gop12.mp4"), square_pixels=True) as video:
        assert video.frames([0]).shape == (1, 3, 64, 112)
    with (
        pytest.raises(ConfigError, match="square_pixels is for decoder 'auto' or 'pyav', not"),
        open_video(oblong, "decord", square_pixels=True),
    ):
        pass
