"""Writing of webdataset shards: tar files that hold a dataset's videos one after another.

Each sample is a video file as it is, under its own suffix, and ``json`` with ``path`` (where it lay
below the data set's folder), ``frames`` (how many decode) and ``videos``: the labelled videos in
the file, as number, label, start and end in seconds (``null`` for a whole file). ``shards.json``
says what there is.
"""

import json
import math
import os
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from stat import S_ISDIR
from typing import Any, get_args

import torch
from rich.progress import MofNCompleteColumn, Progress

from vidpool.data.catalogue.listing import Split
from vidpool.data.catalogue.table import VideoTable
from vidpool.data.listed import ListedDataModule
from vidpool.data.parallel import bar_options, in_processes, usable_cpus
from vidpool.data.shards.reader import MANIFEST, PARTIAL, VERSION, require_webdataset
from vidpool.errors import ConfigError, DataError, VideoError
from vidpool.files import atomic_write, make_folder
from vidpool.video import Video, open_video

MEBIBYTE = 2**20


@dataclass(frozen=True)
class _File:
    """A file and the videos in it: number within the split, label, start and end in seconds."""

    path: str
    videos: list[tuple[int, int, float | None, float | None]]


@dataclass(frozen=True)
class _Job:
    """A shard to write."""

    path: Path
    root: str
    files: list[_File]


@dataclass
class ShardReport:
    """Results of a run.

    Attributes:
        made: Shards that this run wrote.
        kept: Shards that were there.
        videos: Labelled videos in all shards, by split.
        bad: What was wrong with files and clips that are left out; each message begins with the
            file.
    """

    made: int = 0
    kept: int = 0
    videos: dict[str, int] = field(default_factory=dict)
    bad: list[str] = field(default_factory=list)


def make_shards(
    data: ListedDataModule,
    out: str | os.PathLike[str],
    size: float = 512,
    seed: int = 0,
    num_workers: int | None = None,
) -> ShardReport:
    """Write all splits of a data set as webdataset shards, with a progress bar, in parallel.

    Training videos are shuffled once, such that neighbours in a shard have nothing in common; the
    files of other splits keep their order. An interrupted run can be gone on with, as long as the
    data set and the settings are the same.

    Args:
        data: The data set. Videos known to be bad are left out as its ``on_bad_video`` says.
        out: The folder to make.
        size: Least mebibytes of a shard, but for the last of a split.
        seed: Of the order of training videos.
        num_workers: Processes; by default one for each CPU this process may use. With 0 this
            process does the work.

    Raises:
        ConfigError: A setting cannot work, or webdataset is missing.
        DataError: The data set is not on disk as its lists say or consists of frames, or ``out``
            cannot be made or holds something else.
    """
    require_webdataset()
    num_workers = usable_cpus() if num_workers is None else num_workers
    if not 0 < size < math.inf:
        raise ConfigError(f"size must be a positive number of mebibytes, got {size}")
    if num_workers < 0:
        raise ConfigError(
            f"num_workers must not be negative, got {num_workers}", argument="num_workers"
        )
    folder = Path(out)
    splits = [split for split in get_args(Split) if split in data.listing.splits]
    settings = {
        "version": VERSION,
        "class_names": data.class_names,
        "sizes": {split: len(data.videos(split)) for split in splits},
        "mebibytes": size,
        "seed": seed,
    }
    report = ShardReport()
    jobs: dict[str, _Job] = {}
    for split in splits:
        generator = torch.Generator().manual_seed(seed) if split == "train" else None
        for number, files in enumerate(_shards(data.videos(split), size * MEBIBYTE, generator)):
            path = folder / f"{split}-{number:06d}.tar"
            jobs[path.name] = _Job(path, str(data.root), files)
    done = _claim_folder(folder, settings)
    waiting = [job for name, job in jobs.items() if name not in done]
    report.kept = len(jobs) - len(waiting)
    columns = (*Progress.get_default_columns(), MofNCompleteColumn())
    with Progress(*columns, **bar_options()) as bar:
        task = bar.add_task("writing shards", total=len(jobs), completed=report.kept)
        processes = min(num_workers, max(1, len(waiting)))
        written: Iterable[tuple[_Job, Any]] = (
            in_processes(_write, waiting, processes)
            if processes
            else ((job, _write(job)) for job in waiting)
        )
        for job, result in written:
            if isinstance(result, Exception):
                raise DataError(f"{job.path}: cannot be written ({result})") from result
            done[job.path.name] = result
            _save(folder / PARTIAL, {"settings": settings, "done": done})
            report.made += 1
            bar.advance(task)
    shards: dict[str, list[dict[str, Any]]] = {split: [] for split in splits}
    for name in jobs:
        shards[name.rpartition("-")[0]].append({"name": name, "videos": done[name]["videos"]})
        report.bad += done[name]["bad"]
    _save(folder / MANIFEST, {**settings, "shards": shards})
    report.videos = {split: sum(s["videos"] for s in listed) for split, listed in shards.items()}
    return report


