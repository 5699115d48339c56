"""The measurement of `vidpool bench data`: loading of training clips, by stage and by workers."""

from __future__ import annotations

import math
import os
import time
import warnings
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np
import torch
from matplotlib.figure import Figure
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, SequentialSampler
from torchvision.transforms import v2

from vidpool.bench.timing import StageTimer, Times
from vidpool.data import dataset as dataset_module
from vidpool.data.datamodule import VideoDataModule
from vidpool.data.dataset import Batch, TrainingClips
from vidpool.data.schedule import ClipRequest
from vidpool.data.transforms.augmentation import Augmentation
from vidpool.data.views import ClipShape, normalize
from vidpool.figures import AMBER, BLUE, GREEN, GREY, ORANGE, SKY
from vidpool.video import Video, open_video

VIDPOOL, PYTORCHVIDEO = "vidpool", "pytorchvideo"
STAGES = ("read", "decode", "transform", "collate", "to device")
STAGE_COLOURS = (SKY, BLUE, GREEN, GREY, AMBER)
LOADER_COLOURS = {VIDPOOL: ORANGE, PYTORCHVIDEO: GREY}
WARM_UP = 2  # batches per worker that are not measured


@dataclass(frozen=True)
class ClipSource:
    """Training clips whose loading is measured.

    Attributes:
        name: Name of the source in tables.
        clips: Training clips of a dataset.
        data: Datamodule that transfers and transforms batches on the device.
        shape: Shape of the clips.
        batch_size: Number of clips per batch.
    """

    name: str
    clips: TrainingClips
    data: VideoDataModule
    shape: ClipShape
    batch_size: int

    def batches(self, count: int, seed: int = 0) -> list[list[ClipRequest]]:
        """Return requests for batches of clips of randomly drawn videos."""
        generator = torch.Generator().manual_seed(seed)
        drawn = torch.randint(2**31, (count, self.batch_size), generator=generator).tolist()
        return [[ClipRequest(n % len(self.clips), self.shape, n) for n in row] for row in drawn]


@dataclass
class LoadingResult:
    """Loading times of one source.

    Attributes:
        name: Name of the source.
        batch_size: Number of clips per batch.
        stages: Seconds per clip in each of :data:`STAGES`, in one process.
        seconds: Seconds per clip, by loader and number of workers.
        cpu_seconds: CPU seconds per clip of the workers, including their start.
        missing: Reason why PyTorchVideo's loader could not be measured.
    """

    name: str
    batch_size: int
    stages: dict[str, float]
    seconds: dict[tuple[str, int], Times] = field(default_factory=dict)
    cpu_seconds: dict[tuple[str, int], Times] = field(default_factory=dict)
    missing: str | None = None

    def rate(self, loader: str, workers: int) -> float | None:
        """Return clips per second by the median of all rounds, or None if not measured."""
        times = self.seconds.get((loader, workers))
        return 1 / times.median if times else None

    def ratio(self, workers: int) -> float | None:
        """Return vidpool's rate relative to PyTorchVideo's, or None if one was not measured."""
        ours, theirs = self.rate(VIDPOOL, workers), self.rate(PYTORCHVIDEO, workers)
        return ours / theirs if ours and theirs else None

    def workers_needed(self, step: float, cpus: int) -> str:
        """Return in one line how many workers keep training steps of ``step`` seconds fed."""
        needed = self.batch_size / step
        counts = sorted(workers for loader, workers in self.seconds if loader == VIDPOOL)
        rates = {workers: self.rate(VIDPOOL, workers) or 0.0 for workers in counts}
        need = f"{self.name}: a step of {1e3 * step:g} ms needs {needed:.3g} clips/s"
        for workers, rate in rates.items():
            if rate >= needed:
                return f"{need}; {_workers_bring(workers)} {rate:.3g}"
        # further workers are assumed to be as fast as those of the largest number measured
        most, rate = counts[-1], rates[counts[-1]]
        estimate = math.ceil(needed * most / rate)
        text = f"{need}; {_workers_bring(most)} {rate:.3g}, so about {estimate} would keep it fed"
        return f"{text}, more than the {cpus} CPUs here" if estimate > cpus else text

    def as_dict(self) -> dict[str, Any]:
        """Return the result as JSON values."""
        return {
            "name": self.name,
            "batch_size": self.batch_size,
            "seconds_a_clip_by_stage": self.stages,
            "loaders": [
                {
                    "loader": loader,
                    "workers": workers,
                    "clips_a_second": 1 / times.median,
                    "seconds_a_clip": times.as_dict(),
                    "cpu_seconds_a_clip": self.cpu_seconds[loader, workers].as_dict(),
                }
                for (loader, workers), times in self.seconds.items()
            ],
            "missing": self.missing,
        }


