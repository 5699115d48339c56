"""The journal of a check: what was found in each file, so that an interrupted check can resume.

A journal is a file of JSON lines. Its first line names the dataset that it belongs to.
"""

import json
import math
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from vidpool.data.catalogue.table import VideoTable
from vidpool.errors import DataError

RECORDS = "files.jsonl"
REPORT = ("problems.csv", "classes.csv", "clips.png")


class CheckJob(NamedTuple):
    """A file to check.

    Attributes:
        file: The file's number in the table.
        path: The file.
        decoder: See :func:`vidpool.video.open_video`.
        spans: Start and end in seconds of each video in the file, NaN for the whole file.
    """

    file: int
    path: str
    decoder: str
    spans: list[tuple[float, float]]


@dataclass(frozen=True)
class FileRecord:
    """The result of checking one file.

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


class Journal:
    """Records of checked files, appended to a file as they come.

    Args:
        folder: Folder of the journal; it is made if need be.
        about: Names the dataset, as the first line of the journal.

    Raises:
        DataError: The journal belongs to another dataset, or cannot be written.
    """

    def __init__(self, folder: Path, about: dict[str, str]) -> None:
        self._path = folder / RECORDS
        self._lines: dict[str, bytes] = {}  # lines, which take less memory than what is in them
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
            self._append(about)

    def __enter__(self) -> "Journal":
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def find(self, table: VideoTable, job: CheckJob) -> FileRecord | None:
        """Return the record of a file that could be read and has not changed since."""
        line = self._lines.pop(_below_root(table, job.file), None)
        if line is None:
            return None
        note = json.loads(line)
        stamp = file_stamp(job.path)
        if note["videos"] != _span_texts(job.spans) or note["stamp"] != list(stamp):
            return None
        return FileRecord(note["frames"], note["fps"], note["cut_from"], note["spans"], None, stamp)

    def add(self, table: VideoTable, job: CheckJob, record: FileRecord) -> None:
        """Append the record of a file."""
        self._append(
            {
                "file": _below_root(table, job.file),
                "frames": record.frames,
                "fps": record.fps,
                "cut_from": record.cut_from,
                "videos": _span_texts(job.spans),
                "spans": record.spans,
                "error": record.error,
                "stamp": record.stamp,
            }
        )

    def _append(self, note: dict[str, Any]) -> None:
        self._file.write(json.dumps(note) + "\n")
        self._file.flush()

    def _read(self, about: dict[str, str]) -> int:
        """Read the journal and return the number of bytes in its complete lines."""
        complete = 0
        with self._path.open("rb") as file:
            for number, line in enumerate(file):
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
                    self._lines.pop(note["file"], None)
                else:
                    self._lines[note["file"]] = line
        return complete


def has_journal(folder: Path, about: dict[str, str]) -> bool:
    """Return whether a folder holds the journal of an earlier check.

    Args:
        folder: The folder.
        about: The first line of the journal that the check would write.

    Raises:
        DataError: The folder holds no journal, but a file that a check would write.
    """
    way_out = "give another folder as --output, or remove it"
    begun = False
    try:
        for name in (RECORDS, *REPORT):
            if (folder / name).is_dir():
                raise DataError(f"{folder / name}: is a folder, where a file must go; {way_out}")
        journal = folder / RECORDS
        if journal.exists():
            with journal.open("rb") as file:
                line = file.readline(2**16)
            begun = _is_header(line)
            # a run may have been killed while it wrote the first line
            if not begun and not json.dumps(about).encode().startswith(line):
                raise DataError(f"{journal}: is not of `vidpool data check`; {way_out}")
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
    """Return the JSON object of a complete line, or None."""
    try:
        note = json.loads(line)
    except (ValueError, RecursionError):
        return None
    return note if line.endswith(b"\n") and isinstance(note, dict) else None


def _is_note(note: dict[str, Any]) -> bool:
    """Return whether an object is one that :meth:`Journal.add` writes, and not a damaged line."""

    def is_count(value: Any) -> bool:
        return type(value) is int and 0 <= value < 2**31

    fps, error, spans = note.get("fps"), note.get("error"), note.get("spans")
    cut_from = note.get("cut_from", "")
    return (
        isinstance(note.get("file"), str)
        and is_count(note.get("frames"))
        and (fps is None or (isinstance(fps, float) and 0 < fps < math.inf))
        and (cut_from is None or is_count(cut_from))
        and (error is None or isinstance(error, str))
        and isinstance(spans, list)
        and all(map(is_count, spans))
        and isinstance(note.get("videos"), list)
        and (error is not None or len(spans) == len(note["videos"]))
        and isinstance(note.get("stamp"), list)
    )


def _below_root(table: VideoTable, file: int) -> str:
    return f"{table.folders[int(table.folder[file])]}/{table.names[file]}"


def _span_texts(spans: list[tuple[float, float]]) -> list[str]:
    """Return times as texts: NaN is not equal to itself, and is not JSON."""
    return [f"{start} {end}" for start, end in spans]


def file_stamp(path: str) -> tuple[int, int]:
    """Return size in bytes and modification time in ns of a file; zeros if it does not exist."""
    try:
        status = os.stat(path)  # noqa: PTH116 (a Path takes longer, and there may be a million)
    except OSError:
        return 0, 0
    return status.st_size, status.st_mtime_ns
