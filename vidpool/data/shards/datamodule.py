"""A datamodule whose videos lie in shards, with a loader that resumes in the middle of an epoch."""

import os
import warnings
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from torch.utils.data import DataLoader

from vidpool.data.catalogue.listing import OnBadVideo, Split, choose_split, empty_split_message
from vidpool.data.catalogue.table import UNLABELLED, LabelledVideo
from vidpool.data.datamodule import VideoDataModule
from vidpool.data.dataset import Batch, EvaluationViews, TrainingClips
from vidpool.data.loader import ignore_signals
from vidpool.data.schedule import ClipRequest, ScheduledSampler
from vidpool.data.shards.reader import (
    ReadClip,
    Shard,
    ShardClips,
    read_manifest,
    require_webdataset,
)
from vidpool.data.transforms.augmentation import Augmentation
from vidpool.data.views import Preprocessing
from vidpool.errors import ConfigError, DataError
from vidpool.files import expand_path


class ShardLoader:
    """A loader over :class:`ShardClips` that Lightning can resume in the middle of an epoch.

    Args:
        dataset: The clips to load.
        batches_done: As for :class:`vidpool.data.loader.ScheduledLoader`.
        **options: Of PyTorch's DataLoader.
    """

    def __init__(
        self,
        dataset: ShardClips,
        batches_done: Callable[[], int] | None = None,
        **options: Any,
    ) -> None:
        self.dataset = dataset
        # Lightning calls `loader.sampler.set_epoch`, and a DataLoader of an iterable dataset has no
        # sampler of its own
        self.sampler = self
        self._loader: DataLoader[Batch] = DataLoader(dataset, batch_size=None, **options)
        self._batches_done = batches_done
        self._epoch = 0
        self._made = 0
        self._resumed: dict[str, int] = {}

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch of the next iteration."""
        self._epoch = epoch

    @property
    def scheduled(self) -> ScheduledSampler:
        """Sampler of the current epoch."""
        self.dataset.scheduled.set_epoch(self._epoch)
        return self.dataset.scheduled

    def __len__(self) -> int:
        """Return the number of this rank's batches in the epoch."""
        self.dataset.begin(self._epoch, 0)
        return len(self.dataset.steps())

    def __iter__(self) -> Iterator[Batch]:
        """Iterate over the batches of the epoch, without those made before the run was resumed.

        Raises:
            ConfigError: They were made by another number of processes, which share clips otherwise.
        """
        state, self._resumed = self._resumed, {}
        # a checkpoint from the end of an epoch says nothing of the next one
        self._made = state["made"] if state.get("epoch") == self._epoch else 0
        if self._made and max(1, state["workers"]) != max(1, self._loader.num_workers):
            raise ConfigError(
                f"data.num_workers was {state['workers']} and is {self._loader.num_workers}: "
                "within an epoch, shards can be gone on with by the same number only"
            )
        self.dataset.begin(self._epoch, self._made)
        for batch in self._loader:
            self._made += 1
            yield batch

    def state_dict(self) -> dict[str, int]:
        """Return the epoch, its batches that are done, and the number of worker processes."""
        made = self._made if self._batches_done is None else self._batches_done()
        return {"epoch": self._epoch, "made": made, "workers": self._loader.num_workers}

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Skip the batches that are done, if the same epoch is resumed."""
        self._resumed = state


class ShardDataModule(VideoDataModule):
    """Videos in the shards that ``vidpool data shard`` makes, read one after another.

    Args:
        shards: The folder with ``shards.json``.
        shuffle_buffer: From how many clips each loader process draws in training.
        **options: See :class:`vidpool.data.datamodule.VideoDataModule`.

    Raises:
        ConfigError: An option cannot work, or webdataset is missing.
        DataError: There are no complete shards.
    """

    def __init__(self, shards: str, shuffle_buffer: int = 100, **options: Any) -> None:
        super().__init__(**options)
        require_webdataset()
        if self.sampling != "uniform":
            raise ConfigError(
                f"sampling {self.sampling} needs videos in any order, and shards are read from one "
                "end to the other: train on video files, or with sampling uniform"
            )
        if shuffle_buffer < 1:
            raise ConfigError(f"shuffle_buffer must be at least 1, got {shuffle_buffer}")
        self.folder = expand_path(shards)
        self.shuffle_buffer = shuffle_buffer
        self.manifest = read_manifest(self.folder)

    @property
    def class_names(self) -> list[str]:
        """Names of the classes, in the order of their ids."""
        names: list[str] = self.trained_classes or self.manifest["class_names"]
        return names

    def train_dataloader(self) -> ShardLoader:
        """Return the loader of random, augmented clips."""
        read = partial(
            _training_clip,
            self.augment,
            self.decoder,
            self.fast,
            self.preprocessing.square_pixels,
        )
        return self._loader("train", 1, read, shuffle=True)

    def val_dataloader(self) -> ShardLoader:
        """Return the loader of the central clip and crop of every video."""
        return self._evaluation("val", clips=1, crops=1)

    def test_dataloader(self) -> ShardLoader:
        """Return the loader of all views of every video."""
        return self._evaluation("test", self.preprocessing.clips, self.preprocessing.crops)

    def _evaluation(self, split: Split, clips: int, crops: int) -> ShardLoader:
        preprocessing = replace(self.preprocessing, clips=clips, crops=crops)
        own = self.manifest["class_names"]
        ids = self.class_ids(own)
        read = partial(
            _evaluation_clip,
            preprocessing,
            self.decoder,
            self.on_bad_video,
            self.static,
            self.fast,
            ids,
            self.unknown_classes(
                self.folder, [name for name, id in zip(own, ids, strict=True) if id == UNLABELLED]
            ),
        )
        return self._loader(split, clips, read, shuffle=False)

    def _loader(self, split: Split, clips: int, read: ReadClip, shuffle: bool) -> ShardLoader:
        there = self.manifest["shards"]
        split = choose_split(split, {name for name, shards in there.items() if shards})
        shards = [Shard(self.folder / s["name"], s["videos"]) for s in there.get(split, [])]
        if not sum(shard.videos for shard in shards):
            raise DataError(f"{self.folder}: {empty_split_message(split)}")
        trainer = self.trainer
        dataset = ShardClips(
            shards,
            self.manifest["sizes"][split],
            clips,
            read,
            self.schedule if shuffle else self.eval_schedule,
            self.on_bad_video,
            num_replicas=trainer.world_size if trainer else 1,
            rank=trainer.global_rank if trainer else 0,
            shuffle=shuffle,
            seed=int(os.environ.get("PL_GLOBAL_SEED", 0)),  # the same on every rank
            buffer=self.shuffle_buffer,
            smallest=self.smallest_batches,
        )
        # it knows its length, and shares the clips out
        warnings.filterwarnings("ignore", "Your `IterableDataset` has `__len__` defined")
        loader = ShardLoader(
            dataset,
            self._batches_done if trainer and shuffle else None,
            num_workers=self.num_workers,
            multiprocessing_context=self.worker_start if self.num_workers else None,
            worker_init_fn=ignore_signals,
            persistent_workers=self.num_workers > 0,
            pin_memory=torch.cuda.is_available(),
        )
        loader.set_epoch(trainer.current_epoch if trainer else 0)
        return loader


def _training_clip(
    augment: Augmentation,
    decoder: str,
    fast: bool,
    square_pixels: bool,
    video: LabelledVideo,
    request: ClipRequest,
) -> Batch:
    clips = TrainingClips([video], augment, decoder, fast=fast, square_pixels=square_pixels)
    return clips[[replace(request, index=0)]]


def _evaluation_clip(
    preprocessing: Preprocessing,
    decoder: str,
    on_bad_video: OnBadVideo,
    static: bool,
    fast: bool,
    ids: list[int],
    unknown: DataError,
    video: LabelledVideo,
    request: ClipRequest,
) -> Batch:
    if video.label != UNLABELLED:
        video = video._replace(label=ids[video.label])
        if video.label == UNLABELLED:  # the manifest does not say which split has which class
            raise unknown
    return EvaluationViews([video], preprocessing, decoder, on_bad_video, static, fast)[[request]]
