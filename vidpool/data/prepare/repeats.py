"""Search for videos that a dataset has in several splits or under several labels."""

import hashlib
from bisect import bisect_left
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from rich.progress import Progress

from vidpool.data.catalogue.index import fingerprint
from vidpool.data.catalogue.listing import Listing
from vidpool.data.catalogue.table import UNLABELLED
from vidpool.data.parallel import in_processes
from vidpool.errors import DataError

_Job = tuple[Callable[[str], object], int, str]  # what digests a file, its number, its path
SAMPLE = 16 * 2**10  # bytes that are read at three places of a file before all of it is


class Repeat(NamedTuple):
    """A video that occurs twice in the dataset.

    Attributes:
        row: Its place in the table of all videos.
        other: The place of the other one.
        split: The split of the other one where that is another; None where the label is another.
        by_path: True if both are of one file, False if their files have the same content.
    """

    row: int
    other: int
    split: str | None
    by_path: bool


def same_content(
    path: Callable[[int], str],
    sizes: NDArray[np.int64],
    num_workers: int,
    progress: Progress | None = None,
) -> NDArray[np.int64]:
    """Find files of the same content; only files of equal size are read.

    Of these a few kilobytes are read first, and all of a file only where those are equal as well.

    Args:
        path: Tells the path of a file by its number.
        sizes: Bytes of each file; files of 0 bytes are not compared.
        num_workers: Processes that read.
        progress: Where a bar shows how many files have been read.

    Returns:
        int64 (F,), for each file the number of the first one that has its content.
    """
    first = np.arange(len(sizes))
    groups = [group for group in _groups_of_equal_size(sizes) if sizes[group[0]]]
    steps = (
        ("comparing files of equal size", sample_digest),
        ("reading likely copies", fingerprint),
    )
    for description, read in steps:
        digests: dict[int, object] = {}
        jobs = [(read, number, path(number)) for group in groups for number in group]
        bar = progress or Progress(disable=True)
        for number, digest in bar.track(
            _digests(jobs, num_workers), len(jobs), description=description
        ):
            digests[number] = digest
        groups = [part for group in groups for part in _split_by_digest(group, digests)]
    for group in groups:
        first[group] = min(group)
    return first


def find_repeats(listing: Listing, content: NDArray[np.int64]) -> list[Repeat]:
    """Find videos that are in another split too, or have another label elsewhere.

    Spans of a file are the same video for two splits where they overlap, and for two labels where
    their times are equal: annotation files may give one span two labels next to each other.

    Args:
        listing: All videos.
        content: For each file the first one of the same content, see :func:`same_content`.

    Returns:
        By row, at most one for each other split and one for another label.
    """
    table = listing.table
    names = list(listing.splits)
    split = np.full(len(table), -1)
    for number, (begin, end) in enumerate(listing.splits.values()):
        split[begin:end] = number
    file, label = table.file.numpy(), table.label.numpy()
    key = content[file]
    order = np.argsort(key, kind="stable")
    begins = np.flatnonzero(np.diff(key[order], prepend=-1)) if len(order) else order
    mixed = np.zeros(len(begins), bool)
    if len(begins):
        for column in (split[order], label[order]):
            lowest, highest = (f.reduceat(column, begins) for f in (np.minimum, np.maximum))
            mixed |= lowest != highest
    found = []
    start = np.nan_to_num(table.start.numpy(), nan=0.0)
    end = np.nan_to_num(table.end.numpy(), nan=np.inf, posinf=np.inf)
    ends = np.append(begins[1:], len(order))
    for group in np.flatnonzero(mixed).tolist():
        rows = order[begins[group] : ends[group]].tolist()
        by_split = defaultdict(list)
        by_span: dict[tuple[float, float], dict[int, int]] = defaultdict(dict)
        for row in rows:
            by_split[int(split[row])].append(row)
            if label[row] != UNLABELLED:
                by_span[start[row], end[row]].setdefault(int(label[row]), row)
        overlaps = {number: _Overlaps(own, start, end) for number, own in by_split.items()}
        for row in rows:
            for number, there in overlaps.items():
                other = None if number == split[row] else there.find(start[row], end[row])
                if other is not None:
                    found.append(Repeat(row, other, names[number], bool(file[row] == file[other])))
            if label[row] == UNLABELLED:
                continue
            for name, other in by_span[start[row], end[row]].items():
                if name != label[row]:
                    found.append(Repeat(row, other, None, bool(file[row] == file[other])))
                    break
    return sorted(found, key=lambda repeat: repeat.row)


class _Overlaps:
    """Answers which of some spans overlaps another one, in logarithmic time."""

    def __init__(
        self, rows: Sequence[int], start: NDArray[np.float64], end: NDArray[np.float64]
    ) -> None:
        rows = sorted(rows, key=lambda row: float(start[row]))
        self._starts = [float(start[row]) for row in rows]
        self._longest: list[int] = []  # of the spans up to each, the one that ends last
        self._end = end
        for row in rows:
            if self._longest and end[self._longest[-1]] >= end[row]:
                self._longest.append(self._longest[-1])
            else:
                self._longest.append(row)

    def find(self, start: float, end: float) -> int | None:
        before = bisect_left(self._starts, end)
        if before and self._end[self._longest[before - 1]] > start:
            return self._longest[before - 1]
        return None


def sample_digest(path: str) -> bytes:
    """Digest a file's beginning, middle and end.

    Raises:
        OSError: It cannot be read.
    """
    digest = hashlib.sha256()
    with Path(path).open("rb") as file:
        size = file.seek(0, 2)
        for place in (0, size // 2, max(0, size - SAMPLE)):
            file.seek(place)
            digest.update(file.read(SAMPLE))
    return digest.digest()


def _digest(job: _Job) -> object:
    read, _, path = job
    return read(path)


def _digests(jobs: Sequence[_Job], num_workers: int) -> Iterator[tuple[int, object]]:
    """Yield the digest of each file, by number; an exception for an unreadable file."""
    if len(jobs) < 1000:  # processes would take longer to start
        for job in jobs:
            try:
                yield job[1], _digest(job)
            except (OSError, DataError) as error:
                yield job[1], error
        return
    for job, result in in_processes(_digest, jobs, num_workers):
        yield job[1], result


def _groups_of_equal_size(sizes: NDArray[np.int64]) -> Iterator[list[int]]:
    """Yield groups of files, by number, that have the same size."""
    order = np.argsort(sizes, kind="stable")
    for group in np.split(order, np.flatnonzero(np.diff(sizes[order])) + 1):
        if len(group) > 1:
            yield group.tolist()


def _split_by_digest(group: list[int], digests: dict[int, object]) -> list[list[int]]:
    """Split a group of files by digest, without unreadable files and parts of one file."""
    parts: dict[object, list[int]] = defaultdict(list)
    for number in group:
        if not isinstance(digests[number], Exception):
            parts[digests[number]].append(number)
    return [part for part in parts.values() if len(part) > 1]
