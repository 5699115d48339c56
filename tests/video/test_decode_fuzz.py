"""Damaged files: an error or frames within 10 s each, no hang, no crash, no growth."""

import multiprocessing
import queue
import random
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from decoding import SHARED

from vidpool.bench.machine import resident_bytes
from vidpool.errors import VideoError
from vidpool.video import open_video

LIMIT = 10  # seconds for a file
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


def read_all(sources: list[Path], seeds: range, folder: Path, results: multiprocessing.Queue):
    for seed in seeds:
        chance = random.Random(seed)
        source = sources[seed % len(sources)]
        path = folder / f"{seed % 7}{source.suffix}"
        path.write_bytes(mutate(source.read_bytes(), chance))
        started = time.monotonic()
        try:
            outcome = read(path)
        except BaseException as error:
            outcome = f"{source.name}, seed {seed}: {type(error).__name__}: {error}"
        results.put((seed, time.monotonic() - started, outcome, resident_bytes()))


def fuzz(sources: list[Path], count: int, folder: Path) -> None:
    """Read mutations in a process of its own, which may hang or crash."""
    context = multiprocessing.get_context("spawn")
    results = context.Queue()
    child = context.Process(target=read_all, args=(sources, range(count), folder, results))
    child.start()
    outcomes = []
    try:
        for seed in range(count):
            # the first one has imports to wait for
            _, seconds, outcome, held = results.get(timeout=LIMIT + (60 if seed == 0 else 5))
            assert outcome in ("error", "frames"), outcome
            assert seconds < LIMIT, (seed, seconds)
            outcomes.append((outcome, held))
    except queue.Empty:
        pytest.fail(f"seed {len(outcomes)}: a hang, or a crash (exit code {child.exitcode})")
    finally:
        child.kill()
        child.join()
    assert {outcome for outcome, _ in outcomes} == {"error", "frames"}
    warm = outcomes[len(outcomes) // 4][1]
    assert outcomes[-1][1] - warm < 100 * 2**20


def test_damaged_files(written: Callable[[str], Path], tmp_path: Path) -> None:
    fuzz([written(name) for name in KINDS], 3 * len(KINDS), tmp_path)


@pytest.mark.slow
def test_many_damaged_files(written: Callable[[str], Path], tmp_path: Path) -> None:
    real = [path for path in sorted(SHARED.rglob("*.*")) if path.suffix != ".md"]
    fuzz([written(name) for name in KINDS] + [p for p in real if p.stat().st_size], 500, tmp_path)
