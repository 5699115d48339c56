"""What `vidpool bench decode` measures: frames that are wrong, and CPU time of a random clip."""

from __future__ import annotations

import os
import random
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from vidpool.bench.numbered_video import numbers, scenes, trim, write_video
from vidpool.bench.timing import Times, cpu_seconds, interleave
from vidpool.video import open_video

FRAMES, STRIDE, SHORT_SIDE = 16, 4, 128
ROUNDS = 30
CHECKED = 12  # clips whose frames are looked at
DECORD = "decord"

Read = Callable[[float], tuple[list[int], Tensor]]
"""Reads the clip at a place, see :func:`clip_at`; returns its frame numbers and (T, 3, H, W)."""

_MPEG4 = partial(write_video, codec="mpeg4")
_H264 = partial(write_video, codec="libx264")
_WITHOUT_SCENE_CUTS = {"sc_threshold": "1000000000"}
_X265 = {"preset": "fast", "x265-params": "log-level=none"}
_VP9 = {"deadline": "good", "cpu-used": "5", "auto-alt-ref": "1", "lag-in-frames": "16"}
# frames of 40 ms, but for some of 80 ms
_UNEVEN = [4 * (index + index // 5) for index in range(4096)]

KINDS: dict[str, tuple[tuple[int, int, int], Callable[..., Path]]] = {
    # UCF-101's clips: 7 s, one key frame
    "one_key.avi": ((176, 320, 240), partial(_MPEG4, gop=1000, options=_WITHOUT_SCENE_CUTS)),
    "many_keys.avi": ((176, 320, 240), partial(_MPEG4, gop=12)),
    # Kinetics' clips: 10 s, short side 256
    "gop12.mp4": ((250, 340, 256), partial(_H264, gop=12)),
    "gop250.mp4": ((250, 340, 256), partial(_H264, gop=250)),
    "variable_rate.mp4": ((250, 340, 256), partial(_H264, gop=250, stamps=_UNEVEN)),
    "trimmed.mp4": ((300, 340, 256), partial(_H264, gop=250)),
    "hevc.mp4": ((250, 340, 256), partial(write_video, codec="libx265", gop=48, options=_X265)),
    "vp9.webm": ((250, 340, 256), partial(write_video, codec="libvpx-vp9", gop=48, options=_VP9)),
    "av1.mp4": (
        (250, 340, 256),
        partial(write_video, codec="libsvtav1", gop=48, options={"preset": "10"}),
    ),
    "stream.ts": ((250, 340, 256), partial(_H264, gop=48)),
}
"""Frames, width and height of each generated file, and what writes it."""

TRIMMED = 50
"""Frames that are cut off the trimmed file; it lies in the middle of a group of pictures."""


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep what encoders and others' decoders write to standard error from the terminal."""
    sys.stderr.flush()
    kept = os.dup(2)
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 2)
    try:
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(nowhere)


@_quiet()
def generate(kind: str, folder: Path) -> Path:
    """Write the numbered video of a kind into a folder, where it is not there yet.

    Args:
        kind: A key of :data:`KINDS`.
        folder: Is made if need be.
    """
    path = folder / kind
    if path.exists():
        return path
    folder.mkdir(parents=True, exist_ok=True)
    unfinished = folder / f"unfinished_{kind}"
    (count, width, height), write = KINDS[kind]
    write(unfinished, scenes(count, width, height))
    if kind.startswith("trimmed"):
        whole = unfinished.rename(folder / f"whole_{kind}")
        trim(whole, unfinished, TRIMMED)
        whole.unlink()
    return unfinished.rename(path)


@dataclass
class Result:
    """What one file took.

    Attributes:
        name: The file's.
        times: CPU seconds of a clip by decoder, opening included.
        missing: Why the other decoders could not read it.
        wrong: Wrong frames of the clips, as a share, by decoder; of numbered files alone.
        fast_psnr: How far fast decoding is from exact, in dB; None where both are the same.
    """

    name: str
    times: dict[str, Times]
    missing: dict[str, str] = field(default_factory=dict)
    wrong: dict[str, float] = field(default_factory=dict)
    fast_psnr: float | None = None

    def ratio(self, of: str, to: str = DECORD) -> float | None:
        """The ratio of two medians, or None where one of them is missing."""
        if not (of in self.times and to in self.times and self.times[to].median):
            return None
        return self.times[of].median / self.times[to].median

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "file": self.name,
            "cpu_seconds": {decoder: times.as_dict() for decoder, times in self.times.items()},
            "ratio_to_decord": {decoder: self.ratio(decoder) for decoder in self.times},
            "missing": self.missing,
            "wrong_frames": self.wrong or None,
            "fast_psnr_db": self.fast_psnr,
        }


