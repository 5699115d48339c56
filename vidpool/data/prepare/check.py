"""Checking a data set: each file is opened and its frames are counted, once.

What comes of it is a report, and the index that training then uses.
"""

import json
import math
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from vidpool.data.index import Listing, require_replaceable, write_index
from vidpool.data.listed import ListedDataModule
from vidpool.data.parallel import in_processes
from vidpool.data.prepare.repeats import Repeat, find_repeats, same_content
from vidpool.data.progress import bar_options
from vidpool.data.sampling import clip_span
from vidpool.data.table import Status, VideoTable
from vidpool.errors import DataError, VideoError
from vidpool.video import open_video

RECORDS = "files.jsonl"
REPORT = ("problems.csv", "classes.csv", "clips.png")
PROBLEMS = ("missing", "unreadable", "beyond the end", "cut short", "too short")
USED = PROBLEMS[3:]  # these videos are used all the same


class _Job(NamedTuple):
    """A file to be looked at."""

    file: int
    path: str
    decoder: str
    spans: list[tuple[float, float]]


@dataclass(frozen=True)
class FileRecord:
    """What was found in a file.

    Attributes:
        frames: How many frames decode; 0 where the file cannot be read.
        fps: Frames per second; ``None`` where the file does not say.
        cut_from: Frames that it had before it was cut short; ``None`` where it was not.
        spans: How many frames each of its videos has, 0 where the file ends before it begins.
        error: Why it cannot be read, or ``None``.
        stamp: Size in bytes and time of change in ns, by which a file that was replaced is known.
    """

    frames: int
    fps: float | None
    cut_from: int | None
    spans: list[int]
    error: str | None
    stamp: tuple[int, int]


