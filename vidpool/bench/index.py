"""The measurement of `vidpool bench index`: time and memory of a dataset's index, by its size."""

from __future__ import annotations

import csv
import os
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from multiprocessing import get_context
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, Literal

import torch
from matplotlib.figure import Figure
from torch.utils.data import DataLoader, Dataset

from vidpool.bench.timing import proc_bytes
from vidpool.data.catalogue.index import read_index, write_index
from vidpool.data.catalogue.table import VideoTable
from vidpool.data.datasets.annotations import Annotation, read_annotations
from vidpool.data.datasets.hacs_kinetics import list_clips
from vidpool.data.datasets.layouts import Entry, VideoLookup
from vidpool.figures import BLUE, GREEN, GREY, ORANGE

HACS_ROWS = 1_550_016  # all three subsets, both labels
ROOT = "/data/hacs"
CLASSES = 200
CLIPS_PER_VIDEO = 3
WORKERS = 2
# a full epoch of larger datasets would take minutes and show nothing else
MAX_CLIPS_READ = 1_600_000
START_METHODS: tuple[Literal["fork", "spawn"], ...] = ("fork", "spawn")

MEMORY_FIELDS = ("VmRSS", "RssAnon")  # resident, and the part of it that maps no file
MIB = 2**20


@dataclass(frozen=True)
class IndexResult:
    """Figures of one size of the dataset; sizes and memory in bytes.

    Attributes:
        rows: Number of clips.
        csv_size: Size of the annotation file.
        csv_seconds: Time to read the annotation file and to find the file of each clip in a
            listing of the folders.
        index_size: Size of the index file.
        load_seconds: Time to load the index in a fresh process, checksum included.
        main_memory: Growth of the main process's resident memory, most of it the mapped file.
        main_private: Part of ``main_memory`` that is not the mapped file.
        worker_private: Private memory of a loader process after an epoch, minus that with a tiny
            dataset, by start method.
    """

    rows: int
    csv_size: int
    csv_seconds: float
    index_size: int
    load_seconds: float
    main_memory: int
    main_private: int
    worker_private: dict[str, int]


def measure_index(rows: Sequence[int]) -> Iterator[IndexResult]:
    """Generate annotation files in HACS's format, write their indexes, and measure loading them.

    Args:
        rows: Number of clips of each file; each video has three clips.

    Yields:
        The result of each size.
    """
    with tempfile.TemporaryDirectory() as name:
        annotations, index = Path(name) / "clips.csv", Path(name) / "index.safetensors"
        write_index(
            index, list_clips(ROOT, _clips(WORKERS * 10), CompleteLookup(), "sorted")[0], {}
        )
        *_, tiny = _in_fresh_process(_load, index)
        for size in rows:
            write_annotations(annotations, size)
            begun = time.perf_counter()
            listing, _ = list_clips(ROOT, read_annotations(annotations), CompleteLookup(), "sorted")
            csv_seconds = time.perf_counter() - begun
            write_index(index, listing, {})
            del listing
            seconds, memory, private, workers = _in_fresh_process(_load, index)
            yield IndexResult(
                size,
                annotations.stat().st_size,
                csv_seconds,
                index.stat().st_size,
                seconds,
                memory,
                private,
                {start: workers[start] - tiny[start] for start in START_METHODS},
            )


class CompleteLookup(VideoLookup):
    """A lookup of untrimmed videos that finds every video."""

    def __init__(self) -> None:
        self.layout = "untrimmed"
        self._more = {}

    def key(self, clip: Annotation) -> str:
        """Return the id of the clip's video."""
        return clip.id

    def get(self, key: str) -> Entry:
        """Return the file of a video."""
        return Entry(f"Class_{int(key) % CLASSES:03d}", f"v_{key}.mp4", in_frames=False)


