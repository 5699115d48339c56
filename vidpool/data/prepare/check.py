"""Checking a dataset: each file is opened once and its frames are counted.

A check makes a report, and the index that training then uses.
"""

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from torch import Tensor

from vidpool.data.catalogue.index import require_replaceable, write_index
from vidpool.data.catalogue.listing import Listing
from vidpool.data.catalogue.table import Status, VideoTable
from vidpool.data.listed import ListedDataModule
from vidpool.data.parallel import bar_options, in_processes
from vidpool.data.prepare.journal import CheckJob, FileRecord, Journal, file_stamp, has_journal
from vidpool.data.prepare.repeats import Repeat, find_repeats, same_content
from vidpool.data.views import clip_span
from vidpool.errors import VideoError
from vidpool.video import open_video

PROBLEMS = ("missing", "unreadable", "beyond the end", "cut short", "too short")
USED = PROBLEMS[3:]  # these videos are used all the same


@dataclass(frozen=True)
class CheckedData:
    """A dataset whose files have all been checked.

    Attributes:
        listing: Its videos, with frame counts and the state of files.
        fps: float64 (F,) frames per second of each file, NaN where unknown.
        errors: Why a file cannot be read, by its number.
        cut: Frames that a file had before it was cut short, by its number.
        needed: Frames that a clip reaches over; a shorter video repeats its last frame.
        read: How many files were opened by this run and not by an earlier one.
        repeats: Videos that are in several splits, or under several labels.
    """

    listing: Listing
    fps: NDArray[np.float64]
    errors: dict[int, str]
    cut: dict[int, int]
    needed: int
    read: int
    repeats: list[Repeat] = field(default_factory=list)

    def problems(self, table: VideoTable) -> NDArray[np.int64]:
        """Return the first of :data:`PROBLEMS` that each video of a table has, by its number.

        It is -1 for none. Those of :data:`USED` are used all the same; of a file that was cut
        short, the videos that reach beyond where it now ends are counted.
        """
        file = table.file.numpy()
        status = table.status.numpy()[file]
        span = table.span.numpy()
        # NaN, the end of a whole file or an unknown rate, is not within it
        within = table.end.numpy() * self.fps[file] <= table.frames.numpy()[file]
        cut = np.isin(file, list(self.cut)) & ~within
        tests = (status == Status.MISSING, status == Status.UNREADABLE, span == 0, cut)
        return np.select([*tests, span < self.needed], range(len(PROBLEMS)), -1)

    def counts(self, split: str) -> NDArray[np.int64]:
        """Count videos by class and problem, int64 (C + 1, 1 + problems).

        The last row is of videos without a label. The first column counts all that are listed, the
        others those with each of :data:`PROBLEMS`.
        """
        table = self.listing.split(split)
        labels = table.label.numpy() % (len(self.listing.class_names) + 1)  # -1 is the last
        problems = self.problems(table)
        columns = [np.ones(len(table), bool), *(problems == i for i in range(len(PROBLEMS)))]
        rows = len(self.listing.class_names) + 1
        return np.stack([np.bincount(labels[c], minlength=rows) for c in columns], axis=1)

    def durations(self, split: str) -> NDArray[np.float64]:
        """Return the seconds that a split's readable videos last; NaN where the rate is unknown."""
        table = self.listing.split(split)
        readable = table.span.numpy() > 0
        return table.span.numpy()[readable] / self.fps[table.file.numpy()[readable]]


