"""What all datamodules share: clip shape, augmentation, views, loaders."""

import os
from abc import ABC, abstractmethod
from dataclasses import replace
from typing import Any, Literal

import pytorch_lightning as pl
import torch
from torch.utils.data import DataLoader

from vidpool.data.cpus import usable_cpus
from vidpool.data.dataset import (
    Batch,
    EvaluationViews,
    LabelledVideo,
    OnUndecodable,
    Preprocessing,
    TrainingClips,
)
from vidpool.data.loader import ScheduledLoader
from vidpool.data.schedule import ClipShape, ConstantSchedule, Schedule, ScheduledSampler
from vidpool.data.transforms import Augmentation, normalize
from vidpool.errors import ConfigError, DataError

OnMissing = Literal["error", "skip"]
Split = Literal["train", "val", "test"]

# of Kinetics-400's pixels, as torchvision's video models use them
MEAN = (0.43216, 0.394666, 0.37645)
STD = (0.22803, 0.22145, 0.216989)


class VideoDataModule(pl.LightningDataModule, ABC):
    """Clips of labelled videos for training, validation and testing.

    A subclass says which videos there are (:meth:`videos`) and what the classes are called
    (:attr:`class_names`). Batches are :class:`vidpool.data.dataset.Batch`; clips come as uint8 and
    are normalised once they are on the device.

    Validation looks at the central clip and crop of each video; testing at ``test_clips`` x
    ``test_crops`` views.

    Args:
        frames: T, frames of a clip.
        stride: Temporal stride, in frames of the video.
        crop: Side of the square clip, pixels.
        short_side: In evaluation, pixels to which the shorter side is scaled before cropping.
        batch_size: Training clips a step on each device.
        eval_batch_size: Clips of a video a step on each device; by default ``batch_size``.
        test_clips: Clips of a video in testing, spread evenly.
        test_crops: Crops of each of these clips, 1 or 3.
        augment: How training clips are varied.
        decoder: How videos are read, see :func:`vidpool.data.decode.open_video`.
        on_undecodable: ``error`` stops at a video that cannot be decoded; ``substitute`` takes
            another video's clip in training and leaves the clip out in evaluation, counts it and
            logs the count.
        workers: Loader processes; by default one a CPU, at most 8.
        worker_start: How they start: ``fork``, ``spawn`` or ``forkserver``; by default as the
            platform does.
        mean: Of each channel, in [0, 1].
        std: Of each channel, in [0, 1].
        static: In evaluation, show one frame of each clip, repeated: what accuracy remains does not
            come from motion.
    """

    def __init__(
        self,
        frames: int = 16,
        stride: int = 2,
        crop: int = 112,
        short_side: int = 128,
        batch_size: int = 16,
        eval_batch_size: int | None = None,
        test_clips: int = 10,
        test_crops: int = 3,
        augment: Augmentation = Augmentation(),  # noqa: B008 (the command line shows its fields)
        decoder: Literal["auto", "pyav", "decord"] = "auto",
        on_undecodable: OnUndecodable = "error",
        workers: int | None = None,
        worker_start: Literal["fork", "spawn", "forkserver"] | None = None,
        mean: tuple[float, float, float] = MEAN,
        std: tuple[float, float, float] = STD,
        static: bool = False,
    ) -> None:
        super().__init__()
        if workers is not None and workers < 0:
            raise ConfigError(f"workers must not be negative, got {workers}")
        self.preprocessing = Preprocessing(
            frames, stride, short_side, crop, test_clips, test_crops, tuple(mean), tuple(std)
        )
        self.batch_size = batch_size
        self.schedule: Schedule = ConstantSchedule(ClipShape(frames, stride, crop), batch_size)
        self.eval_schedule = ConstantSchedule(
            ClipShape(frames, stride, crop),
            batch_size if eval_batch_size is None else eval_batch_size,
        )
        self.augment = augment
        self.decoder = decoder
        self.on_undecodable: OnUndecodable = on_undecodable
        self.workers = min(8, usable_cpus()) if workers is None else workers
        self.worker_start = worker_start
        self.static = static

    @property
    @abstractmethod
    def class_names(self) -> list[str]:
        """Names of the classes, in the order of their ids."""

    @abstractmethod
    def videos(self, split: Split) -> list[LabelledVideo]:
        """The videos of a split.

        Raises:
            DataError: A list, folder or video is missing.
        """

    @property
    def num_classes(self) -> int:
        """How many classes there are."""
        return len(self.class_names)

    def describe(self) -> dict[str, Any]:
        """What a checkpoint must hold so that prediction needs nothing else."""
        return {"class_names": self.class_names, "preprocessing": self.preprocessing.to_dict()}

    def train_dataloader(self) -> DataLoader[Batch]:
        """Random, augmented clips."""
        dataset = TrainingClips(
            self._some_videos("train"), self.augment, self.decoder, self.on_undecodable
        )
        return self._loader(dataset, self.schedule, shuffle=True)

    def val_dataloader(self) -> DataLoader[Batch]:
        """The central clip and crop of every video."""
        return self._evaluation("val", clips=1, crops=1)

    def test_dataloader(self) -> DataLoader[Batch]:
        """All views of every video."""
        return self._evaluation("test", self.preprocessing.clips, self.preprocessing.crops)

    def on_after_batch_transfer(self, batch: Batch, dataloader_idx: int) -> Batch:  # noqa: ARG002
        """Normalise the clips on the device."""
        clip = normalize(batch["clip"], self.preprocessing.mean, self.preprocessing.std)
        return {**batch, "clip": clip}

    def _some_videos(self, split: Split) -> list[LabelledVideo]:
        videos = self.videos(split)
        if not videos:
            raise DataError(f"{type(self).__name__}: the {split} split has no videos")
        return videos

    def _evaluation(self, split: Split, clips: int, crops: int) -> DataLoader[Batch]:
        preprocessing = replace(self.preprocessing, clips=clips, crops=crops)
        dataset = EvaluationViews(
            self._some_videos(split),
            preprocessing,
            self.decoder,
            self.on_undecodable,
            self.static,
        )
        return self._loader(dataset, self.eval_schedule, shuffle=False)

    def _loader(
        self,
        dataset: TrainingClips | EvaluationViews,
        schedule: Schedule,
        shuffle: bool,
    ) -> DataLoader[Batch]:
        trainer = self.trainer
        sampler = ScheduledSampler(
            dataset,
            schedule,
            num_replicas=trainer.world_size if trainer else 1,
            rank=trainer.global_rank if trainer else 0,
            shuffle=shuffle,
            seed=int(os.environ.get("PL_GLOBAL_SEED", 0)),  # the same on every rank
        )
        sampler.set_epoch(trainer.current_epoch if trainer else 0)
        return ScheduledLoader(
            dataset,
            sampler,
            self._batches_done if trainer and shuffle else None,
            num_workers=self.workers,
            multiprocessing_context=self.worker_start if self.workers else None,
            persistent_workers=self.workers > 0,
            pin_memory=torch.cuda.is_available(),
        )

    def _batches_done(self) -> int:
        """Batches of the epoch that Lightning counts as trained on when it resumes a run."""
        trainer: Any = self.trainer
        return trainer.fit_loop.epoch_loop.batch_progress.current.processed
