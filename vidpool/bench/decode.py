"""The measurement of `vidpool bench decode`: wrong frames, and the CPU time of a random clip."""

from __future__ import annotations

import os
import random
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from matplotlib.figure import Figure
from torch import Tensor

from vidpool.bench.chart import mark_baseline
from vidpool.bench.numbered_video import numbers, scenes, trim, write_video
from vidpool.bench.timing import (
    Times,
    cpu_seconds,
    first_line,
    interleave,
    median_ratio,
    resident_bytes,
)
from vidpool.figures import AMBER, BLUE, ORANGE
from vidpool.video import open_video

FRAMES, STRIDE, SHORT_SIDE = 16, 4, 128
ROUNDS = 30
CHECKED = 12  # clips whose frames are compared with their numbers
DECORD = "decord"
COLOURS = {"auto": ORANGE, "auto fast": AMBER, "torchcodec": BLUE}
LONGEST = 2  # longer bars are cut off; their number stands at their end
WRONG = 0.005  # share of wrong frames above which a bar is hatched

ReadClip = Callable[[float], tuple[list[int], Tensor]]
"""Reads the clip at a position, see :func:`clip_at`; returns frame numbers and (T, 3, H, W)."""

_MPEG4 = partial(write_video, codec="mpeg4")
_H264 = partial(write_video, codec="libx264")
_WITHOUT_SCENE_CUTS = {"sc_threshold": "1000000000"}
_X265 = {"preset": "fast", "x265-params": "log-level=none"}
_VP9 = {"deadline": "good", "cpu-used": "5", "auto-alt-ref": "1", "lag-in-frames": "16"}
# every fifth frame lasts 80 ms, the others 40 ms
_UNEVEN = [4 * (index + index // 5) for index in range(4096)]

VIDEO_KINDS: dict[str, tuple[tuple[int, int, int], Callable[..., Path]]] = {
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
"""Frames, width and height of each generated file, and the function that writes it."""

TRIMMED = 50
"""Frames cut off the trimmed file: the cut lies within a group of pictures."""


@contextmanager
def _quiet() -> Iterator[None]:
    """Discard what encoders and third-party decoders write to standard error."""
    sys.stderr.flush()
    stderr = os.dup(2)
    devnull = os.open(os.devnull, os.O_WRONLY)
    os.dup2(devnull, 2)
    try:
        yield
    finally:
        os.dup2(stderr, 2)
        os.close(stderr)
        os.close(devnull)


@_quiet()
def generate(kind: str, folder: Path) -> Path:
    """Write the numbered video of a kind into a folder, unless it exists, and return its path.

    Args:
        kind: Key of :data:`VIDEO_KINDS`.
        folder: Folder, created if it does not exist.
    """
    path = folder / kind
    if path.exists():
        return path
    folder.mkdir(parents=True, exist_ok=True)
    unfinished = folder / f"unfinished_{kind}"
    (count, width, height), write = VIDEO_KINDS[kind]
    write(unfinished, scenes(count, width, height))
    if kind.startswith("trimmed"):
        whole = unfinished.rename(folder / f"whole_{kind}")
        trim(whole, unfinished, TRIMMED)
        whole.unlink()
    return unfinished.rename(path)


@dataclass
class DecodeResult:
    """Times and wrong frames of one file.

    Attributes:
        name: Name of the file.
        times: CPU seconds per clip by decoder, opening included.
        missing: Reasons why the other decoders could not read the file.
        wrong: Share of wrong frames by decoder; only for numbered videos.
        fast_psnr: PSNR of fast decoding relative to exact decoding in dB; None if both are equal.
    """

    name: str
    times: dict[str, Times]
    missing: dict[str, str] = field(default_factory=dict)
    wrong: dict[str, float] = field(default_factory=dict)
    fast_psnr: float | None = None

    def ratio(self, decoder: str, baseline: str = DECORD) -> float | None:
        """Return the ratio of two medians, or None if one of them is missing."""
        return median_ratio(self.times, decoder, baseline)

    def as_dict(self) -> dict[str, Any]:
        """Return the result as JSON values."""
        return {
            "file": self.name,
            "cpu_seconds": {decoder: times.as_dict() for decoder, times in self.times.items()},
            "ratio_to_decord": {decoder: self.ratio(decoder) for decoder in self.times},
            "missing": self.missing,
            "wrong_frames": self.wrong or None,
            "fast_psnr_db": self.fast_psnr,
        }


@_quiet()
def measure_decoding(path: Path, rounds: int = ROUNDS) -> DecodeResult:
    """Measure one file: clips of 16 frames, stride 4, at random positions, short side 128.

    In each round, all decoders open the file and read a clip at the same position in one thread,
    in random order. Each decoder uses the number of frames that it reports, as in training.

    Args:
        path: Video file. The frames of videos that :func:`generate` wrote are checked.
        rounds: Number of clips.

    Raises:
        VideoError: The file cannot be read.
    """
    with open_video(path) as video:
        first = video.frames([0], SHORT_SIDE)
    size = (first.shape[2], first.shape[3])
    readers: dict[str, ReadClip] = {
        "auto": partial(_read, path),
        "auto fast": partial(_read, path, fast=True),
        "torchcodec": partial(_read_torchcodec, path, size),
        DECORD: partial(_read_decord, path, size),
    }
    missing = {}
    for decoder in list(readers):
        try:
            readers[decoder](0.5)
        except Exception as error:  # decord raises bare Exceptions
            if decoder.startswith("auto"):
                raise
            missing[decoder] = first_line(error)
            del readers[decoder]
    draw = random.Random(0)
    positions = [draw.random() for _ in range(rounds)]
    calls = {decoder: _SuccessiveReads(read, positions) for decoder, read in readers.items()}
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        times = interleave(calls, partial(cpu_seconds, clock=time.process_time), rounds)
    finally:
        torch.set_num_threads(threads)
    for decoder, call in calls.items():
        if call.failures == rounds:
            missing[decoder] = call.reason
            del times[decoder]
    result = DecodeResult(path.name, times, missing)
    positions = positions[:CHECKED]
    if path.name in VIDEO_KINDS:
        offset = TRIMMED if path.name.startswith("trimmed") else 0
        result.wrong = {
            decoder: _wrong_share(read, positions, offset) for decoder, read in readers.items()
        }
    result.fast_psnr = _psnr(readers["auto"], readers["auto fast"], positions)
    return result


def memory_growth(paths: list[Path], clips: int) -> Iterator[tuple[int, int]]:
    """Read random clips of some files in turn, and report the memory of the process.

    Args:
        paths: Video files.
        clips: Number of clips.

    Yields:
        After each clip, the number of clips read and the resident memory in bytes.
    """
    draw = random.Random(0)
    for done in range(clips):
        with open_video(paths[done % len(paths)]) as video:
            video.frames(clip_at(draw.random(), len(video)), SHORT_SIDE)
        yield done + 1, resident_bytes()


class _SuccessiveReads:
    """A call that reads at the next position each time, and counts failures instead of raising."""

    def __init__(self, read: ReadClip, positions: list[float]) -> None:
        self._read = read
        self._positions = iter(positions)
        self.failures = 0
        self.reason = ""

    def __call__(self) -> object:
        try:
            return self._read(next(self._positions))
        except Exception as error:  # decord raises bare Exceptions
            self.failures += 1
            self.reason = first_line(error)
            return None


def clip_at(position: float, length: int) -> list[int]:
    """Return the frame numbers of a clip.

    Args:
        position: Start of the clip in [0, 1): 0 is the start of the video, 1 the last start of a
            clip that fits.
        length: Length of the video in frames; the last frame is repeated if it is too short.
    """
    start = int(position * (max(length - (FRAMES - 1) * STRIDE, 1)))
    return [min(start + STRIDE * i, length - 1) for i in range(FRAMES)]


def _read(path: Path, position: float, fast: bool = False) -> tuple[list[int], Tensor]:
    with open_video(path, fast=fast) as video:
        clip = clip_at(position, len(video))
        return clip, video.frames(clip, SHORT_SIDE)


def _read_torchcodec(
    path: Path, size: tuple[int, int], position: float
) -> tuple[list[int], Tensor]:
    """Read in torchcodec's fastest way, which scales while it decodes."""
    from torchcodec.decoders import VideoDecoder
    from torchcodec.transforms import Resize

    decoder = VideoDecoder(str(path), transforms=[Resize(size)])
    clip = clip_at(position, len(decoder))
    return clip, decoder.get_frames_at(clip).data.contiguous()


def _read_decord(path: Path, size: tuple[int, int], position: float) -> tuple[list[int], Tensor]:
    """Read in decord's fastest way, which scales while it decodes."""
    import decord

    height, width = size
    reader = decord.VideoReader(
        str(path), ctx=decord.cpu(0), num_threads=1, width=width, height=height
    )
    clip = clip_at(position, len(reader))
    frames = torch.from_numpy(reader.get_batch(clip).asnumpy())
    return clip, frames.permute(0, 3, 1, 2).contiguous()


def _wrong_share(read: ReadClip, positions: list[float], offset: int) -> float:
    """Return the share of wrong frames; all frames of a clip that cannot be read are wrong."""
    wrong = 0
    for position in positions:
        try:
            clip, frames = read(position)
            got = numbers(frames)
        except Exception:
            wrong += FRAMES
            continue
        wrong += sum(number != index + offset for number, index in zip(got, clip, strict=True))
    return wrong / (len(positions) * FRAMES)


def _psnr(exact: ReadClip, fast: ReadClip, positions: list[float]) -> float | None:
    pairs = [(exact(at)[1].float(), fast(at)[1].float()) for at in positions]
    error = float(np.mean([float((a - b).square().mean()) for a, b in pairs]))
    return 10 * float(np.log10(255**2 / error)) if error else None


def decode_chart(results: Sequence[DecodeResult], machine: dict[str, Any]) -> Figure:
    """Draw the CPU time of a clip relative to decord's, by file; wrong frames hatch a bar.

    Args:
        results: Results, at least one.
        machine: Description by :func:`vidpool.bench.timing.describe_machine`.
    """
    figure = Figure(figsize=(9, 1.6 + 0.6 * len(results)), layout="constrained")
    axes = figure.subplots()
    height = 0.8 / len(COLOURS)
    for number, (decoder, colour) in enumerate(COLOURS.items()):
        positions = [group + (number - 1) * height for group in range(len(results))]
        ratios = [result.ratio(decoder) or 0 for result in results]
        lengths = [min(ratio, LONGEST) for ratio in ratios]
        bars = axes.barh(positions, lengths, 0.92 * height, color=colour, label=decoder)
        texts = []
        for bar, ratio, result in zip(bars, ratios, results, strict=True):
            wrong = result.wrong.get(decoder, 0)
            if wrong > WRONG:
                bar.set_hatch("////")
                bar.set_edgecolor("white")
            texts.append(
                f"{ratio:.2f}" + (f", {wrong:.0%} wrong" if wrong > WRONG else "")
                if ratio
                else "none"
            )
        axes.bar_label(bars, texts, padding=3, fontsize=7)
    labels = [f"{result.name}\n{DECORD}: {_decord_text(result)}" for result in results]
    axes.set_yticks(range(len(results)), labels, fontsize=8)
    axes.set_ylim(len(results) - 0.5, -0.5)  # the first file on top
    axes.set(
        title=f"CPU time of a random clip over decord's\n{machine['device_name']}, one thread",
        xlabel="times as long as decord",
    )
    axes.set_xlim(0, 1.2 * LONGEST)
    mark_baseline(axes)
    axes.legend(loc="lower right", fontsize=8)
    return figure


def _decord_text(result: DecodeResult) -> str:
    if DECORD in result.missing:
        return "cannot read it"
    if DECORD not in result.wrong:
        return "frames not checked"
    return f"{result.wrong[DECORD]:.0%} wrong"
