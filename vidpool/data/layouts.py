"""How the videos of HACS and Kinetics lie on disk, in the forms that people have them in.

A file's name tells which video it is, and which part of it; the folders that it lies in need not be
looked at, and may be called what they like:

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
from collections.abc import Iterator
from pathlib import Path
from typing import Literal, NamedTuple

from rich.progress import Progress, SpinnerColumn, TextColumn

from vidpool.data.annotations import Annotation
from vidpool.data.progress import bar_options
from vidpool.errors import DataError

Layout = Literal["auto", "untrimmed", "trimmed", "trimmed_seconds", "frames_db"]
VIDEO_SUFFIXES = (".avi", ".m4v", ".mkv", ".mov", ".mp4", ".mpeg", ".mpg", ".webm", ".wmv")
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
        in_frames: Whether it is such a folder.
    """

    folder: str
    name: str
    in_frames: bool


def find_videos(root: Path) -> Iterator[Entry]:
    """All video files below a folder, and folders with ``frames.db``, in no order of the system's.

    Symbolic links are followed, each folder is entered once, and whatever begins with a dot is
    passed over. Files are told by their suffix; none of them is opened.

    Raises:
        DataError: A folder cannot be read.
    """
    entered = set()
    waiting = [""]
    columns = (SpinnerColumn(), TextColumn("{task.description} {task.completed:,} videos"))
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
                if entry.name.lower().endswith(VIDEO_SUFFIXES) and not entry.name.startswith(".")
            ]
            is_folder = set(folders)
            videos = [video for video in videos if video.name not in is_folder]
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


class Catalogue:
    """The videos below a folder, to be found by what an annotation says.

    Args:
        root: The folder.
        layout: Which of them count; ``auto`` chooses the form that most have.

    Attributes:
        layout: The layout.
        count: How many videos it has.
        others: How many videos of other layouts were passed over.

    Raises:
        DataError: There is no video of this layout.
    """

    layout: Layout

    def __init__(self, root: Path, layout: Layout) -> None:
        forms: dict[str, dict[str, Entry]] = {}
        found: Counter[str] = Counter()
        for entry in find_videos(root):
            stem = entry.name if entry.in_frames else entry.name.rpartition(".")[0]
            form, key = _form(stem)
            if form is not None:
                form = FRAMES_DB + form if entry.in_frames else form
                forms.setdefault(form, {}).setdefault(key, entry)
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

    @property
    def spans(self) -> bool:
        """Whether a clip is a span of its file."""
        return self.layout == "untrimmed"

    def key(self, clip: Annotation) -> str:
        """What the file of a clip goes by."""
        if self._form == "trimmed_seconds":
            return f"{clip.id}_{int(clip.start):06d}_{int(clip.end):06d}"
        if self._form == "trimmed":
            return f"{clip.id}_{clip.start}_{clip.end}"
        return clip.id

    def get(self, key: str) -> Entry | None:
        """The file of a :meth:`key`, if it is there."""
        return self._entries.get(key)

    def expected(self, key: str, label: str | None) -> tuple[str, str]:
        """Folder and name that a file is likely to have had, were it there."""
        folder = "" if label is None else re.sub(r"[ /]", "_", label)
        if self.layout == "frames_db":
            return folder, key
        return folder, f"{'v_' if self.layout == 'untrimmed' else ''}{key}.mp4"


_LAYOUT_OF: dict[str, Layout] = {
    "untrimmed": "untrimmed",
    "trimmed": "trimmed",
    "trimmed_seconds": "trimmed_seconds",
    f"{FRAMES_DB}untrimmed": "frames_db",
    f"{FRAMES_DB}trimmed_seconds": "frames_db",
    f"{FRAMES_DB}trimmed": "frames_db",
}


def _form(stem: str) -> tuple[str | None, str]:
    """The layout that a name without suffix belongs to, and what the video goes by in it."""
    if _SECONDS.fullmatch(stem):
        return "trimmed_seconds", stem
    if match := _TIMES.fullmatch(stem):
        video, start, end = match.groups()
        return "trimmed", f"{video}_{float(start)}_{float(end)}"
    if match := _WHOLE.fullmatch(stem):
        return "untrimmed", match[1]
    return None, stem
