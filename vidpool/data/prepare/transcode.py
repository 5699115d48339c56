"""Transcoding of a tree of videos to small videos that are fast to read.

Prepared videos are h264 in MP4, without the loop filter. By default every frame is a key frame, so
that the frames between those of a clip are never decoded (Motion JPEG, which has that too, took
three to eight times as long to read). With fewer key frames, files are smaller; most frames are
then B-frames that no other frame refers to, which can be left out as well.
"""

import csv
import json
import math
import os
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from fractions import Fraction
from functools import partial
from itertools import pairwise
from pathlib import Path, PurePosixPath
from uuid import uuid4

import av
from rich.progress import MofNCompleteColumn, Progress
from torch import Tensor

from vidpool.data.datasets.layouts import prepared_name, walk_videos
from vidpool.data.parallel import bar_options, in_processes, usable_cpus
from vidpool.errors import ConfigError, DataError, VideoError
from vidpool.files import UNFINISHED, atomic_write, make_folder, open_text
from vidpool.video import VIDEO_SUFFIXES, open_video
from vidpool.video.pyav_video import PyAVVideo

ENCODER = {
    "preset": "veryfast",
    "tune": "fastdecode",
    "crf": "20",
    "bf": "3",
    "x264-params": "b-pyramid=none",
}
MARKER = "prepare.json"
CUT_SHORT = "cut short"


@dataclass(frozen=True)
class PrepareSettings:
    """Settings of prepared videos, stored with them as ``prepare.json``.

    Attributes:
        short_side: Pixels of the shorter side; smaller videos keep their size.
        fps: Frames per second; ``None`` keeps all frames and their time stamps.
        gop: Frames from one key frame to the next.

    Raises:
        ConfigError: A value cannot work.
    """

    short_side: int = 256
    fps: float | None = None
    gop: int = 1
    version: int = 2  # raise it when the encoding changes

    def __post_init__(self) -> None:
        if self.short_side < 2:
            raise ConfigError(f"the short side must be at least 2 pixels, got {self.short_side}")
        if self.fps is not None and not 0 < self.fps <= 1000:
            raise ConfigError(f"fps must lie within (0, 1000], got {self.fps}")
        if not 1 <= self.gop <= 1000:
            raise ConfigError(f"gop must lie within [1, 1000], got {self.gop}")


@dataclass
class PrepareReport:
    """Results of a run.

    Attributes:
        made: Videos prepared by this run.
        kept: Videos that were prepared already.
        failures: Path below the source folder, and the reason, of those that could not be.
        cut_short: Path, and how many frames are there, of those of which only the beginning is:
            this has been prepared, by this run or an earlier one.
        log: The CSV file that lists both; ``None`` where there are none.
    """

    made: int = 0
    kept: int = 0
    failures: list[tuple[str, str]] = field(default_factory=list)
    cut_short: list[tuple[str, str]] = field(default_factory=list)
    log: Path | None = None


@dataclass(frozen=True)
class Prepared:
    """Result of preparing a video.

    Attributes:
        written: Frames of the prepared video.
        read: Frames of the original.
        cut_from: Frames that this had before it was cut short; ``None`` where it was not.
    """

    written: int
    read: int
    cut_from: int | None