def _shards(
    videos: VideoTable, size: float, generator: torch.Generator | None
) -> Iterator[list[_File]]:
    """Yield the files of each shard of a split; a shard has at least ``size`` bytes."""
    of_file: dict[int, list[int]] = {}
    for number, file in enumerate(videos.file.tolist()):
        of_file.setdefault(file, []).append(number)
    files = list(of_file)
    if generator is not None:
        files = [files[i] for i in torch.randperm(len(files), generator=generator).tolist()]
    shard: list[_File] = []
    held = 0
    for file in files:
        path = videos.path(file)
        listed = [(number, videos[number]) for number in of_file[file]]
        shard.append(_File(path, [(n, video.label, video.start, video.end) for n, video in listed]))
        with suppress(OSError):  # it is reported where it is to be read
            status = Path(path).stat()
            if S_ISDIR(status.st_mode):
                raise DataError(
                    f"{path}: is a folder, but shards are made of video files; read frames_db as "
                    "it is, or make shards of the videos that it was made of"
                )
            held += status.st_size
        if held >= size:
            yield shard
            shard, held = [], 0
    if shard:
        yield shard


def _write(job: _Job) -> dict[str, Any]:
    """Write a shard; return the number of its videos and the errors of videos left out."""
    from webdataset import TarWriter

    videos = 0
    bad: list[str] = []
    with (
        atomic_write(job.path, shared=True) as temporary,
        TarWriter(str(temporary), mtime=0) as tar,
    ):
        for number, file in enumerate(job.files):
            try:
                with open_video(file.path) as video:
                    frames = len(video)
                    listed = list(_within(video, file, bad))
                content = Path(file.path).read_bytes()
            except (VideoError, OSError) as error:
                bad.append(str(error))
                continue
            if not listed:
                continue
            path = Path(file.path)
            about = {
                "path": os.path.relpath(file.path, job.root),
                "frames": frames,
                "videos": [
                    (number, label, start, None if end == math.inf else end)
                    for number, label, start, end in listed
                ],
            }
            # names may hold dots, by which webdataset tells keys from suffixes
            suffix = path.suffix.lower().lstrip(".") or "video"
            tar.write(
                {
                    "__key__": f"{job.path.stem}_{number:06d}",
                    suffix: content,
                    "json": json.dumps(about, allow_nan=False).encode(),
                }
            )
            videos += len(listed)
    return {"videos": videos, "bad": bad}


def _within(
    video: Video, file: _File, bad: list[str]
) -> Iterator[tuple[int, int, float | None, float | None]]:
    """Yield the labelled videos that a file holds; errors of others are added to ``bad``."""
    for listed in file.videos:
        _, _, start, end = listed
        try:
            if start is not None:
                video.span(start, math.inf if end is None else end)
        except VideoError as error:
            bad.append(str(error))
        else:
            yield listed


def _claim_folder(folder: Path, settings: dict[str, Any]) -> dict[str, Any]:
    """Make the folder, or find what shards of the same data set and settings it holds."""
    make_folder(folder)
    partial = folder / PARTIAL
    if not partial.exists():
        if any(not path.name.startswith(".") for path in folder.iterdir()):
            raise DataError(f"{folder} holds something else: choose a new or empty folder")
        _save(partial, {"settings": settings, "done": {}})
    try:
        found = json.loads(partial.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise DataError(f"{partial}: cannot be read ({error}); remove the folder") from None
    for name, value in settings.items():
        if found["settings"].get(name) != value:
            raise DataError(
                f"{folder} holds shards of another data set or other settings ({name} differs): "
                "choose another folder or remove this one"
            )
    return {name: done for name, done in found["done"].items() if (folder / name).exists()}


def _save(path: Path, content: dict[str, Any]) -> None:
    with atomic_write(path) as temporary:
        temporary.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
