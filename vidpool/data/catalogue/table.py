"""Labelled videos as columns, so that millions of them load at once and workers share them.

A list of a million Python objects takes gigabytes and, since reading an object counts a reference
to it, is soon copied into every loader process. Columns are tensors: forked workers share their
pages, spawned ones their storage.
"""

import math
import os
from array import array
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, fields
from enum import IntEnum
from typing import Any, NamedTuple, overload

import torch
from torch import Tensor

UNLABELLED = -1


class LabelledVideo(NamedTuple):
    """A labelled video: a whole file, or a span of it.

    Attributes:
        path: The file.
        label: Class id; -1 if the dataset does not tell.
        start: Seconds from the file's first frame at which the video begins; ``None`` for a whole
            file.
        end: Seconds at which it ends; ``math.inf`` is the end of the file.
        length: Frames of the whole file, if an index knows them.
    """

    path: str
    label: int
    start: float | None = None
    end: float | None = None
    length: int | None = None


class Status(IntEnum):
    """State of a file, as far as it is known."""

    UNKNOWN = 0
    READABLE = 1
    MISSING = 2
    UNREADABLE = 3


@dataclass(frozen=True)
class Texts:
    """Short texts, one after another.

    Attributes:
        data: uint8 (bytes,), all texts in the encoding of file names.
        ends: int64 (N,), where each ends in ``data``.
    """

    data: Tensor
    ends: Tensor

    def __len__(self) -> int:
        """Return the number of texts."""
        return len(self.ends)

    def __getitem__(self, index: int) -> str:
        """Return one text, by its number from 0."""
        begin = int(self.ends[index - 1]) if index else 0
        return os.fsdecode(self.data[begin : int(self.ends[index])].numpy().tobytes())


@dataclass(frozen=True, eq=False)
class VideoTable(Sequence[LabelledVideo]):
    """F files and the V videos that they hold, in columns.

    Attributes:
        root: The folder that all paths begin with.
        folders: Folders below the root, ``/`` between their parts.
        names: (F,) file names.
        folder: int32 (F,), the folder that each file lies in.
        frames: int32 (F,), number of frames that decode; -1 if unknown.
        status: uint8 (F,), a :class:`Status`.
        file: int32 (V,), the file that each video is in.
        label: int32 (V,), class ids, -1 for none.
        start: float64 (V,), seconds at which the video begins; NaN for a whole file.
        end: float64 (V,), seconds at which it ends.
        span: int32 (V,), number of frames of the video; -1 if unknown.
    """

    root: str
    folders: Texts
    names: Texts
    folder: Tensor
    frames: Tensor
    status: Tensor
    file: Tensor
    label: Tensor
    start: Tensor
    end: Tensor
    span: Tensor

    @classmethod
    def of(cls, videos: Iterable[LabelledVideo]) -> "VideoTable":
        """Make the table of some videos, whose paths may lie anywhere."""
        builder = TableBuilder("")
        for video in videos:
            folder, name = os.path.split(video.path)
            file = builder.add_file(folder, name, frames=video.length)
            builder.add_video(file, video.label, video.start, video.end)
        return builder.build()

    def __len__(self) -> int:
        """Return the number of videos."""
        return len(self.file)

    @overload
    def __getitem__(self, index: int) -> LabelledVideo: ...
    @overload
    def __getitem__(self, index: slice) -> "VideoTable": ...

    def __getitem__(self, index: int | slice) -> "LabelledVideo | VideoTable":
        """Return one video, or the table of a slice of the videos."""
        if isinstance(index, slice):
            return self.select(index)
        if not -len(self) <= index < len(self):
            raise IndexError(f"no video {index} in a table of {len(self)}")
        file = int(self.file[index])
        start, end = float(self.start[index]), float(self.end[index])
        frames = int(self.frames[file])
        return LabelledVideo(
            self.path(file),
            int(self.label[index]),
            None if math.isnan(start) else start,
            None if math.isnan(start) else end,
            frames if frames > 0 else None,
        )

    def __iter__(self) -> Iterator[LabelledVideo]:
        """Iterate over all videos in order."""
        return (self[index] for index in range(len(self)))

    def path(self, file: int) -> str:
        """Return the path of a file, by its number."""
        return os.path.join(  # noqa: PTH118 (a Path takes ten times as long)
            self.root, self.folders[int(self.folder[file])], self.names[file]
        )

    def select(self, which: slice | Tensor) -> "VideoTable":
        """Return the table of some of the videos, with the same files.

        Args:
            which: A slice, numbers, or bool (V,).
        """
        columns = {f.name: getattr(self, f.name) for f in fields(self)}
        for name in VIDEO_COLUMNS:
            columns[name] = columns[name][which]
        return VideoTable(**columns)

    def bad(self) -> Tensor:
        """Return which videos are missing, unreadable or beyond their file's end: bool (V,)."""
        lost = (self.status == Status.MISSING) | (self.status == Status.UNREADABLE)
        return lost[self.file] | (self.span == 0)


