"""The base of HACS and Kinetics: annotated clips of YouTube videos, in any file layout."""

from abc import abstractmethod
from collections.abc import Iterable, Iterator
from typing import Any, Literal

import numpy as np
import torch
from pytorch_lightning.utilities import rank_zero_info, rank_zero_warn

from vidpool.data.catalogue.listing import SPLITS, Listing
from vidpool.data.catalogue.table import UNLABELLED, Status, TableBuilder
from vidpool.data.datasets.annotations import Annotation
from vidpool.data.datasets.layouts import Entry, Layout, VideoLookup, of_class
from vidpool.data.listed import ListedDataModule
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