def prepare(
    source: str | os.PathLike[str],
    target: str | os.PathLike[str],
    settings: PrepareSettings | None = None,
    num_workers: int | None = None,
    shard: tuple[int, int] = (0, 1),
) -> PrepareReport:
    """Prepare all videos below a folder, with a progress bar, in parallel.

    Names stay but for the suffix, which becomes ``.mp4``. Videos that are there already are kept,
    so that an interrupted run can be gone on with; a file has its name only once it is complete.

    Of a video that was cut short, what is there is prepared, and the log says so in every run until
    the prepared file is removed: to have it prepared anew, once the video is whole.

    Args:
        source: The folder. Symbolic links are followed; what begins with a dot is passed over.
        target: The folder to make, outside of ``source``.
        settings: What the videos become.
        num_workers: Processes; by default one for each CPU this process may use.
        shard: ``(i, n)`` prepares the i-th of n parts, counted from 0: the parts may be prepared on
            as many machines at once.

    Raises:
        ConfigError: A setting cannot work.
        DataError: There is no ``source``, or no video in it, or ``target`` cannot be made or holds
            something else.
    """
    settings = settings or PrepareSettings()
    num_workers = usable_cpus() if num_workers is None else num_workers
    part, parts = shard
    if num_workers < 1:
        raise ConfigError(f"num_workers must be at least 1, got {num_workers}")
    if not 0 <= part < parts:
        raise ConfigError(f"shards are 0/{parts} to {parts - 1}/{parts}, got {part}/{parts}")
    source, target = Path(source), Path(target)
    if not source.is_dir():
        raise DataError(f"{source}: no such folder")
    if target.resolve().is_relative_to(source.resolve()):
        raise ConfigError(f"{target} lies in {source}: choose a folder outside of it")
    entries = (entry for entry in walk_videos(source) if not entry.in_frames)
    videos = sorted(str(PurePosixPath(entry.folder, entry.name)) for entry in entries)
    if not videos:
        raise DataError(f"{source}: holds no video, whose name ends in {', '.join(VIDEO_SUFFIXES)}")
    _claim_folder(target, settings)

    suffix = f"_{part}_of_{parts}" if parts > 1 else ""
    report = PrepareReport()
    log = target / f"prepare_failures{suffix}.csv"
    known = dict(_cut_short(log))
    names = Counter(prepared_name(name) for name in videos)
    with (
        open_text(log, "w") as file,
        Progress(*Progress.get_default_columns(), MofNCompleteColumn(), **bar_options()) as bar,
    ):
        rows = csv.writer(file)
        rows.writerow(["path", "reason"])

        def log_reason(reasons: list[tuple[str, str]], name: str, reason: str) -> None:
            reasons.append((name, reason))
            rows.writerow([name, reason])
            file.flush()

        mine = videos[part::parts]
        task = bar.add_task("preparing", total=len(mine))
        waiting = []
        for name in mine:
            if names[prepared_name(name)] > 1:
                reason = f"other videos too would become {prepared_name(name)}: rename them"
                log_reason(report.failures, name, reason)
            elif (target / prepared_name(name)).exists():
                report.kept += 1
                if name in known:
                    log_reason(report.cut_short, name, known[name])
            else:
                waiting.append(name)
        bar.advance(task, len(mine) - len(waiting))
        work = partial(_prepare_below, source, target, settings)
        for name, result in in_processes(work, waiting, min(num_workers, max(1, len(waiting)))):
            if isinstance(result, Exception):
                log_reason(report.failures, name, _reason(source / name, result))
            else:
                report.made += 1
                if result.cut_from is not None:
                    reason = f"{CUT_SHORT}: {result.read} of {result.cut_from} frames are there"
                    log_reason(report.cut_short, name, reason)
            bar.advance(task)
    if report.failures or report.cut_short:
        report.log = log
    else:
        log.unlink()
    return report


def prepare_video(
    source: str | os.PathLike[str], target: str | os.PathLike[str], settings: PrepareSettings
) -> Prepared:
    """Prepare one video: scale it, turn it as its rotation tag says, leave out its sound.

    A file cut short is prepared up to where it ends.

    Args:
        source: The video.
        target: The file to make; it has its name only once it is complete.
        settings: What the video becomes.

    Returns:
        How many frames were read and written, and whether some are lost.

    Raises:
        VideoError: The video, or a frame in the midst of it, cannot be read.
    """
    target = Path(target)
    target.parent.mkdir(parents=True, exist_ok=True)
    with open_video(source, "pyav") as video, atomic_write(target, shared=True) as unfinished:
        assert isinstance(video, PyAVVideo)
        height, width = video.frames([0]).shape[-2:]
        if min(height, width) < 2:
            raise VideoError(
                f"{source}: is {width} x {height} pixels; h264 takes no less than 2 x 2"
            )
        short_side = min(settings.short_side, height, width)
        timing = _Timing.of(video, settings.fps)
        count = _encode(unfinished, video.stream(short_side), timing, settings.gop)
        return Prepared(count, len(video), video.cut_from)


def _prepare_below(source: Path, target: Path, settings: PrepareSettings, name: str) -> Prepared:
    return prepare_video(source / name, target / prepared_name(name), settings)


