"""Example videos of a dataset for experiments: choosing them, and reading their central clips."""

from collections.abc import Iterator, Sequence
from dataclasses import replace

import torch

from vidpool.data.catalogue.listing import Split
from vidpool.data.catalogue.table import VideoTable
from vidpool.data.datamodule import VideoDataModule
from vidpool.data.dataset import Batch, EvaluationViews
from vidpool.data.listed import ListedDataModule
from vidpool.data.loader import ScheduledLoader
from vidpool.data.schedule import ScheduledSampler
from vidpool.data.views import Preprocessing
from vidpool.errors import ConfigError, DataError


def choose_videos(
    datamodule: VideoDataModule,
    split: Split,
    classes: Sequence[int] | None = None,
    limit: int | None = None,
    seed: int = 0,
) -> VideoTable:
    """Return videos of some classes in the order of the dataset.

    Args:
        datamodule: Datamodule of the dataset.
        split: Split of the dataset.
        classes: Class ids. Defaults to all classes.
        limit: Largest number of videos, drawn at random if there are more. Defaults to no limit.
        seed: Seed of the draw.

    Raises:
        ConfigError: The dataset consists of shards, from which single videos cannot be read.
        DataError: There are no such videos.
    """
    if not isinstance(datamodule, ListedDataModule):
        raise ConfigError(
            f"{type(datamodule).__name__} has no single videos; give a config of the data set that "
            "it was made of"
        )
    videos = datamodule.videos(split)
    if classes is not None:
        wanted = torch.isin(videos.label, torch.tensor(classes, dtype=videos.label.dtype))
        videos = videos.select(wanted)
    if not len(videos):
        raise DataError(f"{datamodule.root}: the {split} split has no video of these classes")
    if limit is not None and limit < len(videos):
        generator = torch.Generator().manual_seed(seed)
        videos = videos.select(
            torch.randperm(len(videos), generator=generator)[:limit].sort().values
        )
    return videos


def central_clips(
    datamodule: VideoDataModule, videos: VideoTable, preprocessing: Preprocessing
) -> Iterator[Batch]:
    """Read the central clip and crop of each video, in order, as uint8.

    Args:
        datamodule: Datamodule whose decoder, processes and batch size are used.
        videos: Videos to read; ``batch["video"]`` holds their indices.
        preprocessing: Preprocessing of the checkpoint, which overrides the datamodule's.

    Raises:
        VideoError: A video cannot be read and the datamodule's ``on_bad_video`` is ``error``.
            Otherwise ``counted`` is False for that video.
    """
    dataset = EvaluationViews(
        videos,
        replace(preprocessing, clips=1, crops=1),
        datamodule.decoder,
        datamodule.on_bad_video,
        fast=datamodule.fast,
    )
    yield from ScheduledLoader(
        dataset,
        ScheduledSampler(dataset, datamodule.eval_schedule, shuffle=False),
        num_workers=datamodule.num_workers,
        multiprocessing_context=datamodule.worker_start if datamodule.num_workers else None,
    )