@dataclass(frozen=True)
class CheckedData:
    """A data set, all of whose files were looked at.

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
        """Which of :data:`PROBLEMS` each video of a table has, the first of them, by number.

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
        """Videos by class and kind, int64 (C + 1, 1 + problems).

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
        """Seconds that the readable videos of a split last; NaN where the rate is unknown."""
        table = self.listing.split(split)
        readable = table.span.numpy() > 0
        return table.span.numpy()[readable] / self.fps[table.file.numpy()[readable]]


def check_data(data: ListedDataModule, folder: Path, index: Path, workers: int) -> CheckedData:
    """Look at every file of a data set and write its index.

    What was read is noted in ``folder`` as it comes: a run that was interrupted goes on where it
    ended, and a later one reads only what is new, has changed or could not be read.

    Args:
        data: The data set; its own ``index`` is not read.
        folder: Where notes are kept; it is made.
        index: The index file to write.
        workers: Processes that read.

    Raises:
        DataError: The lists cannot be understood; ``folder`` belongs to another data set, or has
            files of these names that are not of a check; or something cannot be written.
    """
    about = {"root": str(data.root.absolute()), "decoder": data.decoder}
    own = _has_notes(folder, about)
    # a damaged index is made again, but only where it must have been one
    damaged_too = own and index.suffix == ".safetensors" and _same(index.parent, folder)
    require_replaceable(index, damaged_too)
    listing = data.read_listing()
    table = listing.table
    source = data.source()
    notes = _Notes(folder, about)
    files = len(table.names)
    order = table.file.long().argsort(stable=True)  # the videos of each file follow one another
    begins = torch.searchsorted(table.file[order], torch.arange(files + 1, dtype=torch.int32))
    frames = table.frames.clone()
    status = table.status.clone()
    span = table.span.clone()
    fps = np.full(files, np.nan)
    errors: dict[int, str] = {}
    cut: dict[int, int] = {}
    sizes = np.zeros(files, np.int64)

    def take(file: int, record: FileRecord) -> None:
        status[file] = Status.UNREADABLE if record.error else Status.READABLE
        frames[file] = -1 if record.error else record.frames
        if record.error:
            errors[file] = record.error
            return
        sizes[file] = record.stamp[0]
        if record.cut_from is not None:
            cut[file] = record.cut_from
        fps[file] = np.nan if record.fps is None else record.fps
        span[order[begins[file] : begins[file + 1]]] = torch.tensor(record.spans, dtype=torch.int32)

    def jobs(some: Iterable[int]) -> Iterator[_Job]:
        for file in some:
            rows = order[begins[file] : begins[file + 1]]
            spans = list(zip(table.start[rows].tolist(), table.end[rows].tolist(), strict=True))
            yield _Job(file, table.path(file), data.decoder, spans)

    present = (table.status != Status.MISSING).nonzero().flatten().tolist()
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
    )
    read = 0
    repeats: list[Repeat] = []
    with notes, Progress(*columns, **bar_options()) as progress:
        task = progress.add_task("reading files", total=len(present))
        rest = []
        for job in jobs(present):
            known = notes.find(table, job)
            if known is None:
                rest.append(job.file)
            else:
                take(job.file, known)
                progress.advance(task)
        for job, result in in_processes(look_at, jobs(rest), workers):
            if isinstance(result, Exception):
                result = FileRecord(0, None, None, [], f"{job.path}: {result}", _stamp(job.path))
            take(job.file, result)
            notes.add(table, job, result)
            read += 1
            progress.advance(task)
        if len(listing.splits) > 1 or len(listing.class_names) > 1:
            content = same_content(table.path, sizes, workers, progress)
            repeats = find_repeats(listing, content)
    checked = replace(table, frames=frames, status=status, span=span)
    listing = replace(listing, table=checked)
    write_index(index, listing, source, damaged_too)
    p = data.preprocessing
    return CheckedData(listing, fps, errors, cut, clip_span(p.frames, p.stride), read, repeats)


def look_at(job: _Job) -> FileRecord:
    """Open a file, count its frames, and find its videos in it."""
    stamp = _stamp(job.path)
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


def _has_notes(folder: Path, about: dict[str, str]) -> bool:
    """Whether a folder is that of an earlier check.

    Raises:
        DataError: It is not, and a file that a check would write is there.
    """
    way_out = "give another folder as --output, or remove it"
    begun = False
    try:
        for name in (RECORDS, *REPORT):
            if (folder / name).is_dir():
                raise DataError(f"{folder / name}: is a folder, where a file must go; {way_out}")
        notes = folder / RECORDS
        if notes.exists():
            with notes.open("rb") as file:
                line = file.readline(2**16)
            begun = _is_header(line)
            # a run may have been killed while it wrote the first line
            if not begun and not json.dumps(about).encode().startswith(line):
                raise DataError(f"{notes}: is not of `vidpool data check`; {way_out}")
        for name in () if begun else REPORT:
            if (folder / name).exists():
                raise DataError(
                    f"{folder / name}: is there, but no {RECORDS} of `vidpool data check`, and is "
                    f"not overwritten; {way_out}"
                )
    except OSError as error:
        raise DataError(f"{folder}: cannot be read ({error.strerror})") from None
    return begun


def _is_header(line: bytes) -> bool:
    note = _parsed(line)
    return note is not None and note.keys() == {"root", "decoder"}


def _parsed(line: bytes) -> dict[str, Any] | None:
    """The JSON object of a whole line, if it is one."""
    try:
        note = json.loads(line)
    except (ValueError, RecursionError):
        return None
    return note if line.endswith(b"\n") and isinstance(note, dict) else None


def _is_note(note: dict[str, Any]) -> bool:
    """Whether an object is what :meth:`_Notes.add` writes, and not a damaged line."""

    def number(value: Any) -> bool:
        return type(value) is int and 0 <= value < 2**31

    fps, error, spans = note.get("fps"), note.get("error"), note.get("spans")
    cut_from = note.get("cut_from", "")
    return (
        isinstance(note.get("file"), str)
        and number(note.get("frames"))
        and (fps is None or (isinstance(fps, float) and 0 < fps < math.inf))
        and (cut_from is None or number(cut_from))
        and (error is None or isinstance(error, str))
        and isinstance(spans, list)
        and all(map(number, spans))
        and isinstance(note.get("videos"), list)
        and (error is not None or len(spans) == len(note["videos"]))
        and isinstance(note.get("stamp"), list)
    )


def _same(one: Path, other: Path) -> bool:
    return one.absolute().resolve() == other.absolute().resolve()


class _Notes:
    """What was found, a JSON object a line, the first of which says what it is about."""

    def __init__(self, folder: Path, about: dict[str, str]) -> None:
        self._path = folder / RECORDS
        self._known: dict[str, bytes] = {}  # lines, which take less memory than what is in them
        complete = 0
        try:
            folder.mkdir(parents=True, exist_ok=True)
            if self._path.exists():
                complete = self._read(about)
            self._file = self._path.open("a", encoding="utf-8")
            self._file.truncate(complete)
        except OSError as error:
            raise DataError(f"{self._path}: cannot be written ({error.strerror})") from None
        if not complete:
            self._write(about)

    def __enter__(self) -> "_Notes":
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def find(self, table: VideoTable, job: _Job) -> FileRecord | None:
        """What is known of a file, if it could be read and has not changed since."""
        line = self._known.pop(_below_root(table, job.file), None)
        if line is None:
            return None
        note = json.loads(line)
        stamp = _stamp(job.path)
        if note["videos"] != _named(job.spans) or note["stamp"] != list(stamp):
            return None
        return FileRecord(note["frames"], note["fps"], note["cut_from"], note["spans"], None, stamp)

    def add(self, table: VideoTable, job: _Job, record: FileRecord) -> None:
        """Note what was found in a file."""
        self._write(
            {
                "file": _below_root(table, job.file),
                "frames": record.frames,
                "fps": record.fps,
                "cut_from": record.cut_from,
                "videos": _named(job.spans),
                "spans": record.spans,
                "error": record.error,
                "stamp": record.stamp,
            }
        )

    def _write(self, note: dict[str, Any]) -> None:
        self._file.write(json.dumps(note) + "\n")
        self._file.flush()

    def _read(self, about: dict[str, str]) -> int:
        """Take in the file; return how many bytes of it are whole lines."""
        complete = 0
        with self._path.open("rb") as lines:
            for number, line in enumerate(lines):
                note = _parsed(line)
                if note is None:
                    break  # a run was killed while it wrote
                if number == 0 and note != about:
                    raise DataError(
                        f"{self._path}: is of another data set ({note}); give another folder as "
                        "--output"
                    )
                complete += len(line)
                if number == 0 or not _is_note(note):
                    continue
                if note["error"]:
                    self._known.pop(note["file"], None)
                else:
                    self._known[note["file"]] = line
        return complete


def _below_root(table: VideoTable, file: int) -> str:
    return f"{table.folders[int(table.folder[file])]}/{table.names[file]}"


def _named(spans: list[tuple[float, float]]) -> list[str]:
    """Times as texts: NaN is not equal to itself, nor is it JSON."""
    return [f"{start} {end}" for start, end in spans]


def _stamp(path: str) -> tuple[int, int]:
    try:
        status = os.stat(path)  # noqa: PTH116 (a Path takes longer, and there may be a million)
    except OSError:
        return 0, 0
    return status.st_size, status.st_mtime_ns
