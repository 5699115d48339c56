"""HACS and Kinetics-700: annotated clips of YouTube videos, in any file layout."""

from abc import abstractmethod
from collections.abc import Iterable, Iterator
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from pytorch_lightning.utilities import rank_zero_info, rank_zero_warn

from vidpool.data.catalogue.listing import SPLITS, Listing
from vidpool.data.catalogue.table import UNLABELLED, Status, TableBuilder
from vidpool.data.datasets.annotations import SPLIT_NAMES, Annotation, read_annotations
from vidpool.data.datasets.layouts import Entry, Layout, VideoLookup, of_class
from vidpool.data.listed import ListedDataModule
from vidpool.data.registry import register_datamodule
from vidpool.errors import DataError
from vidpool.files import expand_path

LabelOrder = Literal["sorted", "first_appearance"]


class AnnotatedDataModule(ListedDataModule):
    """Annotated clips of YouTube videos, whose files are found by name.

    Class ids count the sorted labels of the annotation file, whatever folders are called.

    Args:
        root: The folder below which the videos lie, in whatever folders.
        annotations: The annotation file; of Kinetics also the folder with a file for each split.
        layout: The form of the files' names, see :mod:`vidpool.data.datasets.layouts`; ``auto``
            finds out and reports what it found.
        label_order: ``sorted``, or ``first_appearance`` in the annotation file, as checkpoints of
            the SRTG authors have it.
        **options: See :class:`vidpool.data.listed.ListedDataModule`.

    Raises:
        DataError: There is no folder ``root``.
    """

    def __init__(
        self,
        root: str,
        annotations: str,
        layout: Layout = "auto",
        label_order: LabelOrder = "sorted",
        **options: Any,
    ) -> None:
        super().__init__(root=root, **options)
        self.annotations = expand_path(annotations)
        self.layout = layout
        self.label_order = label_order

    @abstractmethod
    def read_annotations(self) -> Iterator[Annotation]:
        """Yield the clips of all splits; training clips come first, or in the order of the file.

        Raises:
            DataError: An annotation file is missing or cannot be understood.
        """

    def settings(self) -> dict[str, Any]:
        """Return what the listing depends on besides the annotation files."""
        return {"label_order": self.label_order, "layout": self.layout}

    def read_listing(self) -> Listing:
        """List all clips, and which file each is in.

        Raises:
            DataError: An annotation file cannot be understood, or no video is found.
        """
        lookup = VideoLookup(self.root, self.layout)
        rank_zero_info(
            f"{self.root}: {lookup.count:,} videos in the layout {lookup.layout}"
            + (f"; {lookup.others:,} of another form are passed over" * bool(lookup.others))
        )
        listing, repeated = list_clips(
            str(self.root), self.read_annotations(), lookup, self.label_order
        )
        if not listing.class_names:
            raise DataError(f"{self.annotations}: lists no labelled clip")
        if repeated:
            rank_zero_warn(
                f"{self.root}: {repeated} clips share their file with another, since its name does "
                "not tell them apart; each file is taken once"
            )
        return listing


@register_datamodule
class HACSDataModule(AnnotatedDataModule):
    """HACS by its annotation file, in any of the layouts that it is found in.

    ``annotations`` names ``HACS_clips_v1.1.1.csv``, ``HACS_segments_v1.1.1.json``, or the SRTG
    authors' CSV. Negative clips, which show that the class is not to be seen, are left out. In the
    layout ``untrimmed`` a clip is read out of the whole video by its times.

    The arguments are those of :class:`AnnotatedDataModule`.

    Examples:
        >>> from vidpool.data.datasets.example import example_dataset
        >>> root = example_dataset("hacs")
        >>> size = {"frames": 8, "crop": 32, "short_side": 36, "num_workers": 0}
        >>> data = HACSDataModule(str(root), str(root / "HACS.csv"), **size)
        >>> data.class_names, len(data.videos("train")), len(data.videos("val"))
        (['jump', 'run'], 6, 4)
    """

    def annotation_files(self) -> list[Path]:
        """Return the one annotation file."""
        return [self.annotations]

    def read_annotations(self) -> Iterator[Annotation]:
        """Yield the positive clips of all splits.

        Raises:
            DataError: The annotation file is missing or cannot be understood.
        """
        return read_annotations(self.annotations)