@_quiet()
def measure(path: Path, rounds: int = ROUNDS) -> Result:
    """Measure one file: a clip of 16 frames, stride 4, at a random place, scaled to short side 128.

    Each round, all decoders open the file and read a clip at the same place in one thread, in
    random order. Each goes by the length that it finds itself, as in training.

    Args:
        path: A video. Those that :func:`generate` wrote are looked at for wrong frames.
        rounds: How many clips.

    Raises:
        VideoError: The file cannot be read.
    """
    with open_video(path) as video:
        first = video.frames([0], SHORT_SIDE)
    size = (first.shape[2], first.shape[3])
    readers: dict[str, Read] = {
        "auto": partial(_read, path),
        "auto fast": partial(_read, path, fast=True),
        "torchcodec": partial(_read_torchcodec, path, size),
        DECORD: partial(_read_decord, path, size),
    }
    missing = {}
    for decoder in list(readers):
        try:
            readers[decoder](0.5)
        except Exception as error:  # decord's are bare Exceptions
            if decoder.startswith("auto"):
                raise
            missing[decoder] = _first_line(error)
            del readers[decoder]
    chance = random.Random(0)
    places = [chance.random() for _ in range(rounds)]
    calls = {decoder: _Successive(read, places) for decoder, read in readers.items()}
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        times = interleave(calls, partial(cpu_seconds, clock=time.process_time), rounds)
    finally:
        torch.set_num_threads(threads)
    for decoder, call in calls.items():
        if call.failures == rounds:
            missing[decoder] = call.why
            del times[decoder]
    result = Result(path.name, times, missing)
    places = places[:CHECKED]
    if path.name in KINDS:
        offset = TRIMMED if path.name.startswith("trimmed") else 0
        result.wrong = {decoder: _wrong(read, places, offset) for decoder, read in readers.items()}
    result.fast_psnr = _psnr(readers["auto"], readers["auto fast"], places)
    return result


def memory_growth(paths: list[Path], clips: int) -> Iterator[tuple[int, int]]:
    """Read random clips of some files, in turn, and watch what the process holds.

    Args:
        paths: The files.
        clips: How many clips.

    Yields:
        After each clip, how many were read, and the bytes of memory that the process holds.
    """
    chance = random.Random(0)
    for done in range(clips):
        with open_video(paths[done % len(paths)]) as video:
            video.frames(clip_at(chance.random(), len(video)), SHORT_SIDE)
        yield done + 1, resident_bytes()


def resident_bytes() -> int:
    """Bytes of memory that this process holds; 0 where only Linux would tell."""
    try:
        pages = int(Path("/proc/self/statm").read_text().split()[1])
    except OSError:
        return 0
    return pages * 4096


class _Successive:
    """A call that reads at the next place each time. Failures are counted, not raised."""

    def __init__(self, read: Read, places: list[float]) -> None:
        self._read = read
        self._places = iter(places)
        self.failures = 0
        self.why = ""

    def __call__(self) -> object:
        try:
            return self._read(next(self._places))
        except Exception as error:  # decord's are bare Exceptions
            self.failures += 1
            self.why = _first_line(error)
            return None


def _first_line(error: Exception) -> str:
    return (str(error) or type(error).__name__).strip().splitlines()[0]


def clip_at(place: float, length: int) -> list[int]:
    """The numbers of the frames of a clip.

    Args:
        place: Where it begins, in [0, 1): 0 is the start, 1 the last place where it fits.
        length: Of the video, in frames; the last frame is repeated where that is too short.
    """
    start = int(place * (max(length - (FRAMES - 1) * STRIDE, 1)))
    return [min(start + STRIDE * i, length - 1) for i in range(FRAMES)]


def _read(path: Path, place: float, fast: bool = False) -> tuple[list[int], Tensor]:
    with open_video(path, fast=fast) as video:
        clip = clip_at(place, len(video))
        return clip, video.frames(clip, SHORT_SIDE)


def _read_torchcodec(path: Path, size: tuple[int, int], place: float) -> tuple[list[int], Tensor]:
    """Read as torchcodec does it fastest: it scales while it decodes."""
    from torchcodec.decoders import VideoDecoder
    from torchcodec.transforms import Resize

    decoder = VideoDecoder(str(path), transforms=[Resize(size)])
    clip = clip_at(place, len(decoder))
    return clip, decoder.get_frames_at(clip).data.contiguous()


def _read_decord(path: Path, size: tuple[int, int], place: float) -> tuple[list[int], Tensor]:
    """Read as decord does it fastest: it scales while it decodes."""
    import decord

    height, width = size
    reader = decord.VideoReader(
        str(path), ctx=decord.cpu(0), num_threads=1, width=width, height=height
    )
    clip = clip_at(place, len(reader))
    frames = torch.from_numpy(reader.get_batch(clip).asnumpy())
    return clip, frames.permute(0, 3, 1, 2).contiguous()


def _wrong(read: Read, places: list[float], offset: int) -> float:
    """The share of frames that are not those asked for; all of a clip that cannot be read."""
    wrong = 0
    for place in places:
        try:
            clip, frames = read(place)
            got = numbers(frames)
        except Exception:
            wrong += FRAMES
            continue
        wrong += sum(number != index + offset for number, index in zip(got, clip, strict=True))
    return wrong / (len(places) * FRAMES)


def _psnr(exact: Read, fast: Read, places: list[float]) -> float | None:
    pairs = [(exact(place)[1].float(), fast(place)[1].float()) for place in places]
    error = float(np.mean([float((a - b).square().mean()) for a, b in pairs]))
    return 10 * float(np.log10(255**2 / error)) if error else None
