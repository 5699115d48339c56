"""Reading the annotation files of HACS and Kinetics as they are published, and the SRTG authors'.

CSV files are understood by their header, HACS Segments as JSON:

===========================  ======================================================
HACS Clips                   ``classname,youtube_id,subset,start,end,label``
Kinetics                     ``label,youtube_id,time_start,time_end,split[,is_cc]``
Kinetics, test               ``youtube_id,time_start,time_end,split``
the SRTG authors             ``label,id,time_start,time_end,split``
===========================  ======================================================
"""

import csv
import json
import math
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple, TextIO

import rich.progress

from vidpool.data.parallel import bar_options
from vidpool.errors import DataError

SPLIT_NAMES = {
    "train": "train",
    "training": "train",
    "val": "val",
    "validate": "val",
    "validation": "val",
    "test": "test",
    "testing": "test",
}
# what columns are called; of several names in one header the first counts
_NAMES = {
    "label": ("classname", "label"),
    "id": ("youtube_id", "id"),
    "start": ("time_start", "start"),
    "end": ("time_end", "end"),
    "split": ("split", "subset"),
}
_ID = re.compile(r"[A-Za-z0-9_-]{11}")  # nothing in it leads out of a folder
_SHOWN_FROM = 8 * 2**20  # bytes; smaller files are read before a progress bar could be seen


class Annotation(NamedTuple):
    """One annotated clip of a YouTube video.

    Attributes:
        split: ``train``, ``val`` or ``test``.
        label: The class's name; ``None`` where the file does not tell.
        id: The video's, 11 characters.
        start: Seconds.
        end: Seconds, more than ``start``.
    """

    split: str
    label: str | None
    id: str
    start: float
    end: float


def read_annotations(path: Path, split: str | None = None) -> Iterator[Annotation]:
    """Read a CSV file, or JSON where the file's name ends so; HACS's negatives are left out.

    Args:
        path: The file.
        split: The split of all clips where the file has no column that says it.

    Raises:
        DataError: The file is missing or cannot be understood; the message names file and line.
    """
    return _read_segments(path) if path.suffix.lower() == ".json" else _read_csv(path, split)


def _read_csv(path: Path, split: str | None) -> Iterator[Annotation]:
    with open_text(path) as file:
        rows = csv.reader(file, strict=True)
        line = 0
        try:
            header = [name.strip().casefold() for name in next(rows, [])]
            at = _columns(path, header, split)
            id_at, start_at, end_at = (at[name] for name in ("id", "start", "end"))
            label_at, split_at = at.get("label"), at.get("split")
            sign_at = header.index("label") if "classname" in header and "label" in header else None
            for row in rows:
                line = rows.line_num
                if len(row) != len(header):
                    if not row:
                        continue
                    raise ValueError(f"has {len(row)} fields, but the header has {len(header)}")
                if sign_at is not None:
                    sign = row[sign_at]
                    if sign == "-1":  # shows that the class is not to be seen
                        continue
                    if sign != "1":
                        raise ValueError(f"label is {sign!r}, expected 1 or -1")
                label = None if label_at is None else row[label_at].strip()
                where = split if split_at is None else SPLIT_NAMES.get(row[split_at].strip())
                if where is None:
                    raise ValueError(
                        f"{header[split_at or 0]} is {row[split_at or 0]!r}, expected one of "
                        f"{', '.join(SPLIT_NAMES)}"
                    )
                yield _annotation(where, label, row[id_at], row[start_at], row[end_at])
        except ValueError as error:
            if isinstance(error, UnicodeError):
                raise DataError(f"{path}: is not UTF-8 text ({error})") from None
            raise DataError(f"{path}, line {line}: {error}") from None
        except csv.Error as error:
            raise DataError(f"{path}, line {rows.line_num}: is not CSV ({error})") from None


def _columns(path: Path, header: Sequence[str], split: str | None) -> dict[str, int]:
    """Return the position of each column in a row."""
    at = {}
    for column, names in _NAMES.items():
        named = [name for name in names if name in header]
        if named:
            at[column] = header.index(named[0])
    # a label may be missing in a test file alone, whose rows are then looked at
    lacking = [
        column
        for column in _NAMES
        if column not in at
        and not (column == "split" and split)
        and not (column == "label" and split in (None, "test"))
    ]
    if lacking or len(set(header)) != len(header):
        reason = (
            f"no column for {', '.join(lacking)}" if lacking else "a column is there more than once"
        )
        raise DataError(
            f"{path}, line 1: {reason} in the header {','.join(header)[:200]!r}; expected one of "
            "classname,youtube_id,subset,start,end,label (HACS) and "
            "label,youtube_id,time_start,time_end,split (Kinetics)"
        )
    return at


def _annotation(split: str, label: str | None, video: str, start: Any, end: Any) -> Annotation:
    """Check the values of one clip.

    Raises:
        ValueError: A value cannot be; the message names it.
    """
    if label == "" or (label is None and split != "test"):
        raise ValueError(f"a {split} clip has no label")
    if not _ID.fullmatch(video):
        raise ValueError(f"{video!r} is not the id of a YouTube video, 11 letters, digits, - or _")
    try:
        begin, stop = float(start), float(end)
    except (ValueError, TypeError):
        raise ValueError(f"{start!r} to {end!r} are not times in seconds") from None
    if not 0 <= begin < stop < math.inf:
        raise ValueError(f"a clip cannot last from {start} s to {end} s")
    return Annotation(split, label, video, begin, stop)


def _read_segments(path: Path) -> Iterator[Annotation]:
    with open_text(path) as file:
        try:
            content = json.load(file)
        except (ValueError, RecursionError) as error:
            raise DataError(f"{path}: is not JSON ({error})") from None
    expected = (
        'expected {"database": {ID: {"subset": …, "annotations": [{"label": …, "segment": '
        "[START, END]}]}}}"
    )
    database = content.get("database") if isinstance(content, dict) else None
    if not isinstance(database, dict):
        raise DataError(f"{path}: has no database; {expected}")
    for video, entry in database.items():
        try:
            subset = SPLIT_NAMES.get(entry["subset"])
            if subset is None:
                raise ValueError(
                    f"subset is {entry['subset']!r}, expected one of {list(SPLIT_NAMES)}"
                )
            for segment in entry.get("annotations") or ():
                label = segment["label"]
                if not isinstance(label, str):
                    raise ValueError(f"label is {label!r}, expected a name")
                start, end = segment["segment"]
                yield _annotation(subset, label, video, start, end)
        except (KeyError, TypeError, AttributeError) as error:
            reason = f"{type(error).__name__}: {error}"
            raise DataError(f"{path}, video {video!r}: {reason}; {expected}") from None
        except ValueError as error:
            raise DataError(f"{path}, video {video!r}: {error}; {expected}") from None


@contextmanager
def open_text(path: Path, errors: str = "strict") -> Iterator[TextIO]:
    """Open a UTF-8 text for reading, with a progress bar if it is large.

    Args:
        path: The file.
        errors: What becomes of bytes that are not UTF-8, see :func:`open`. Defaults to an error.

    Raises:
        DataError: It cannot be opened or read.
    """
    try:
        large = path.stat().st_size >= _SHOWN_FROM
        with rich.progress.open(
            path,
            "r",
            encoding="utf-8-sig",
            errors=errors,
            newline="",
            description=f"reading {path.name}",
            **bar_options(large),
        ) as file:
            yield file
    except FileNotFoundError:
        raise DataError(f"{path}: no such annotation file") from None
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror})") from None
