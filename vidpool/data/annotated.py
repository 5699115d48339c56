"""What HACS and Kinetics share: clips of YouTube videos, by annotation files, in any layout."""

from abc import abstractmethod
from collections.abc import Iterator
from typing import Any, Literal

import numpy as np
import torch
from pytorch_lightning.utilities import rank_zero_info, rank_zero_warn
from torch import Tensor

from vidpool.data.annotations import Annotation
from vidpool.data.index import Listing
from vidpool.data.layouts import Catalogue, Layout
from vidpool.data.listed import ListedDataModule
from vidpool.data.table import UNLABELLED, Status, TableBuilder, VideoTable
from vidpool.errors import DataError

LabelOrder = Literal["sorted", "first_appearance"]
SPLITS = ("train", "val", "test")


class AnnotatedDataModule(ListedDataModule):
    """Clips of YouTube videos as annotation files list them; their files are found by name.

    Class ids count the sorted labels of the annotation file, whatever folders are called.

    Args:
        root: The folder below which the videos lie, in whatever folders.
        annotations: The annotation files.
        layout: The form of the files' names, see :mod:`vidpool.data.layouts`; ``auto`` finds out
            and says what it found.
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
        self.annotations = annotations
        self.layout = layout
        self.label_order = label_order

    @abstractmethod
    def read_annotations(self) -> Iterator[Annotation]:
        """The clips of all splits; those for training come first, or at their place in the file.

        Raises:
            DataError: An annotation file is missing or cannot be understood.
        """

    def settings(self) -> dict[str, Any]:
        """What the listing depends on beside the annotation files."""
        return {"label_order": self.label_order, "layout": self.layout}

    def read_listing(self) -> Listing:
        """List all clips, and which file each is in.

        Raises:
            DataError: An annotation file cannot be understood, or no video is found.
        """
        catalogue = Catalogue(self.root, self.layout)
        rank_zero_info(
            f"{self.root}: {catalogue.count:,} videos in the layout {catalogue.layout}"
            + (f"; {catalogue.others:,} of another form are passed over" * bool(catalogue.others))
        )
        builder = TableBuilder(str(self.root))
        splits = bytearray()
        label_ids: dict[str, int] = {}
        files: dict[str, int] = {}
        for clip in self.read_annotations():
            key = catalogue.key(clip)
            file = files.get(key)
            if file is None:
                entry = catalogue.get(key)
                if entry is None:
                    where = catalogue.expected(key, clip.label)
                    file = builder.add_file(*where, Status.MISSING)
                else:
                    file = builder.add_file(entry.folder, entry.name)
                files[key] = file
            label = UNLABELLED
            if clip.label is not None:
                label = label_ids.setdefault(clip.label, len(label_ids))
            if catalogue.spans:
                builder.add_video(file, label, clip.start, clip.end)
            else:
                builder.add_video(file, label)
            splits.append(SPLITS.index(clip.split))
        if not label_ids:
            raise DataError(f"{self.annotations}: lists no labelled clip")
        table = builder.build()
        split_of = torch.frombuffer(splits, dtype=torch.uint8)
        if not catalogue.spans:
            table, split_of = self._once(table, split_of)
        names = list(label_ids)
        if self.label_order == "sorted":
            names.sort()
            rank = torch.tensor([names.index(name) for name in label_ids] + [UNLABELLED])
            table.label.copy_(rank[table.label.long()])  # the last one is that of no label
        order = split_of.argsort(stable=True)
        sizes = split_of.bincount(minlength=len(SPLITS)).cumsum(0).tolist()
        ranges = zip(SPLITS, [0, *sizes], sizes, strict=False)
        return Listing(
            names,
            table.select(order),
            {split: (begin, end) for split, begin, end in ranges if end > begin},
        )

    def _once(self, table: VideoTable, split_of: Tensor) -> tuple[VideoTable, Tensor]:
        """Clips whose file and label are the same only once: times are cut to whole seconds."""
        key = (table.file.long() * 2**31 + table.label).numpy()
        _, first = np.unique(key, return_index=True)
        more = len(key) - len(first)
        if more:
            rank_zero_warn(
                f"{self.root}: {more} of {len(key)} clips share their file with another, since "
                "its name does not tell them apart; each file is taken once"
            )
        kept = torch.from_numpy(np.sort(first))
        return table.select(kept), split_of[kept]
