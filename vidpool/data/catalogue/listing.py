"""The listing of a dataset: its classes, its splits, and the videos of a split that can be used."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal, get_args

import torch
from pytorch_lightning.utilities import rank_zero_warn

from vidpool.data.catalogue.table import UNLABELLED, Status, VideoTable
from vidpool.errors import DataError

Split = Literal["train", "val", "test"]
SPLITS: tuple[Split, ...] = get_args(Split)
SUBSTITUTE_SPLIT: dict[Split, Split] = {"val": "test", "test": "val"}

OnBadVideo = Literal["error", "skip", "substitute"]


def choose_split(split: Split, available: Collection[str]) -> Split:
    """Return the split to read: the split itself or, if it is not available, its substitute.

    Validation and test videos stand in for each other.
    """
    return split if split in available else SUBSTITUTE_SPLIT.get(split, split)


def empty_split_message(split: Split) -> str:
    """Return the message for a split without videos; for ``val``, also how to train without it."""
    way_out = "; to train without validation, set limit_val_batches of the Trainer to 0"
    return f"the {split} split has no videos{way_out * (split == 'val')}"


@dataclass(frozen=True, eq=False)
class Listing:
    """All videos of a dataset.

    Attributes:
        class_names: Names of the classes, in the order of their ids.
        table: The videos of all splits, one split after the other.
        splits: For each split, its first row in ``table`` and the row after its last.
    """

    class_names: list[str]
    table: VideoTable
    splits: dict[str, tuple[int, int]]

    def split(self, name: str) -> VideoTable:
        """Return the videos of one split."""
        return self.table[slice(*self.splits[name])]

    def has_unlabelled_test(self) -> bool:
        """Return whether val videos must serve for testing because no test video has a label.

        The test videos need not exist then.
        """
        if not {"val", "test"} <= self.splits.keys():
            return False
        labels = self.split("test").label
        return len(labels) > 0 and bool((labels == UNLABELLED).all())


@dataclass(frozen=True)
class BadVideoPolicy:
    """Decides what happens to listed videos that are known to be missing or unreadable.

    Attributes:
        on_bad_video: ``"error"`` raises an error; any other value leaves the videos out.
        max_bad_share: Largest share of a split's videos that may be left out, in [0, 1].
    """

    on_bad_video: OnBadVideo
    max_bad_share: float


def usable_videos(
    listing: Listing,
    split: Split,
    policy: BadVideoPolicy,
    dataset: str,
    lists: Sequence[Path] = (),
) -> VideoTable:
    """Return the labelled videos of a split, or of its substitute, that are not known to be bad.

    Args:
        listing: The dataset.
        split: The split; see :func:`choose_split` for a split that the dataset does not have.
        policy: What happens to bad videos.
        dataset: Name of the dataset, for errors.
        lists: The files that list the videos, for errors.

    Raises:
        DataError: There are no videos, a video has no label, or bad videos must not be left out.
    """
    own = choose_split(split, listing.splits)
    listed = listing.split(own) if own in listing.splits else None
    if not listed:
        raise DataError(f"{dataset}: {empty_split_message(split)}")
    videos = _without_bad(listed, split, own, policy, lists)
    unlabelled = int((videos.label == UNLABELLED).sum())
    if unlabelled:
        raise DataError(
            f"{dataset}: {unlabelled} of the {len(videos)} {split} videos have no label"
        )
    return videos


def renumber_classes(videos: VideoTable, ids: Sequence[int]) -> tuple[VideoTable, list[int]]:
    """Replace the class ids of labelled videos.

    Args:
        videos: The videos.
        ids: The new id of each class; :data:`~vidpool.data.catalogue.table.UNLABELLED` for a class
            that has none.

    Returns:
        The videos with the new ids, and the old ids of those classes among them that have no new
        id.
    """
    label = torch.tensor(ids, dtype=torch.int32)[videos.label.long()]
    unknown: list[int] = videos.label[label == UNLABELLED].unique().tolist()
    return replace(videos, label=label), unknown


def _without_bad(
    listed: VideoTable, split: Split, own: Split, policy: BadVideoPolicy, lists: Sequence[Path]
) -> VideoTable:
    bad = listed.bad()
    count = int(bad.sum())
    if not count:
        return listed
    first = int(bad.nonzero()[0])
    reason = {Status.MISSING: "no such video", Status.UNREADABLE: "cannot be read"}.get(
        Status(int(listed.status[listed.file[first]])), "ends before its clip begins"
    )
    what = (
        f"{listed[first].path}: {reason}, though it is listed ({', '.join(map(str, lists))}); "
        f"{count} of the {len(listed)} {own} videos are missing or bad"
    )
    if policy.on_bad_video == "error":
        raise DataError(
            f"{what}; set on_bad_video to skip or substitute to do without",
            argument="on_bad_video",
        )
    if count > policy.max_bad_share * len(listed):
        raise DataError(
            f"{what}, more than max_bad_share ({policy.max_bad_share:g}) allows",
            argument="max_bad_share",
        )
    if count == len(listed):
        raise DataError(f"{what}: the {split} split has no video that can be read")
    rank_zero_warn(f"{what} and are left out")
    return listed.select(~bad)