def _workers_bring(count: int) -> str:
    return "1 worker brings" if count == 1 else f"{count} workers bring"


def measure_loading(
    source: ClipSource,
    workers: list[int],
    clips: int,
    rounds: int,
    device: str,
    pytorchvideo: bool = True,
) -> Iterator[LoadingResult]:
    """Measure the loading of clips; yields the growing result after each step.

    Args:
        source: Clips to load.
        workers: Numbers of loader processes.
        clips: Minimum number of clips that are loaded per number of workers and round.
        rounds: Number of rounds, in each of which the two loaders take turns.
        device: Device that batches are moved to.
        pytorchvideo: Also measure PyTorchVideo's ``LabeledVideoDataset``. Defaults to True.
    """
    batches = max(1, math.ceil(clips / source.batch_size))
    result = LoadingResult(source.name, source.batch_size, stage_seconds(source, batches, device))
    yield result
    measured: dict[tuple[str, int], list[tuple[float, float]]] = {}
    for number in range(rounds):
        for count in workers:
            for loader, load in (
                (VIDPOOL, vidpool_loader),
                (PYTORCHVIDEO, pytorchvideo_loader),
            ):
                if loader == PYTORCHVIDEO and (not pytorchvideo or result.missing):
                    continue
                try:
                    seconds = seconds_per_clip(
                        load(source, batches, count, number), source, device, count
                    )
                except Exception as error:
                    # no error of PyTorchVideo may end the measurement of vidpool's loader
                    if loader == VIDPOOL:
                        raise
                    result.missing = f"{type(error).__name__}: {error}".splitlines()[0]
                    continue
                measured.setdefault((loader, count), []).append(seconds)
                wall, cpu = zip(*measured[loader, count], strict=True)
                result.seconds[loader, count] = Times(wall)
                result.cpu_seconds[loader, count] = Times(cpu)
            yield result


def stage_seconds(source: ClipSource, batches: int, device: str) -> dict[str, float]:
    """Return seconds per clip in each of :data:`STAGES`, in this process; medians over batches."""
    rows = []
    for requests in source.batches(batches + 1, seed=1):
        timer = StageTimer()
        with ExitStack() as patched:
            for owner, name, stage in (
                (Video, "frames", "decode"),
                (Augmentation, "cut", "transform"),
                (Augmentation, "change", "transform"),
                (dataset_module, "collate", "collate"),
            ):
                patched.enter_context(timer.patch(owner, name, stage))
            batch = timer.time("read", partial(source.clips.__getitem__, requests))
        timer.time("to device", partial(move_to_device, source, batch, device))
        rows.append([timer.seconds.get(stage, 0.0) / len(requests) for stage in STAGES])
    medians = np.median(rows[1:], axis=0).tolist()
    return dict(zip(STAGES, medians, strict=True))


def move_to_device(source: ClipSource, batch: Batch, device: str) -> Tensor:
    """Move a batch to the device and return the network's input."""
    moved = source.data.transfer_batch_to_device(batch, torch.device(device), 0)
    preprocessing = source.data.preprocessing
    clip = normalize(moved["clip"], preprocessing.mean, preprocessing.std)
    if clip.is_cuda:
        torch.cuda.synchronize()
    return clip


def vidpool_loader(source: ClipSource, batches: int, workers: int, seed: int) -> DataLoader[Batch]:
    """Return the loader that training uses, apart from its sampler."""
    requests = source.batches(batches + WARM_UP * workers, seed)
    clips: Dataset[Batch] = source.clips
    return _loader(clips, workers, sampler=requests, batch_size=None)


def pytorchvideo_loader(
    source: ClipSource, batches: int, workers: int, seed: int
) -> DataLoader[Any]:
    """Return PyTorchVideo's loader of clips of the same videos, length, size and crop.

    PyTorchVideo's transforms fail to import with current versions of torchvision. Therefore
    :class:`PyTorchVideoTransform` reimplements them: evenly spaced frames, floats in [0, 1],
    normalization, a random short side, crop and flip.
    """
    from pytorchvideo.data import LabeledVideoDataset, RandomClipSampler

    videos = source.clips.videos
    drawn = [
        videos[request.index]
        for batch in source.batches(batches + WARM_UP * workers, seed)
        for request in batch
    ]
    with open_video(drawn[0].path) as video:
        duration = source.shape.frames * source.shape.stride / video.fps
    clips = LabeledVideoDataset(
        [(video.path, {"label": video.label}) for video in drawn],
        RandomClipSampler(duration),
        video_sampler=SequentialSampler,
        transform=PyTorchVideoTransform(source),
        decode_audio=False,
    )
    return _loader(clips, workers, batch_size=source.batch_size)