@register_datamodule
class Kinetics700DataModule(AnnotatedDataModule):
    """Kinetics-700 by its annotation files, in any of the layouts that it is found in.

    The releases of 2019 and 2020 differ in their annotation files alone: clips that the files do
    not list are not read, though they may lie in the same folders. The test videos have no labels;
    testing is on the validation videos then.

    Args:
        root: The folder below which the videos lie, in whatever folders.
        annotations: The folder with ``train.csv``, ``val.csv`` (or ``validate.csv``) and perhaps
            ``test.csv``, whose names may have anything before that word
            (``kinetics700_2020_train.csv``); or one CSV file whose column ``split`` tells.
        **options: See :class:`AnnotatedDataModule`.

    Examples:
        >>> from vidpool.data.datasets.example import example_dataset
        >>> root = str(example_dataset("kinetics"))
        >>> size = {"frames": 8, "crop": 32, "short_side": 36, "num_workers": 0}
        >>> data = Kinetics700DataModule(root, annotations=root, **size)
        >>> data.class_names, len(data.videos("train")), len(data.videos("val"))
        (['jump', 'run'], 6, 4)
    """

    def __init__(self, root: str, annotations: str, **options: Any) -> None:
        super().__init__(root=root, annotations=annotations, **options)

    def annotation_files(self) -> list[Path]:
        """Return the file of each split that has one, or the one file of all splits."""
        return list(dict.fromkeys(self._files.values()))

    def read_annotations(self) -> Iterator[Annotation]:
        """Yield the clips of all splits, training clips first.

        Raises:
            DataError: A file cannot be understood, or a label is not among those for training
                (unless a network is tested, whose classes are known).
        """
        if None in self._files:
            yield from read_annotations(self._files[None])
            return
        if "train" not in self._files and self.trained_classes is None:
            raise DataError(
                f"{self.annotations}: holds no train.csv, whose labels say the class ids (a CSV "
                "file of another name may be given itself, if its column split tells the splits)"
            )
        labels: set[str | None] = set()
        for split, path in self._files.items():
            for clip in read_annotations(path, split):
                if split == "train":
                    labels.add(clip.label)
                elif (
                    self.trained_classes is None
                    and clip.label is not None
                    and clip.label not in labels
                ):
                    raise DataError(
                        f"{path}: the label {clip.label!r} is not among those of "
                        f"{self._files['train']}"
                    )
                yield clip

    @cached_property
    def _files(self) -> dict[str | None, Path]:
        """Return the annotation file by split; the split is ``None`` if one file has all."""
        folder = self.annotations
        if not folder.is_dir():
            return {None: folder}
        found: dict[str | None, Path] = {}
        for split in SPLITS:
            endings = tuple(name for name, meant in SPLIT_NAMES.items() if meant == split)
            paths = sorted(
                path
                for path in folder.iterdir()
                if path.suffix.lower() == ".csv"
                and path.stem.lower().endswith(endings)
                and not path.name.startswith(".")
            )
            if len(paths) > 1:
                raise DataError(
                    f"{folder}: both {paths[0].name} and {paths[1].name} could be the list of the "
                    f"{split} split; annotations must name a folder with one of them",
                    argument="annotations",
                )
            if paths:
                found[split] = paths[0]
        if not found:
            raise DataError(
                f"{folder}: holds no train.csv, val.csv or test.csv (a CSV file of another name "
                "may be given itself, if its column split tells the splits)"
            )
        return found


def list_clips(
    root: str, clips: Iterable[Annotation], lookup: VideoLookup, label_order: LabelOrder
) -> tuple[Listing, int]:
    """Find the file of each clip.

    Args:
        root: The folder that they lie in.
        clips: Of all splits.
        lookup: The files that there are.
        label_order: See :class:`AnnotatedDataModule`.

    Returns:
        The listing, and how many clips were left out because others have the same file and label:
        times may be cut to whole seconds.
    """
    builder = TableBuilder(root)
    splits = bytearray()
    label_ids: dict[str, int] = {}
    files: dict[str | Entry, int] = {}
    unclear = set()
    for clip in clips:
        name: str | Entry
        name = key = lookup.key(clip)
        entry = None
        # files of one name in several folders may be of different clips
        if several := lookup.several(key):
            entry = of_class(several, clip.label)
            if entry is None:
                unclear.add(key)
                entry = several[0]
            name = entry
        file = files.get(name)
        if file is None:
            entry = entry or lookup.get(key)
            if entry is None:
                where = lookup.expected(key, clip.label)
                file = builder.add_file(*where, Status.MISSING)
            else:
                file = builder.add_file(entry.folder, entry.name)
            files[name] = file
        label = UNLABELLED
        if clip.label is not None:
            label = label_ids.setdefault(clip.label, len(label_ids))
        if lookup.spans:
            builder.add_video(file, label, clip.start, clip.end)
        else:
            builder.add_video(file, label)
        splits.append(SPLITS.index(clip.split))
    if unclear:
        rank_zero_warn(
            f"{root}: {len(unclear)} names such as {min(unclear)} are those of several files, none "
            "of which lies in a folder of the clip's class; the first is taken"
        )
    table = builder.build()
    split_of = torch.tensor(splits, dtype=torch.uint8)
    repeated = 0
    if not lookup.spans:
        key_of = (table.file.long() * 2**31 + table.label).numpy()
        _, first = np.unique(key_of, return_index=True)
        repeated = len(table) - len(first)
        kept = torch.from_numpy(np.sort(first))
        table, split_of = table.select(kept), split_of[kept]
    names = list(label_ids)
    if label_order == "sorted":
        names.sort()
        rank = {name: i for i, name in enumerate(names)}
        new = torch.tensor([*(rank[name] for name in label_ids), UNLABELLED], dtype=torch.int32)
        table.label.copy_(new[table.label])  # -1, no label, is the last
    sizes = split_of.bincount(minlength=len(SPLITS)).cumsum(0).tolist()
    ranges = zip(SPLITS, [0, *sizes], sizes, strict=False)
    table = table.select(split_of.argsort(stable=True))
    return Listing(
        names, table, {s: (begin, end) for s, begin, end in ranges if end > begin}
    ), repeated
