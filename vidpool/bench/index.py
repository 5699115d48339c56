"""How long the index of a data set takes to load and what it holds, as the data set grows."""

from __future__ import annotations

import csv
import os
import re
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from multiprocessing import get_context
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Literal

import torch
from torch.utils.data import DataLoader, Dataset

from vidpool.data.catalogue.index import read_index, write_index
from vidpool.data.catalogue.table import VideoTable
from vidpool.data.datasets.annotated import list_clips
from vidpool.data.datasets.annotations import Annotation, read_annotations
from vidpool.data.datasets.layouts import Entry, VideoLookup

HACS_ROWS = 1_550_016  # of all three subsets, with both labels
ROOT = "/data/hacs"
CLASSES = 200
CLIPS_OF_A_VIDEO = 3
WORKERS = 2
# a full epoch of larger sets would take minutes and show no more
MOST_READ = 1_600_000
STARTS: tuple[Literal["fork", "spawn"], ...] = ("fork", "spawn")


@dataclass(frozen=True)
class IndexResult:
    """What was measured for one size; memory in bytes.

    Attributes:
        rows: Clips.
        csv_size: Of the annotation file.
        csv_seconds: To read it and to find each clip's file in a listing of the folders.
        index_size: Of the index file.
        load_seconds: To load it, checksum included, in a fresh process.
        main_memory: By which the main process grows (resident, of which most is the mapped file).
        main_private: The part of it that is not the mapped file.
        worker_private: By start method: private memory of a loader process after an epoch, less
            that of one whose data set is tiny.
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
    """Generate annotation files as HACS has them, make their indexes, and measure loading those.

    Args:
        rows: Clips of each file, three of each video.

    Yields:
        A result for each size.
    """
    with tempfile.TemporaryDirectory() as name:
        annotations, index = Path(name) / "clips.csv", Path(name) / "index.safetensors"
        write_index(index, list_clips(ROOT, _clips(WORKERS * 10), AllThere(), "sorted")[0], {})
        *_, tiny = _in_fresh_process(_load, index)
        for size in rows:
            write_annotations(annotations, size)
            begun = time.perf_counter()
            listing, _ = list_clips(ROOT, read_annotations(annotations), AllThere(), "sorted")
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
                {start: workers[start] - tiny[start] for start in STARTS},
            )


class AllThere(VideoLookup):
    """A catalogue of untrimmed videos in which each one is found."""

    def __init__(self) -> None:
        self.layout = "untrimmed"
        self._more = {}

    def key(self, clip: Annotation) -> str:
        """What the file of a clip goes by."""
        return clip.id

    def get(self, key: str) -> Entry:
        """The file."""
        return Entry(f"Class_{int(key) % CLASSES:03d}", f"v_{key}.mp4", in_frames=False)


def write_annotations(path: Path, rows: int) -> None:
    """Write a file like ``HACS_clips_v1.1.1.csv``."""
    with path.open("w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["classname", "youtube_id", "subset", "start", "end", "label"])
        for clip in _clips(rows):
            writer.writerow([clip.label, clip.id, "training", clip.start, clip.end, 1])


def _clips(rows: int) -> Iterator[Annotation]:
    for row in range(rows):
        video = row // CLIPS_OF_A_VIDEO
        start = video % 500 / 2 + 4 * (row % CLIPS_OF_A_VIDEO)
        yield Annotation("train", f"Class {video % CLASSES:03d}", f"{video:011d}", start, start + 2)


def _in_fresh_process(function, *arguments):  # type: ignore[no-untyped-def]
    """What a function returns in a new process, whose memory nothing else has touched."""
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
    """Seconds, growth of this process, the private part of it, and what loader processes have."""
    before = _status("VmRSS"), _status("RssAnon")
    begun = time.perf_counter()
    listing, _ = read_index(index, ROOT)
    seconds = time.perf_counter() - begun
    after = _status("VmRSS"), _status("RssAnon")
    workers: dict[str, int] = {start: _epoch(listing.split("train"), start) for start in STARTS}
    return seconds, after[0] - before[0], after[1] - before[1], workers


def _epoch(table: VideoTable, start: str) -> int:
    """Most private memory of a loader process after an epoch."""
    order = torch.randperm(len(table), generator=torch.Generator().manual_seed(0))[:MOST_READ]
    batches = order.tensor_split(max(WORKERS, len(order) // 1000))
    loader = DataLoader(
        _Touched(table),
        sampler=[batch.tolist() for batch in batches],
        batch_size=None,
        num_workers=WORKERS,
        multiprocessing_context=start,
    )
    private: dict[int, int] = {}
    for process, size in loader:
        private[process] = size
    return max(private.values())


class _Touched(Dataset[tuple[int, int]]):
    """Looks at videos as training does, but for opening them; says what memory that takes."""

    def __init__(self, table: VideoTable) -> None:
        self.table = table

    def __len__(self) -> int:
        return len(self.table)

    def __getitem__(self, indices: list[int]) -> tuple[int, int]:
        for index in indices:
            assert self.table[index].path
        return os.getpid(), _private()


def _status(name: str) -> int:
    """A value of ``/proc/self/status``, bytes."""
    text = Path("/proc/self/status").read_text()
    found = re.search(rf"^{name}:\s+(\d+) kB", text, re.MULTILINE)
    assert found, name
    return int(found[1]) * 1024


def _private() -> int:
    """Memory that this process has written and shares with no other, bytes."""
    text = Path("/proc/self/smaps_rollup").read_text()
    found = re.search(r"^Private_Dirty:\s+(\d+) kB", text, re.MULTILINE)
    assert found
    return int(found[1]) * 1024
