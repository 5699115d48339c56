"""File layouts of HACS and Kinetics, and the search for video files.

A file's name tells the video, and the part of it. Folders may have any name:

===================  ===========================================  ============================
layout               files                                        a clip is
===================  ===========================================  ============================
``untrimmed``        ``v_<id>.mp4`` or ``<id>.mp4``               a span of the file
``trimmed``          ``<id>_40.5_42.5.mp4``                       the file
``trimmed_seconds``  ``<id>_000040_000042.mp4``, whole seconds    the file
``frames_db``        ``<id>[_000040_000042]/frames.db``           all frames
===================  ===========================================  ============================
"""

import os
import re
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path, PurePosixPath
from typing import Literal, NamedTuple

from rich.progress import Progress, SpinnerColumn, TextColumn

from vidpool.data.datasets.annotations import Annotation
from vidpool.data.parallel import bar_options
from vidpool.errors import DataError
from vidpool.video import VIDEO_SUFFIXES

Layout = Literal["auto", "untrimmed", "trimmed", "trimmed_seconds", "frames_db"]
FRAMES_DB = "frames.db"

# ids hold `_` and `-`: they are told by their length
_WHOLE = re.compile(r"(?:v_)?(.{11})")
_SECONDS = re.compile(r".{11}_\d{6}_\d{6}")
_TIMES = re.compile(r"(.{11})_(\d+(?:\.\d+)?)_(\d+(?:\.\d+)?)")


class Entry(NamedTuple):
    """A video on disk.

    Attributes:
        folder: Where it lies below the root, ``/`` between the parts; ``""`` for the root itself.
        name: The file's name, or that of the folder with ``frames.db``.
        in_frames: True for such a folder.
    """

    folder: str
    name: str
    in_frames: bool


def prepared_name(name: str) -> str:
    """Return the path of a prepared video, given the path of the original."""
    return str(PurePosixPath(name).with_suffix(".mp4"))


def walk_videos(
    root: Path, others: Counter[str] | None = None, suffixes: tuple[str, ...] = VIDEO_SUFFIXES
) -> Iterator[Entry]:
    """Yield all video files below a folder, and folders with ``frames.db``, sorted in each folder.

    Symbolic links are followed, each folder is entered once, and names that begin with a dot are
    skipped. Files are recognized by their suffix; none of them is opened.

    Args:
        root: The folder.
        others: Where files that are no videos are counted, by suffix.
        suffixes: What a video's name ends in, in lower case.

    Raises:
        DataError: A folder cannot be read.
    """
    entered = set()
    waiting = [""]
    columns = (SpinnerColumn(), TextColumn("{task.description} {task.completed:,} files"))
    with Progress(*columns, **bar_options()) as progress:
        task = progress.add_task(f"looking through {root}", total=None)
        while waiting:
            folder = waiting.pop()
            try:
                status = (root / folder).stat()
                if (status.st_dev, status.st_ino) in entered:
                    continue
                entered.add((status.st_dev, status.st_ino))
                with os.scandir(root / folder) as listing:
                    entries = sorted(listing, key=lambda entry: entry.name)
                folders = [e.name for e in entries if not e.name.startswith(".") and e.is_dir()]
            except OSError as error:
                raise DataError(f"{root / folder}: cannot be read ({error.strerror})") from None
            if folder and any(entry.name == FRAMES_DB for entry in entries):
                parent, _, name = folder.rpartition("/")
                yield Entry(parent, name, in_frames=True)
                continue
            videos = [
                Entry(folder, entry.name, in_frames=False)
                for entry in entries
                if entry.name.lower().endswith(suffixes) and not entry.name.startswith(".")
            ]
            is_folder = set(folders)
            videos = [video for video in videos if video.name not in is_folder]
            if others is not None:
                is_video = {video.name for video in videos}
                others.update(
                    Path(entry.name).suffix.lower()
                    for entry in entries
                    if not entry.name.startswith(".") and entry.name not in is_video | is_folder
                )
            below = []
            for name in folders:
                # a look into each of half a million folders would take its time
                if _SECONDS.fullmatch(name):
                    videos.append(Entry(folder, name, in_frames=True))
                else:
                    below.append(f"{folder}/{name}" if folder else name)
            waiting += reversed(below)
            progress.advance(task, len(videos))
            yield from videos


