"""The videos of a data set as an experiment sees them: the central clip and crop of each."""

from collections.abc import Iterator, Sequence
from dataclasses import replace

import torch

from vidpool.data.datamodule import VideoDataModule
from vidpool.data.dataset import Batch, EvaluationViews, Preprocessing
from vidpool.data.listed import ListedDataModule, Split
from vidpool.data.loader import ScheduledLoader
from vidpool.data.schedule import ScheduledSampler
from vidpool.data.table import VideoTable
from vidpool.errors import ConfigError, DataError


def choose_videos(
    datamodule: VideoDataModule,
    split: Split,
    classes: Sequence[int] | None = None,
    limit: int | None = None,
    seed: int = 0,
) -> VideoTable:
    """Videos of some classes, in the data set's order.

    Args:
        datamodule: The data set.
        split: Which part of it.
        classes: Their ids; by default all.
        limit: Take at most so many, drawn at random.
        seed: Of the draw.

    Raises:
        ConfigError: The data set is of shards, which cannot be read one video at a time.
        DataError: There is no such video.
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
        datamodule: Says how videos are read, in how many processes, and in how large batches.
        videos: The videos; ``batch["video"]`` counts them.
        preprocessing: Of the checkpoint that is looked into, whatever the config says.

    Raises:
        VideoError: A video cannot be read, and ``data.on_bad_video`` is ``error``; else it is not
            ``counted``.
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