def _cut_short(log: Path) -> Iterator[tuple[str, str]]:
    """Yield videos that an earlier run logged as cut short, with the reason."""
    with suppress(FileNotFoundError), open_text(log) as file:
        for row in csv.reader(file):
            if len(row) == 2 and row[1].startswith(CUT_SHORT):
                yield row[0], row[1]


@dataclass(frozen=True)
class _Timing:
    """When the frames of a prepared video are shown.

    Attributes:
        shown: Of each frame of the original, the times at which it comes, in units of ``base``:
            one, or at another frame rate any number.
        base: Seconds.
        rate: Frames per second, on average.
    """

    shown: list[list[int]]
    base: Fraction
    rate: Fraction

    @classmethod
    def of(cls, video: PyAVVideo, fps: float | None) -> "_Timing":
        length, stamps = len(video), video.stamps
        if stamps is not None:
            units = [stamp - stamps.stamps[0] for stamp in stamps.stamps[:length]]
            base, rate = stamps.time_base, stamps.rate or Fraction(25)
        else:
            # the rates of television have a denominator of 1001
            rate = Fraction(video.fps).limit_denominator(1001)
            units, base = list(range(length)), 1 / rate
        if fps is None:
            return cls([[unit] for unit in units], base, rate)
        new = Fraction(fps).limit_denominator(1001)
        # a frame comes at those moments of the new rate at which it is on the screen; the last one
        # is on it for as long as frames are on average
        moments = [math.ceil(unit * base * new) for unit in units]
        moments.append(max(1, math.ceil((units[-1] * base + 1 / rate) * new)))
        shown = [list(range(*pair)) for pair in pairwise(moments)]
        return cls(shown, 1 / new, new)


def _encode(path: Path, frames: Iterable[Tensor], timing: _Timing, gop: int) -> int:
    """Write frames (3, H, W) and return how many."""
    count = 0
    with av.open(str(path), "w", format="mp4") as container:
        stream = container.add_stream(
            "libx264",
            rate=timing.rate.limit_denominator(1001),
            options={**ENCODER, "g": str(gop)},
        )
        stream.pix_fmt = "yuv420p"
        stream.codec_context.time_base = timing.base
        stream.codec_context.thread_count = 1  # there is a process for every CPU
        for frame, stamps in zip(frames, timing.shown, strict=True):
            # chroma is stored for every second pixel
            height, width = (side // 2 * 2 for side in frame.shape[1:])
            if not stream.codec_context.is_open:
                stream.height, stream.width = height, width
            frame = frame[:, :height, :width]
            picture = av.VideoFrame.from_ndarray(frame.permute(1, 2, 0).contiguous().numpy())
            for stamp in stamps:
                picture.pts, picture.time_base = stamp, timing.base
                container.mux(stream.encode(picture))
                count += 1
        container.mux(stream.encode(None))
    return count


def _claim_folder(target: Path, settings: PrepareSettings) -> None:
    """Write the settings into a new folder, or check those of an old one; other shards may too."""
    marker = target / MARKER
    make_folder(target)
    if not marker.exists():
        if any(not path.name.startswith(".") for path in target.iterdir()) and not marker.exists():
            raise DataError(f"{target} holds something else: choose a new or empty folder")
        file = target / f"{UNFINISHED}{uuid4().hex}.json"
        file.write_text(json.dumps(asdict(settings)) + "\n")
        # unlike a rename, a link fails where another shard was faster
        with suppress(FileExistsError):
            marker.hardlink_to(file)
        file.unlink()
    try:
        found = json.loads(marker.read_text())
    except (OSError, ValueError) as error:
        raise DataError(f"{marker}: cannot be read ({error}); remove the folder") from None
    if found != asdict(settings):
        raise DataError(
            f"{target} holds videos prepared with other settings, {found}, not {asdict(settings)}: "
            "choose another folder or remove this one"
        )


def _reason(path: Path, error: Exception) -> str:
    """Return the description of an error for the log, in one line."""
    text = str(error) if isinstance(error, VideoError) else f"{type(error).__name__}: {error}"
    return " ".join(text.removeprefix(f"{path}: ").split())
