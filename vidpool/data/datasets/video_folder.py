"""Custom videos: in class folders, or listed in a CSV file for each split."""

import csv
import hashlib
import math
from collections import Counter
from collections.abc import Iterable, Iterator
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import Any, ClassVar, NamedTuple

from pytorch_lightning.utilities import rank_zero_warn

from vidpool.data.catalogue.listing import SPLITS, Listing
from vidpool.data.catalogue.table import UNLABELLED, Status, TableBuilder
from vidpool.data.datasets.annotations import SPLIT_NAMES, open_text
from vidpool.data.datasets.layouts import walk_videos
from vidpool.data.listed import ListedDataModule
from vidpool.data.registry import register_datamodule
from vidpool.errors import DataError
from vidpool.files import expand_path
from vidpool.video import VIDEO_SUFFIXES

COLUMNS = ("path", "label", "start", "end")


class _Video(NamedTuple):
    folder: str
    name: str
    label: str
    start: float | None
    end: float | None
    place: str  # where it is listed, for messages


@register_datamodule
class VideoFolderDataModule(ListedDataModule):
    """Videos below a folder, by class folders or by CSV files.

    Class folders lie below a folder for each split; videos may lie in folders within them::

        root/train/<class>/…   root/val/<class>/…   root/test/<class>/…

    Where there is a ``train.csv``, the lists count instead, ``train.csv``, ``val.csv`` and
    ``test.csv``, with the columns ``path,label[,start,end]``. Paths are relative to ``root`` and
    may not lead out of it; ``start`` and ``end`` are seconds, and empty where the whole file is
    meant. A header ``path,label`` is optional. It says the order of columns where it is there, and
    further columns are ignored.

    The classes are those of the training videos, sorted; labels that are all whole numbers are
    sorted as numbers. One of the splits val and test may be missing, the other serves for both
    then. Testing a checkpoint needs no training videos (and no ``train.csv``, where there are no
    class folders either): the classes are the checkpoint's.

    Args:
        root: The folder below which the videos lie.
        lists: The folder with the CSV files; by default ``root``.
        **options: See :class:`vidpool.data.listed.ListedDataModule`.

    Raises:
        DataError: There is no folder ``root`` or ``lists``.

    Examples:
        >>> from vidpool.data.datasets.example import example_dataset
        >>> root = str(example_dataset())
        >>> data = VideoFolderDataModule(root, frames=8, crop=32, short_side=36, batch_size=4)
        >>> data.class_names, len(data.train_dataset()), len(data.val_dataset())
        (['jump', 'run'], 6, 4)
        >>> data.num_workers = 0
        >>> [tuple(batch["clip"].shape) for batch in data.train_dataloader()]
        [(4, 3, 8, 32, 32), (2, 3, 8, 32, 32)]
    """

    suffixes: ClassVar[tuple[str, ...]] = VIDEO_SUFFIXES

    def __init__(self, root: str, lists: str | None = None, **options: Any) -> None:
        super().__init__(root=root, **options)
        self.lists = self.root if lists is None else expand_path(lists)
        if not self.lists.is_dir():
            raise DataError(
                f"{self.lists}: no such folder; lists must name the folder with train.csv",
                argument="lists",
            )

    def annotation_files(self) -> list[Path]:
        """Return the CSV files; none if class folders are used."""
        return list(self._lists.values())

    def settings(self) -> dict[str, Any]:
        """Return the number and digest of the videos in class folders, if these are used.

        Raises:
            DataError: A folder cannot be read, or two are of one split.
        """
        return {} if self._lists else {"videos in class folders": self._tree}

    def read_listing(self) -> Listing:
        """List all videos.

        Raises:
            DataError: There is nothing to train with; a list cannot be understood; or a split has a
                class that the training videos do not have. To test a network, whose classes are
                known (:meth:`use_classes`), there must be any video.
        """
        if self._lists:
            videos = {
                split: list(_read_csv(path, self.root, self.suffixes))
                for split, path in self._lists.items()
            }
        else:
            videos = self._in_folders()
        trained = self.trained_classes is not None
        if not (any(videos.values()) if trained else videos.get("train")):
            kind, split = ("test", "test") if trained else ("training", "train")
            raise DataError(
                f"{self.root}: has no {kind} videos; put them into {self.root / split}/<class>,"
                f" or list them in {self.lists / split}.csv with lines path,label"
            )
        # a network that is tested may know more or other classes: ids are matched later, by name
        naming = videos.values() if trained else [videos["train"]]
        names = _in_order({video.label for own in naming for video in own})
        label_of = {name: i for i, name in enumerate(names)}
        builder = TableBuilder(str(self.root))
        files: dict[tuple[str, str], int] = {}
        on_disk: dict[str, set[str]] = {}
        splits = {}
        for split, own in videos.items():
            first = len(builder)
            for video in own:
                label = label_of.get(video.label, UNLABELLED)
                if label == UNLABELLED and (video.label or split != "test"):
                    raise DataError(
                        f"{video.place}: no training video has the class {video.label!r}"
                    )
                at = (video.folder, video.name)
                if at not in files:
                    if video.folder not in on_disk:
                        on_disk[video.folder] = _names_in(self.root / video.folder)
                    there = video.name in on_disk[video.folder]
                    files[at] = builder.add_file(*at, Status.UNKNOWN if there else Status.MISSING)
                builder.add_video(files[at], label, video.start, video.end)
            splits[split] = (first, len(builder))
        return Listing(names, builder.build(), splits)

    @cached_property
    def _lists(self) -> dict[str, Path]:
        lists: dict[str, Path] = {split: self.lists / f"{split}.csv" for split in SPLITS}
        there = {split: path for split, path in lists.items() if path.is_file()}
        if not there and self.lists != self.root:
            raise DataError(f"{lists['train']}: no such list")
        # class folders count before lists that do not say what to train on
        if "train" not in there and self.lists == self.root and self._split_folders:
            return {}
        return there

    @cached_property
    def _split_folders(self) -> dict[str, Path]:
        """Folder of each split."""
        folders: dict[str, Path] = {}
        for path in sorted(self.root.iterdir()):
            split = SPLIT_NAMES.get(path.name.casefold())
            if split is None or not path.is_dir():
                continue
            if split in folders:
                raise DataError(
                    f"{self.root}: both {folders[split].name} and {path.name} could be the "
                    f"{split} split; root must name a folder with one of them",
                    argument="root",
                )
            folders[split] = path
        return folders

    @cached_property
    def _tree(self) -> str:
        """Number and digest of the videos' paths in the class folders."""
        count, digest = 0, hashlib.sha256()
        for split, videos in self._in_folders().items():
            for video in videos:
                path = f"{split}\0{video.folder}/{video.name}\0"
                digest.update(path.encode("utf-8", "surrogateescape"))
            count += len(videos)
        return f"{count} videos, paths with SHA-256 {digest.hexdigest()[:16]}"

    def _in_folders(self) -> dict[str, list[_Video]]:
        videos: dict[str, list[_Video]] = {}
        for split in SPLITS:
            if split not in self._split_folders:
                continue
            folder = self._split_folders[split]
            own, stray = [], 0
            others: Counter[str] = Counter()
            for entry in walk_videos(folder, others, self.suffixes):
                if not entry.folder:
                    stray += 1
                    continue
                label = entry.folder.partition("/")[0]
                below = f"{folder.name}/{entry.folder}"
                own.append(_Video(below, entry.name, label, None, None, str(folder / label)))
            if stray:
                rank_zero_warn(
                    f"{folder}: {stray} videos lie in no class folder and are passed over"
                )
            if others:
                kinds = ", ".join(
                    f"{n} {suffix or 'without suffix'}" for suffix, n in others.most_common(5)
                )
                rank_zero_warn(
                    f"{folder}: {others.total()} files are no videos by their names and are passed "
                    f"over ({kinds})"
                )
            videos[split] = own
        return videos


