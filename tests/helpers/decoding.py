"""What the tests of decoders share."""

import random
from pathlib import Path

import numpy as np
import pytest
from numbered_video import numbers

from vidpool.video import Video

SHARED = Path(__file__).parents[2].parent / "shared" / "videos"


def need(decoder: str) -> None:
    """Skip where a decoder's package is not installed, or cannot load FFmpeg."""
    if decoder in ("decord", "torchcodec"):
        module = pytest.importorskip(decoder)
        if decoder == "torchcodec" and module.ffmpeg_major_version is None:
            pytest.skip("torchcodec finds no FFmpeg libraries")


def shared_file(name: str) -> Path:
    path = SHARED / name
    if not path.exists():
        pytest.skip(f"{path} is not here")
    return path


def wild_files() -> list[Path]:
    """The files of other projects' test suites; the test is skipped where they are not."""
    folder = shared_file("wild")
    return sorted(path for path in folder.glob("*/*") if path.is_file())


def wrong_frames(video: Video, first: int = 0, clip: int = 8) -> list[tuple[int, int]]:
    """Ask for every frame, in random order and in clips; return (asked, got) where they differ."""
    asked = random.Random(0).sample(range(len(video)), len(video))
    clips = [asked[start : start + clip] for start in range(0, len(asked), clip)]
    got = [number - first for clip in clips for number in numbers(video.frames(clip))]
    return [pair for pair in zip(asked, got, strict=True) if pair[0] != pair[1]]


def with_display_matrix(source: Path, target: Path, a: int, b: int, c: int, d: int) -> Path:
    """Copy an mp4 file, writing (x, y) -> (a x + c y, b x + d y) into its track header."""
    data = bytearray(source.read_bytes())
    start = data.index(b"tkhd") + 44
    matrix = np.array([a, b, 0, c, d, 0, 0, 0, 1], ">i4")
    matrix[:8] <<= 16
    matrix[8] <<= 30
    data[start : start + 36] = matrix.tobytes()
    target.write_bytes(data)
    return target