class PyTorchVideoTransform:
    """The transforms of PyTorchVideo's own recipe; see :func:`pytorchvideo_loader`."""

    def __init__(self, source: ClipSource) -> None:
        self.frames = source.shape.frames
        low, high = source.clips.augment.short_side
        self.sides = [round(side * source.shape.crop) for side in (low, high)]
        p = source.data.preprocessing
        self.mean, self.std = (torch.tensor(v).view(3, 1, 1, 1) for v in (p.mean, p.std))
        self.cut = v2.Compose([v2.RandomCrop(source.shape.crop), v2.RandomHorizontalFlip()])

    def __call__(self, sample: dict[str, Any]) -> dict[str, Any]:
        """Turn a decoded clip (C, T, H, W) into the network's input."""
        clip = sample["video"]
        clip = clip[:, torch.linspace(0, clip.shape[1] - 1, self.frames).long()]
        clip = (clip / 255 - self.mean) / self.std
        side = int(torch.randint(self.sides[0], self.sides[1] + 1, ()))
        height, width = clip.shape[-2:]
        size = [math.ceil(side * length / min(height, width)) for length in (height, width)]
        clip = torch.nn.functional.interpolate(clip, size, mode="bilinear", align_corners=False)
        return {"clip": self.cut(clip), "label": sample["label"]}


def _loader(clips: Any, workers: int, **options: Any) -> DataLoader[Any]:
    return DataLoader(clips, num_workers=workers, pin_memory=torch.cuda.is_available(), **options)


def seconds_per_clip(
    loader: DataLoader[Any], source: ClipSource, device: str, workers: int
) -> tuple[float, float]:
    """Return seconds per clip until clips are on the device, and CPU seconds of the workers.

    The former exclude the time until all workers run; the latter are per clip as well.
    """
    count = loaded = 0
    started, cpu = 0.0, _cpu_seconds_of_children()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # more workers than CPUs
        for number, batch in enumerate(loader, start=1):
            if "counted" in batch:
                move_to_device(source, batch, device)
            else:
                batch["clip"].to(device)
            loaded += len(batch["label"])
            if number == WARM_UP * workers:
                started = time.perf_counter()
            elif number > WARM_UP * workers:
                count += len(batch["label"])
    # the workers have ended with the loop
    return (time.perf_counter() - started) / count, (_cpu_seconds_of_children() - cpu) / loaded


def _cpu_seconds_of_children() -> float:
    times = os.times()
    return times.children_user + times.children_system


def loading_chart(results: Sequence[LoadingResult], machine: dict[str, Any]) -> Figure:
    """Draw milliseconds per clip by stage, and clips per second by the number of workers.

    Args:
        results: Results, at least one.
        machine: Description by :func:`vidpool.bench.timing.describe_machine`.
    """
    figure = Figure(figsize=(11, 2.6 + 0.9 * len(results)), layout="constrained")
    left, right = figure.subplots(1, 2)
    names = [result.name for result in results]
    start = [0.0] * len(results)
    for stage, colour in zip(STAGES, STAGE_COLOURS, strict=True):
        widths = [1e3 * result.stages[stage] for result in results]
        left.barh(names, widths, 0.6, left=start, color=colour, label=stage)
        start = [b + w for b, w in zip(start, widths, strict=True)]
    left.set(title="one process", xlabel="milliseconds a clip")
    left.invert_yaxis()
    left.legend(loc="lower center", bbox_to_anchor=(0.5, 1.1), ncols=len(STAGES), fontsize=8)
    labels, row = [], 0.0
    for result in results:
        for workers in sorted({count for _, count in result.seconds}):
            for shift, loader in ((-0.2, VIDPOOL), (0.2, PYTORCHVIDEO)):
                rate = result.rate(loader, workers)
                if rate is None:
                    continue
                right.barh(row + shift, rate, 0.38, color=LOADER_COLOURS[loader])
                right.annotate(
                    f"{rate:.3g}",
                    (rate, row + shift),
                    (3, 0),
                    textcoords="offset points",
                    va="center",
                    fontsize=8,
                )
            labels.append((row, f"{result.name}\n{workers} worker{'s' * (workers > 1)}"))
            row += 1
        row += 0.3
    right.set_yticks([at for at, _ in labels], [text for _, text in labels], fontsize=8)
    right.set(title="loaders", xlabel="clips a second")
    right.margins(x=0.12)
    right.invert_yaxis()
    handles = [right.barh(0, 0, color=colour) for colour in LOADER_COLOURS.values()]
    right.legend(
        handles, LOADER_COLOURS, loc="lower center", bbox_to_anchor=(0.5, 1.1), ncols=2, fontsize=8
    )
    figure.suptitle(machine["device_name"], fontsize=10)
    return figure
