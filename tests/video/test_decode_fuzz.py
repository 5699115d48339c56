"""Damaged files: an error or frames within 10 s each, no hang, no crash, no growth."""

import random
import re
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest
from decoding import SHARED, wild_files
from guarded import guarded

from vidpool.bench.timing import resident_bytes
from vidpool.errors import VideoError
from vidpool.video import open_video

KINDS = [
    *("gop12.mp4", "open_gop.mkv", "variable_rate.mp4", "two_streams.mp4", "hevc.mp4"),
    *("many_keys.avi", "one_key.avi", "h264.avi", "motion_jpeg.avi", "mpeg4.mkv"),
    *("stream.ts", "mpeg2.mpg", "vp9.webm", "av1.mp4", "av1.webm", "h264.flv", "one_frame.mp4"),
]


def mutate(data: bytes, chance: random.Random) -> bytes:
    """Damage a file in one or more ways."""
    out = bytearray(data)

    def somewhere() -> int:
        # headers are short and matter most
        ends = [(0, 4096), (max(len(out) - 4096, 0), len(out)), (0, len(out))]
        low, high = chance.choice(ends)
        return chance.randrange(low, max(min(high, len(out)), low + 1))

    def flip() -> None:
        for _ in range(chance.choice([1, 10, 200])):
            out[somewhere()] = chance.randrange(256)

    def blank() -> None:
        start = somewhere()
        end = min(start + chance.choice([4, 64, 5000]), len(out))
        out[start:end] = bytes([chance.choice([0, 255])]) * (end - start)

    def cut() -> None:
        del out[max(somewhere(), 1) :]

    def drop() -> None:
        start = somewhere()
        del out[start : start + chance.choice([1, 100, 3000])]

    def repeat() -> None:
        start, place = somewhere(), somewhere()
        out[place:place] = out[start : start + chance.choice([1, 188, 3000])]

    def insert() -> None:
        place = somewhere()
        out[place:place] = chance.randbytes(chance.choice([1, 16, 2000]))

    for _ in range(chance.choice([1, 1, 2, 4])):
        if len(out) > 1:
            chance.choice([flip, blank, cut, drop, repeat, insert])()
    return bytes(out)


def read(path: Path) -> str:
    """Read some frames; return what came of it, or raise what should not come."""
    try:
        with open_video(path) as video:
            length = len(video)
            indices = [0, length // 2, length - 1]
            clip = video.frames(indices, 32)
            assert video.fps > 0
            span = video.span(0, 1)
    except VideoError as error:
        return "error" if str(error).startswith(f"{path}: ") else f"no path in {error}"
    assert clip.shape[:2] == (3, 3)
    assert min(clip.shape[2:]) == 32
    assert 0 <= span.start < span.stop <= length
    return "frames"


def read_mutation(job: tuple[Path, int, Path]) -> tuple[str, int]:
    """Damage a file and read it; return what came of it, and bytes that the process holds."""
    source, seed, folder = job
    path = folder / f"{seed % 7}{source.suffix}"
    path.write_bytes(mutate(source.read_bytes(), random.Random(seed)))
    return read(path), resident_bytes()


def fuzz(sources: list[Path], count: int, folder: Path) -> Counter[str]:
    """Read mutations; return how many could be read, and how many were refused."""
    jobs = [(sources[seed % len(sources)], seed, folder) for seed in range(count)]
    outcomes = list(guarded(read_mutation, jobs))
    for job, (outcome, _) in zip(jobs, outcomes, strict=True):
        assert outcome in ("error", "frames"), (job, outcome)
    warm = outcomes[len(outcomes) // 4][1]
    assert outcomes[-1][1] - warm < 100 * 2**20
    counts = Counter(outcome for outcome, _ in outcomes)
    assert counts.keys() == {"error", "frames"}
    return counts


def test_damaged_files(written: Callable[[str], Path], tmp_path: Path) -> None:
    fuzz([written(name) for name in KINDS], 3 * len(KINDS), tmp_path)


@pytest.mark.slow
def test_many_damaged_files(written: Callable[[str], Path], tmp_path: Path) -> None:
    real = [path for path in sorted(SHARED.glob("*.*")) if path.suffix != ".md"]
    fuzz([written(name) for name in KINDS] + real, 500, tmp_path)


@pytest.mark.slow
def test_damaged_wild_files(tmp_path: Path) -> None:
    sources = [path for path in wild_files() if 0 < path.stat().st_size < 2**20]
    print(fuzz(sources, 500, tmp_path))


@pytest.mark.parametrize(
    "error",
    [ValueError("29 is not a valid Type"), IndexError("tuple index"), AssertionError(), OSError(5)],
)
@pytest.mark.parametrize(
    ("module", "name"),
    [
        ("pyav_video", "Source"),
        ("pyav_video", "read_table"),
        ("pyav_video", "display_matrix"),
        ("pyav_access", "TabledFrames.read"),
    ],
)
def test_whatever_a_decoder_raises_is_a_video_error(
    written: Callable[[str], Path],
    monkeypatch: pytest.MonkeyPatch,
    module: str,
    name: str,
    error: Exception,
) -> None:
    def fails(*_: object) -> None:
        raise error

    path = written("gop12.mp4")
    monkeypatch.setattr(f"vidpool.video.{module}.{name}", fails)
    told = re.escape(f"{path}: cannot be decoded ({type(error).__name__}: {error})")
    with pytest.raises(VideoError, match=told), open_video(path) as video:
        video.frames([0])
    with pytest.raises(VideoError, match=told), open_video(path) as video:
        list(video.stream())