def write_annotations(path: Path, rows: int) -> None:
    """Write an annotation file like ``HACS_clips_v1.1.1.csv``."""
    with path.open("w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["classname", "youtube_id", "subset", "start", "end", "label"])
        for clip in _clips(rows):
            writer.writerow([clip.label, clip.id, "training", clip.start, clip.end, 1])


def _clips(rows: int) -> Iterator[Annotation]:
    for row in range(rows):
        video = row // CLIPS_PER_VIDEO
        start = video % 500 / 2 + 4 * (row % CLIPS_PER_VIDEO)
        yield Annotation("train", f"Class {video % CLASSES:03d}", f"{video:011d}", start, start + 2)


def _in_fresh_process(function, *arguments):  # type: ignore[no-untyped-def]
    """Return the result of a function in a new process, whose memory nothing else has touched."""
    context = get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=_call, args=(theirs, function, arguments))
    process.start()
    theirs.close()
    try:
        return ours.recv()
    finally:
        process.join()


def _call(pipe: Connection, function, arguments) -> None:  # type: ignore[no-untyped-def]
    torch.set_num_threads(1)
    pipe.send(function(*arguments))


def _load(index: Path) -> tuple[float, int, int, dict[str, int]]:
    """Return seconds, growth of this process, its private part, and that of loader processes."""
    before = [proc_bytes("status", field) for field in MEMORY_FIELDS]
    begun = time.perf_counter()
    listing, _ = read_index(index, ROOT)
    seconds = time.perf_counter() - begun
    after = [proc_bytes("status", field) for field in MEMORY_FIELDS]
    workers: dict[str, int] = {
        start: _worker_private(listing.split("train"), start) for start in START_METHODS
    }
    return seconds, after[0] - before[0], after[1] - before[1], workers


def _worker_private(table: VideoTable, start: str) -> int:
    """Return the largest private memory of a loader process after an epoch."""
    order = torch.randperm(len(table), generator=torch.Generator().manual_seed(0))[:MAX_CLIPS_READ]
    batches = order.tensor_split(max(WORKERS, len(order) // 1000))
    loader = DataLoader(
        _VideoLookups(table),
        sampler=[batch.tolist() for batch in batches],
        batch_size=None,
        num_workers=WORKERS,
        multiprocessing_context=start,
    )
    private: dict[int, int] = {}
    for process, size in loader:
        private[process] = size
    return max(private.values())


class _VideoLookups(Dataset[tuple[int, int]]):
    """Look up videos as training does, without opening them, and return the process's memory."""

    def __init__(self, table: VideoTable) -> None:
        self.table = table

    def __len__(self) -> int:
        return len(self.table)

    def __getitem__(self, indices: list[int]) -> tuple[int, int]:
        for index in indices:
            assert self.table[index].path
        return os.getpid(), proc_bytes("smaps_rollup", "Private_Dirty")


def index_chart(results: Sequence[IndexResult], machine: dict[str, Any]) -> Figure:
    """Draw the time to load a dataset's list of clips and its memory over the number of clips.

    Args:
        results: Results, at least one.
        machine: Description by :func:`vidpool.bench.timing.describe_machine`.
    """
    results = sorted(results, key=lambda result: result.rows)
    rows = [result.rows for result in results]
    figure = Figure(figsize=(11, 4.5), layout="constrained")
    left, right = figure.subplots(1, 2)
    left.plot(rows, [r.csv_seconds for r in results], "o-", color=GREY, label="annotation file")
    left.plot(rows, [r.load_seconds for r in results], "o-", color=ORANGE, label="index")
    left.set(title="to load the list", ylabel="seconds", yscale="log")
    mapped = [(r.main_memory - r.main_private) / MIB for r in results]
    right.plot(rows, mapped, "o-", color=GREY, label="main process, mapped file")
    private = [r.main_private / MIB for r in results]
    right.plot(rows, private, "o-", color=BLUE, label="main process, private")
    for start, colour in zip(results[0].worker_private, (ORANGE, GREEN), strict=True):
        worker = [r.worker_private[start] / MIB for r in results]
        right.plot(rows, worker, "o-", color=colour, label=f"worker ({start}), private")
    # private memory is close to zero, and may be below that with a tiny dataset
    right.set(title="memory", ylabel="MiB")
    right.set_yscale("symlog", linthresh=1)
    for axes in (left, right):
        axes.set(xlabel="clips", xscale="log")
        axes.grid(alpha=0.3)
        axes.legend()
    figure.suptitle(
        f"The list of a data set as it grows\n{machine['device_name']}, PyTorch {machine['torch']}"
    )
    return figure