def _read_csv(path: Path, root: Path, suffixes: tuple[str, ...]) -> Iterator[_Video]:
    """Yield the videos of a CSV file, whose paths are relative to ``root``.

    Raises:
        DataError: It cannot be understood; the message names the line.
    """
    with open_text(path, "surrogateescape") as file:  # as file names are
        rows = csv.reader(file, strict=True)
        at = {name: number for number, name in enumerate(COLUMNS)}
        width = len(COLUMNS)
        first = True
        try:
            for row in rows:
                place = f"{path}, line {rows.line_num}"
                if not any(field.strip() for field in row):
                    continue
                if first:
                    first = False
                    header = [field.strip().casefold() for field in row]
                    if "path" in header and "label" in header:
                        at = _columns(header, place)
                        width = max(width, len(header))
                        continue
                    video = _video(row, at, width, place)
                    if (
                        not video.name.lower().endswith(suffixes)
                        and not (root / video.folder / video.name).exists()
                    ):
                        raise DataError(
                            f"{place}: there is no video {row[0]!r}; is this a header? expected "
                            "path,label[,start,end]"
                        )
                    yield video
                    continue
                yield _video(row, at, width, place)
        except csv.Error as error:
            raise DataError(f"{path}, line {rows.line_num}: is not CSV ({error})") from None


def _columns(header: list[str], place: str) -> dict[str, int]:
    """Return the position of each column in a row."""
    for name in COLUMNS:
        if header.count(name) > 1:
            raise DataError(f"{place}: the header has the column {name} twice")
    return {name: header.index(name) for name in COLUMNS if name in header}


def _video(row: list[str], at: dict[str, int], width: int, place: str) -> _Video:
    fields = {name: row[number] for name, number in at.items() if number < len(row)}
    if width > len(COLUMNS) and len(row) > width:
        raise DataError(f"{place}: has {len(row)} fields, but the header has {width}: {row!r}")
    if not {"path", "label"} <= fields.keys() or len(row) > width:
        raise DataError(
            f"{place}: expected path,label or path,label,start,end, got {row!r} (further columns "
            "need a header in the first line, which names path and label)"
        )
    where = PurePosixPath(fields["path"])
    if where.is_absolute() or ".." in where.parts or not where.name or "\0" in fields["path"]:
        raise DataError(
            f"{place}: {fields['path']!r} must be the path of a file below root", argument="root"
        )
    times = []
    for name in ("start", "end"):
        text = fields.get(name, "").strip()
        try:
            times.append(float(text) if text else None)
        except ValueError:
            raise DataError(f"{place}: {name} is {text!r}, expected seconds") from None
    start, end = times
    if end is not None and start is None:
        start = 0.0
    if start is not None and not 0 <= start < (math.inf if end is None else end):
        raise DataError(f"{place}: a clip cannot last from {start} s to {end} s")
    folder = "" if str(where.parent) == "." else str(where.parent)
    return _Video(folder, where.name, fields["label"].strip(), start, end, place)


def _in_order(labels: Iterable[str]) -> list[str]:
    labels = set(labels) - {""}
    if all(label.isascii() and label.isdigit() for label in labels):
        return sorted(labels, key=lambda label: (int(label), label))
    return sorted(labels)


def _names_in(folder: Path) -> set[str]:
    """Return the names in a folder; none if the folder does not exist.

    Raises:
        DataError: It cannot be read.
    """
    try:
        return {path.name for path in folder.iterdir()} if folder.is_dir() else set()
    except OSError as error:
        raise DataError(f"{folder}: cannot be read ({error.strerror})") from None
