"""Odd videos from other projects' test suites, beside a plain decode of each from its start.

`pytest -m slow -s -k wild_video` prints a table of all of them.
"""

import random
from collections import Counter
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from typing import cast

import av
import numpy as np
import pytest
from decoding import wild_files
from guarded import guarded

from vidpool.errors import VideoError
from vidpool.video import open_video
from vidpool.video.base import scaled_size
from vidpool.video.pyav_video import PyAVVideo, display_matrix, upright

USUAL_PIXELS = 5 * 10**6
"""How many a file may have in all frames to be read in the usual tests."""
SHORT_SIDE = 64


@dataclass
class Outcome:
    """What came of reading a file.

    Attributes:
        name: The file.
        refused: Why the file is none that can be read.
        compared: How many frames were read and compared with the plain decode.
        wrong: Those of them that differ.
        damaged: Those that were refused.
        resized: Whether the frame size changes in mid-stream.
    """

    name: str
    refused: str = ""
    compared: int = 0
    wrong: list[int] = field(default_factory=list)
    damaged: list[int] = field(default_factory=list)
    resized: bool = False

    @property
    def kind(self) -> str:
        """One of a few words for it."""
        if self.refused:
            return "refused"
        if not self.compared:
            return "every frame refused"
        if self.wrong:
            return "wrong"
        return "agrees, its frame size changes" if self.resized else "agrees"


def plain_decode(path: Path, stamps: list[int] | None, wanted: set[int], outcome: Outcome) -> dict:
    """Decode a file from its start, leaving nothing out; keep some frames by their number."""
    numbers = {stamp: number for number, stamp in enumerate(stamps or [])}
    kept = {}
    sizes = set()
    with av.open(str(path.absolute()), metadata_errors="replace") as container:
        stream = container.streams.best("video")
        stream.codec_context.thread_count = 1
        height, width = scaled_size(stream.height, stream.width, SHORT_SIDE)
        count = 0
        try:
            packets = (packet for packet in container.demux(stream) if packet.size)
            for packet in chain(packets, [None]):
                try:
                    frames = stream.codec_context.decode(packet)
                except av.FFmpegError:
                    continue
                for frame in frames:
                    sizes.add((frame.height, frame.width))
                    number = numbers.get(frame.pts) if stamps else count
                    count += 1
                    if number in wanted:
                        picture = frame.reformat(width, height, "rgb24").to_ndarray()
                        matrix = display_matrix(frame)
                        kept[number] = upright(picture, matrix) if matrix else picture
        except (av.FFmpegError, IndexError):  # the file breaks off
            pass
    outcome.resized = len(sizes) > 1
    return kept


def compare(job: tuple[Path, int, int, float]) -> Outcome | None:
    """Read some frames each alone, and compare; ``None`` for a file that is too large for this."""
    path, count, orders, most_pixels = job
    outcome = Outcome(f"{path.parent.name}/{path.name}")
    chance = random.Random(path.name)
    try:
        with open_video(path, "pyav") as opened:
            video = cast(PyAVVideo, opened)
            height, width = video._source.picture_size
            packets = sum(1 for _ in video._source.packets())
            if height * width * packets > most_pixels:
                return None
            stamps = video.stamps
            wanted = chance.sample(range(len(video)), min(count, len(video)))
    except VideoError as error:
        outcome.refused = str(error).removeprefix(f"{path}: ")
        return outcome
    plain = plain_decode(path, stamps.stamps if stamps else None, set(wanted), outcome)
    for order in (wanted, sorted(wanted), sorted(wanted, reverse=True))[:orders]:
        with open_video(path) as video:
            for number in order:
                try:
                    frame = video.frames([number], SHORT_SIDE)[0].permute(1, 2, 0).numpy()
                except VideoError:
                    outcome.damaged.append(number)
                    continue
                outcome.compared += 1
                if number not in plain or not np.array_equal(frame, plain[number]):
                    outcome.wrong.append(number)
    return outcome


def table(outcomes: list[Outcome]) -> str:
    """Counts, and a row for each file that was not read as a whole or was not right."""
    counts = Counter(outcome.kind for outcome in outcomes)
    compared = sum(outcome.compared for outcome in outcomes)
    lines = [f"{len(outcomes)} files, {compared} frames compared"]
    lines += [f"{kind}: {counts[kind]}" for kind in sorted({*counts, "wrong"})]
    for outcome in outcomes:
        if outcome.refused:
            lines.append(f"  {outcome.name}: {outcome.refused}")
        elif outcome.damaged or outcome.wrong or outcome.resized:
            damaged = len(outcome.damaged)
            lines.append(
                f"  {outcome.name}: {outcome.kind}; of {damaged + outcome.compared} frames, "
                f"{damaged} refused, wrong: {sorted(set(outcome.wrong))}"
            )
    return "\n".join(lines)


def compare_all(count: int, orders: int, most_pixels: float) -> list[Outcome]:
    jobs = [(path, count, orders, most_pixels) for path in wild_files()]
    outcomes = [outcome for outcome in guarded(compare, jobs) if outcome]
    assert [(outcome.name, outcome.wrong) for outcome in outcomes if outcome.wrong] == []
    assert any(outcome.compared for outcome in outcomes)
    return outcomes


def test_small_wild_videos_equal_a_plain_decode() -> None:
    compare_all(5, 1, USUAL_PIXELS)


@pytest.mark.slow
def test_all_wild_videos_equal_a_plain_decode() -> None:
    print("\n" + table(compare_all(20, 3, float("inf"))))