FILE_COLUMNS = {"folder": torch.int32, "frames": torch.int32, "status": torch.uint8}
VIDEO_COLUMNS = {
    "file": torch.int32,
    "label": torch.int32,
    "start": torch.float64,
    "end": torch.float64,
    "span": torch.int32,
}
_CODES = {torch.int32: "i", torch.uint8: "B", torch.float64: "d", torch.int64: "q"}


class TableBuilder:
    """Collects files and videos; :meth:`build` makes the table.

    Args:
        root: The folder that all paths begin with.
    """

    def __init__(self, root: str) -> None:
        self.root = root
        self._folders: dict[str, int] = {}
        self._names = _TextsBuilder()
        self._columns: dict[str, array[Any]] = {
            name: array(_CODES[dtype]) for name, dtype in (FILE_COLUMNS | VIDEO_COLUMNS).items()
        }

    def __len__(self) -> int:
        """Return the number of videos that were added."""
        return len(self._columns["file"])

    def add_file(
        self, folder: str, name: str, status: Status = Status.UNKNOWN, frames: int | None = None
    ) -> int:
        """Add a file and return its number; each file is to be added once.

        Args:
            folder: Its folder below the root, ``""`` for the root itself.
            name: Its name.
            status: What is known of it.
            frames: How many frames it has, where that is known.
        """
        columns = self._columns
        columns["folder"].append(self._folders.setdefault(folder, len(self._folders)))
        columns["frames"].append(-1 if frames is None else frames)
        columns["status"].append(status)
        self._names.add(name)
        return len(columns["folder"]) - 1

    def add_video(
        self, file: int, label: int, start: float | None = None, end: float | None = None
    ) -> None:
        """Add a video: a file of :meth:`add_file`, or the span of it from ``start`` to ``end``."""
        columns = self._columns
        columns["file"].append(file)
        columns["label"].append(label)
        columns["start"].append(math.nan if start is None else start)
        columns["end"].append(math.nan if start is None else math.inf if end is None else end)
        columns["span"].append(-1)

    def build(self) -> VideoTable:
        """Return the table; the builder must not be used any more."""
        folders = _TextsBuilder()
        for folder in self._folders:
            folders.add(folder)
        columns = {name: _tensor(column) for name, column in self._columns.items()}
        return VideoTable(self.root, folders.build(), self._names.build(), **columns)


class _TextsBuilder:
    def __init__(self) -> None:
        self._data = bytearray()
        self._ends = array("q")

    def add(self, text: str) -> None:
        self._data += os.fsencode(text)
        self._ends.append(len(self._data))

    def build(self) -> Texts:
        return Texts(_tensor(self._data), _tensor(self._ends))


def _tensor(buffer: "array[int] | array[float] | bytearray") -> Tensor:
    dtypes = {code: dtype for dtype, code in _CODES.items()}
    dtype = torch.uint8 if isinstance(buffer, bytearray) else dtypes[buffer.typecode]
    if not buffer:
        return torch.empty(0, dtype=dtype)
    return torch.frombuffer(buffer, dtype=dtype)
