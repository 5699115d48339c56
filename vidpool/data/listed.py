"""Datamodules of video files that annotation files, folders or an index list."""

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from pytorch_lightning.utilities import rank_zero_warn
from torch import Tensor
from torch.utils.data import DataLoader

from vidpool.data.catalogue.index import fingerprint, read_matching_index
from vidpool.data.catalogue.listing import (
    BadVideoPolicy,
    Listing,
    Split,
    renumber_classes,
    usable_videos,
)
from vidpool.data.catalogue.table import VideoTable
from vidpool.data.datamodule import VideoDataModule
from vidpool.data.dataset import Batch, EvaluationViews, TrainingClips
from vidpool.data.loader import ScheduledLoader
from vidpool.data.schedule import Schedule, ScheduledSampler
from vidpool.errors import DataError
from vidpool.files import expand_path


class ListedDataModule(VideoDataModule):
    """Videos in files below a folder, each listed with its class.

    A subclass lists them (:meth:`read_listing`). Where ``index`` names a file that
    ``vidpool data check`` made, it is read instead: that is faster, and tells how many frames files
    have and which are broken.

    A data set without validation videos is validated on its test videos, one view each; one whose
    test videos are not there or have no labels is tested on its validation videos.

    Args:
        root: The folder that the videos lie in. In this and all other paths, ``~`` and environment
            variables are expanded.
        index: An index file, or none.
        **options: See :class:`vidpool.data.datamodule.VideoDataModule`.

    Raises:
        DataError: There is no folder ``root``.

    Examples:
        >>> from vidpool.data.catalogue.table import LabelledVideo, VideoTable
        >>> from vidpool.data.datasets.example import example_dataset
        >>> class Runs(ListedDataModule):
        ...     def annotation_files(self):
        ...         return []
        ...
        ...     def read_listing(self):
        ...         paths = sorted(self.root.glob("*/run/*.mp4"))
        ...         videos = [LabelledVideo(str(path), n % 2) for n, path in enumerate(paths)]
        ...         return Listing(["even", "odd"], VideoTable.of(videos), {"train": (0, 5)})
        >>> Runs(str(example_dataset())).train_dataset()[1]["label"]
        1
    """

    def __init__(self, root: str, index: str | None = None, **options: Any) -> None:
        super().__init__(**options)
        self.root = expand_path(root)
        self.index = None if index is None else expand_path(index)
        if not self.root.is_dir():
            raise DataError(
                f"{self.root}: no such folder; root must name the folder that holds the videos",
                argument="root",
            )
        self._usable: dict[Split, VideoTable] = {}

    @abstractmethod
    def read_listing(self) -> Listing:
        """List all videos by annotation files and folders; those not on disk are marked.

        Raises:
            DataError: A list or folder is missing or cannot be understood.
        """

    @abstractmethod
    def annotation_files(self) -> list[Path]:
        """Return the files that list the videos."""

    def settings(self) -> dict[str, Any]:
        """Return what else the listing depends on, as JSON values by the names of options."""
        return {}

    def source(self) -> dict[str, Any]:
        """Return what an index of this dataset is made from; other indexes are refused.

        Raises:
            DataError: An annotation file cannot be read.
        """
        return {
            "data set": type(self).__name__,
            **self.settings(),
            "annotation files": {file.name: fingerprint(file) for file in self.annotation_files()},
        }

    @cached_property
    def listing(self) -> Listing:
        """All videos, from the index if there is one.

        Raises:
            DataError: The index, a list or a folder is missing or cannot be understood.
        """
        if self.index is None:
            return self.read_listing()
        return read_matching_index(self.index, str(self.root), self.source())

    @property
    def class_names(self) -> list[str]:
        """Names of the classes, in the order of their ids."""
        return self.trained_classes or self.own_class_names

    @property
    def own_class_names(self) -> list[str]:
        """Names of the classes, in the order of the listing's own ids."""
        return self.listing.class_names

    def use_classes(self, names: Sequence[str] | None) -> None:
        """See :meth:`vidpool.data.datamodule.VideoDataModule.use_classes`."""
        if names is None and self.trained_classes is not None:
            self.__dict__.pop("listing", None)  # which may have been made without training videos
        super().use_classes(names)
        self._usable.clear()

    def videos(self, split: Split) -> VideoTable:
        """Return the videos of a split that are not known to be bad.

        Raises:
            DataError: There are none, or some have no label, or bad ones are not to be done
                without, or some are of a class that a network to be tested does not know.
        """
        if split not in self._usable:
            if split == "test" and self.listing.has_unlabelled_test():
                rank_zero_warn("the test videos have no labels: the val videos serve for testing")
                self._usable[split] = self.videos("val")
            else:
                videos = usable_videos(
                    self.listing,
                    split,
                    BadVideoPolicy(self.on_bad_video, self.max_bad_share),
                    type(self).__name__,
                    [*self.annotation_files(), *filter(None, [self.index])],
                )
                self._usable[split] = self._with_trained_ids(videos)
        return self._usable[split]

    def train_dataset(self) -> TrainingClips:
        """Return the dataset of random, augmented clips, for a DataLoader of your own."""
        return TrainingClips(
            self.videos("train"),
            self.augment,
            self.decoder,
            self.on_bad_video,
            self.fast,
            self.preprocessing.square_pixels,
            self.transform,
            self.preprocessing.shape,
            self.preprocessing,
        )

    def val_dataset(self) -> EvaluationViews:
        """Return the dataset of the central clip and crop of every video."""
        return self._views("val", clips=1, crops=1)

    def test_dataset(self) -> EvaluationViews:
        """Return the dataset of all views of every video."""
        return self._views("test", self.preprocessing.clips, self.preprocessing.crops)

    def train_dataloader(self) -> DataLoader[Batch]:
        """Return the loader of random, augmented clips."""
        dataset = self.train_dataset()
        balanced = self.sampling == "class_balanced"
        labels = torch.as_tensor(self.videos("train").label) if balanced else None
        return self._loader(dataset, self.schedule, shuffle=True, labels=labels)

    def val_dataloader(self) -> DataLoader[Batch]:
        """Return the loader of the central clip and crop of every video."""
        return self._loader(self.val_dataset(), self.eval_schedule, shuffle=False)

    def test_dataloader(self) -> DataLoader[Batch]:
        """Return the loader of all views of every video."""
        return self._loader(self.test_dataset(), self.eval_schedule, shuffle=False)

    def _with_trained_ids(self, videos: VideoTable) -> VideoTable:
        """Return the videos with the class ids of the trained network, if there is one."""
        if self.trained_classes is None:
            return videos
        own = self.listing.class_names
        videos, unknown = renumber_classes(videos, self.class_ids(own))
        if unknown:
            raise self.unknown_classes(self.root, [own[number] for number in unknown])
        return videos

    def _views(self, split: Split, clips: int, crops: int) -> EvaluationViews:
        return EvaluationViews(
            self.videos(split),
            replace(self.preprocessing, clips=clips, crops=crops),
            self.decoder,
            self.on_bad_video,
            self.static,
            self.fast,
        )

    def _loader(
        self,
        dataset: TrainingClips | EvaluationViews,
        schedule: Schedule,
        shuffle: bool,
        labels: Tensor | None = None,
    ) -> ScheduledLoader:
        requests = range(dataset.clips) if isinstance(dataset, EvaluationViews) else dataset
        settings = self._sampler_settings(shuffle)
        sampler = ScheduledSampler(requests, schedule, labels=labels, **settings)
        sampler.set_epoch(self.trainer.current_epoch if self.trainer else 0)
        return ScheduledLoader(dataset, sampler, **self._loader_settings(shuffle))