class VideoLookup:
    """Finds the video file of an annotated clip among the files below a folder.

    Args:
        root: The folder.
        layout: Which of them count; ``auto`` chooses the form that most have.

    Attributes:
        layout: The layout.
        count: Number of videos in this layout.
        others: Number of videos of other layouts, which are skipped.

    Raises:
        DataError: There is no video of this layout.
    """

    layout: Layout

    def __init__(self, root: Path, layout: Layout) -> None:
        forms: dict[str, dict[str, Entry]] = {}
        more: dict[str, dict[str, list[Entry]]] = {}
        found: Counter[str] = Counter()
        for entry in walk_videos(root):
            stem = entry.name if entry.in_frames else entry.name.rpartition(".")[0]
            form, key = _form(stem)
            if form is not None:
                form = FRAMES_DB + form if entry.in_frames else form
                first = forms.setdefault(form, {}).setdefault(key, entry)
                if first is not entry:
                    more.setdefault(form, {}).setdefault(key, [first]).append(entry)
            found[form or "other names"] += 1
        if layout == "auto":
            chosen = max(forms, key=lambda form: len(forms[form]), default=None)
        elif layout == "frames_db":
            frames = [form for form in forms if form.startswith(FRAMES_DB)]
            chosen = max(frames, key=lambda form: len(forms[form]), default=None)
        else:
            chosen = layout if layout in forms else None
        if chosen is None:
            names = ", ".join(f"{count} {_LAYOUT_OF.get(f, f)}" for f, count in found.items())
            raise DataError(
                f"{root}: holds no video in the layout {layout}; it must be one of v_<id>.mp4, "
                "<id>_40.5_42.5.mp4, <id>_000040_000042.mp4 and <id>_000040_000042/frames.db, in "
                f"any folders (found: {names or 'no video'})"
            )
        self.layout = _LAYOUT_OF[chosen]
        self.count = found[chosen]
        self.others = found.total() - self.count
        self._form = chosen.removeprefix(FRAMES_DB)
        self._entries = forms[chosen]
        self._more = more.get(chosen, {})

    @property
    def spans(self) -> bool:
        """True if a clip is a span of its file."""
        return self.layout == "untrimmed"

    def key(self, clip: Annotation) -> str:
        """Return the key of a clip's file: the video's id, and the times if the name holds them."""
        if self._form == "trimmed_seconds":
            return f"{clip.id}_{int(clip.start):06d}_{int(clip.end):06d}"
        if self._form == "trimmed":
            return f"{clip.id}_{clip.start}_{clip.end}"
        return clip.id

    def get(self, key: str) -> Entry | None:
        """Return the file of a :meth:`key`, the first of several; None if there is no file."""
        return self._entries.get(key)

    def several(self, key: str) -> list[Entry]:
        """Return all files of a :meth:`key` if there are several, or else an empty list."""
        return self._more.get(key, [])

    def expected(self, key: str, label: str | None) -> tuple[str, str]:
        """Return the folder and the name that a missing file is likely to have."""
        folder = "" if label is None else _folder_of(label)
        if self.layout == "frames_db":
            return folder, key
        return folder, f"{'v_' if self.layout == 'untrimmed' else ''}{key}.mp4"


def of_class(entries: Iterable[Entry], label: str | None) -> Entry | None:
    """Return the first of some files that lies in a folder named after a class, or None."""
    if label is None:
        return None
    wanted = _folder_of(label).casefold()
    for entry in entries:
        if wanted in (_folder_of(part).casefold() for part in entry.folder.split("/")):
            return entry
    return None


def _folder_of(label: str) -> str:
    return re.sub(r"[ /]", "_", label)


_LAYOUT_OF: dict[str, Layout] = {
    "untrimmed": "untrimmed",
    "trimmed": "trimmed",
    "trimmed_seconds": "trimmed_seconds",
    f"{FRAMES_DB}untrimmed": "frames_db",
    f"{FRAMES_DB}trimmed_seconds": "frames_db",
    f"{FRAMES_DB}trimmed": "frames_db",
}


def _form(stem: str) -> tuple[str | None, str]:
    """Return the layout of a file name without suffix, and the key of its video."""
    if _SECONDS.fullmatch(stem):
        return "trimmed_seconds", stem
    if match := _TIMES.fullmatch(stem):
        video, start, end = match.groups()
        return "trimmed", f"{video}_{float(start)}_{float(end)}"
    if match := _WHOLE.fullmatch(stem):
        return "untrimmed", match[1]
    return None, stem