def check_data(data: ListedDataModule, folder: Path, index: Path, num_workers: int) -> CheckedData:
    """Check every file of a dataset and write its index.

    Results are appended to a journal in ``folder`` as they come: an interrupted run is resumed, and
    a later run reads only files that are new, have changed or could not be read.

    Args:
        data: The data set; its own ``index`` is not read.
        folder: Folder of the journal; it is made.
        index: The index file to write.
        num_workers: Processes that read.

    Raises:
        DataError: The lists cannot be understood; ``folder`` belongs to another data set, or has
            files of these names that are not of a check; or something cannot be written.
    """
    about = {"root": str(data.root.absolute()), "decoder": data.decoder}
    own = has_journal(folder, about)
    # a damaged index is made again, but only where it must have been one
    damaged_too = own and index.suffix == ".safetensors" and _is_same_path(index.parent, folder)
    require_replaceable(index, damaged_too)
    listing = data.read_listing()
    table = listing.table
    source = data.source()
    journal = Journal(folder, about)
    columns = _FileColumns(table)
    present = (table.status != Status.MISSING).nonzero().flatten().tolist()
    bar = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
    )
    read = 0
    repeats: list[Repeat] = []
    with journal, Progress(*bar, **bar_options()) as progress:
        task = progress.add_task("reading files", total=len(present))
        unread = []
        for job in columns.jobs(present, data.decoder):
            known = journal.find(table, job)
            if known is None:
                unread.append(job.file)
            else:
                columns.add(job.file, known)
                progress.advance(task)
        for job, result in in_processes(
            check_file, columns.jobs(unread, data.decoder), num_workers
        ):
            if isinstance(result, Exception):
                result = FileRecord(
                    0, None, None, [], f"{job.path}: {result}", file_stamp(job.path)
                )
            columns.add(job.file, result)
            journal.add(table, job, result)
            read += 1
            progress.advance(task)
        if len(listing.splits) > 1 or len(listing.class_names) > 1:
            content = same_content(table.path, columns.sizes, num_workers, progress)
            repeats = find_repeats(listing, content)
    listing = replace(listing, table=columns.table)
    write_index(index, listing, source, damaged_too)
    p = data.preprocessing
    needed = clip_span(p.frames, p.stride)
    return CheckedData(listing, columns.fps, columns.errors, columns.cut, needed, read, repeats)


class _FileColumns:
    """Collects the records of a table's files in columns.

    Args:
        table: The videos; it is not changed.

    Attributes:
        table: The videos, with the frame counts and states of the files that were added.
        fps: float64 (F,) frames per second of each file, NaN where unknown.
        sizes: int64 (F,) bytes of each readable file, 0 for others.
        errors: Why a file cannot be read, by its number.
        cut: Frames that a file had before it was cut short, by its number.
    """

    def __init__(self, table: VideoTable) -> None:
        files = len(table.names)
        # the rows of each file's videos follow one another in this order
        self._order = table.file.long().argsort(stable=True)
        self._begins = torch.searchsorted(
            table.file[self._order], torch.arange(files + 1, dtype=torch.int32)
        )
        self.table = replace(
            table,
            frames=table.frames.clone(),
            status=table.status.clone(),
            span=table.span.clone(),
        )
        self.fps = np.full(files, np.nan)
        self.sizes = np.zeros(files, np.int64)
        self.errors: dict[int, str] = {}
        self.cut: dict[int, int] = {}

    def jobs(self, files: Iterable[int], decoder: str) -> Iterator[CheckJob]:
        """Return what is to be checked in some files, by their numbers."""
        table = self.table
        for file in files:
            rows = self._rows(file)
            spans = list(zip(table.start[rows].tolist(), table.end[rows].tolist(), strict=True))
            yield CheckJob(file, table.path(file), decoder, spans)

    def add(self, file: int, record: FileRecord) -> None:
        """Enter the record of a file."""
        table = self.table
        table.status[file] = Status.UNREADABLE if record.error else Status.READABLE
        table.frames[file] = -1 if record.error else record.frames
        if record.error:
            self.errors[file] = record.error
            return
        self.sizes[file] = record.stamp[0]
        if record.cut_from is not None:
            self.cut[file] = record.cut_from
        self.fps[file] = np.nan if record.fps is None else record.fps
        table.span[self._rows(file)] = torch.tensor(record.spans, dtype=torch.int32)

    def _rows(self, file: int) -> Tensor:
        """Return the rows of the videos in a file."""
        return self._order[self._begins[file] : self._begins[file + 1]]


def check_file(job: CheckJob) -> FileRecord:
    """Open a file, count its frames, and find its videos in it."""
    stamp = file_stamp(job.path)
    try:
        with open_video(job.path, job.decoder) as video:
            frames = len(video)
            video.frames([0])
            try:
                fps = video.fps
            except VideoError:  # folders of frames do not say
                fps = None
            cut_from = video.cut_from
            spans = []
            for start, end in job.spans:
                try:
                    spans.append(frames if math.isnan(start) else len(video.span(start, end)))
                except VideoError:
                    spans.append(0)
    except VideoError as error:
        return FileRecord(0, None, None, [], str(error), stamp)
    return FileRecord(frames, fps, cut_from, spans, None, stamp)


def _is_same_path(one: Path, other: Path) -> bool:
    return one.absolute().resolve() == other.absolute().resolve()
