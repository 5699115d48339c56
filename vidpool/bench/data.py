"""What `vidpool bench data` measures: clips a second of loading, by stage and by workers."""

from __future__ import annotations

import math
import os
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, SequentialSampler
from torchvision.transforms import v2

from vidpool.bench.timing import Times
from vidpool.data import dataset as pipeline
from vidpool.data.datamodule import VideoDataModule
from vidpool.data.dataset import Batch, TrainingClips
from vidpool.data.schedule import ClipRequest
from vidpool.data.transforms.augmentation import Augmentation
from vidpool.data.views import ClipShape
from vidpool.video import Video, open_video

OURS, PEER = "vidpool", "pytorchvideo"
STAGES = ("read", "decode", "transform", "collate", "to device")
WARM_UP = 2  # batches of each worker that are not measured


@dataclass(frozen=True)
class Subject:
    """What is loaded.

    Attributes:
        name: For people.
        clips: The training clips of a data set.
        data: The datamodule that batches are handed to once they are on the device.
        shape: The clips' shape.
        batch_size: Clips of a batch.
    """

    name: str
    clips: TrainingClips
    data: VideoDataModule
    shape: ClipShape
    batch_size: int

    def batches(self, count: int, seed: int = 0) -> list[list[ClipRequest]]:
        """Requests for batches of clips of videos drawn at random."""
        generator = torch.Generator().manual_seed(seed)
        drawn = torch.randint(2**31, (count, self.batch_size), generator=generator).tolist()
        return [[ClipRequest(n % len(self.clips), self.shape, n) for n in row] for row in drawn]


@dataclass
class Result:
    """What was measured of one subject.

    Attributes:
        name: The subject's.
        batch_size: Clips of a batch.
        stages: Seconds that a clip takes in each of :data:`STAGES`, in one process.
        seconds: Seconds a clip, by loader and number of workers.
        cpu_seconds: CPU seconds a clip of the workers, those of starting included.
        missing: Why the peer could not be measured.
    """

    name: str
    batch_size: int
    stages: dict[str, float]
    seconds: dict[tuple[str, int], Times] = field(default_factory=dict)
    cpu_seconds: dict[tuple[str, int], Times] = field(default_factory=dict)
    missing: str | None = None

    def rate(self, loader: str, workers: int) -> float | None:
        """Clips a second, by the median of all rounds."""
        times = self.seconds.get((loader, workers))
        return 1 / times.median if times else None

    def ratio(self, workers: int) -> float | None:
        """How many times the peer's rate ours is."""
        ours, peer = self.rate(OURS, workers), self.rate(PEER, workers)
        return ours / peer if ours and peer else None

    def verdict(self, step: float, cpus: int) -> str:
        """How many workers keep training steps of ``step`` seconds fed, in one line."""
        needed = self.batch_size / step
        counts = sorted(workers for loader, workers in self.seconds if loader == OURS)
        rates = {workers: self.rate(OURS, workers) or 0.0 for workers in counts}
        what = f"{self.name}: a step of {1e3 * step:g} ms needs {needed:.3g} clips/s"
        for workers, rate in rates.items():
            if rate >= needed:
                return f"{what}; {workers} worker{_s(workers)} {rate:.3g}"
        # as fast for each worker as with the most that were measured
        most, rate = counts[-1], rates[counts[-1]]
        estimate = math.ceil(needed * most / rate)
        told = f"{what}; {most} worker{_s(most)} {rate:.3g}, so about {estimate} would keep it fed"
        return f"{told}, more than the {cpus} CPUs here" if estimate > cpus else told

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
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


def _s(count: int) -> str:
    return " brings" if count == 1 else "s bring"


def measure(
    subject: Subject, workers: list[int], clips: int, rounds: int, device: str, peer: bool = True
) -> Iterator[Result]:
    """Measure a subject; yields the result each time that a bit more of it is known.

    Args:
        subject: What is loaded.
        workers: Numbers of loader processes.
        clips: To be loaded for each number in each round, at least.
        rounds: In each, ours and the peer's loader take turns.
        device: Where batches go.
        peer: Whether to measure PyTorchVideo's ``LabeledVideoDataset`` too.
    """
    batches = max(1, math.ceil(clips / subject.batch_size))
    result = Result(subject.name, subject.batch_size, stages(subject, batches, device))
    yield result
    taken: dict[tuple[str, int], list[tuple[float, float]]] = {}
    for number in range(rounds):
        for count in workers:
            for loader, load in ((OURS, our_loader), (PEER, peer_loader)):
                if loader == PEER and (not peer or result.missing):
                    continue
                try:
                    seconds = loading(load(subject, batches, count, number), subject, device, count)
                except Exception as error:
                    # whatever an old library of others does must not end the measurement of ours
                    if loader == OURS:
                        raise
                    result.missing = f"{type(error).__name__}: {error}".splitlines()[0]
                    continue
                taken.setdefault((loader, count), []).append(seconds)
                wall, cpu = zip(*taken[loader, count], strict=True)
                result.seconds[loader, count] = Times(wall)
                result.cpu_seconds[loader, count] = Times(cpu)
            yield result


def stages(subject: Subject, batches: int, device: str) -> dict[str, float]:
    """Seconds that a clip takes in each of :data:`STAGES`, in this process; medians of batches."""
    rows = []
    for requests in subject.batches(batches + 1, seed=1):
        watch = _Stopwatch()
        with ExitStack() as patched:
            for owner, name, stage in (
                (Video, "frames", "decode"),
                (Augmentation, "cut", "transform"),
                (Augmentation, "change", "transform"),
                (pipeline, "_collate", "collate"),
            ):
                patched.enter_context(watch.on(owner, name, stage))
            batch = watch.time("read", partial(subject.clips.__getitem__, requests))
        watch.time("to device", partial(arrive, subject, batch, device))
        rows.append([watch.seconds.get(stage, 0.0) / len(requests) for stage in STAGES])
    medians = np.median(rows[1:], axis=0).tolist()
    return dict(zip(STAGES, medians, strict=True))


class _Stopwatch:
    """Seconds by stage, each without those of stages within it."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self._within = [0.0]

    def time(self, stage: str, call: Callable[[], Any]) -> Any:
        started = time.perf_counter()
        self._within.append(0.0)
        try:
            return call()
        finally:
            whole = time.perf_counter() - started
            inner = self._within.pop()
            self._within[-1] += whole
            self.seconds[stage] = self.seconds.get(stage, 0.0) + whole - inner

    @contextmanager
    def on(self, owner: Any, name: str, stage: str) -> Iterator[None]:
        """Count what a function takes as a stage's."""
        function = getattr(owner, name)
        setattr(owner, name, lambda *a, **k: self.time(stage, partial(function, *a, **k)))
        try:
            yield
        finally:
            setattr(owner, name, function)


def arrive(subject: Subject, batch: Batch, device: str) -> Tensor:
    """Bring a batch to the device and make of it what the network is given."""
    moved = subject.data.transfer_batch_to_device(batch, torch.device(device), 0)
    clip = subject.data.on_after_batch_transfer(moved, 0)["clip"]
    if clip.is_cuda:
        torch.cuda.synchronize()
    return clip


def our_loader(subject: Subject, batches: int, workers: int, seed: int) -> DataLoader[Batch]:
    """The loader that training uses, but for its sampler."""
    requests = subject.batches(batches + WARM_UP * workers, seed)
    source: Dataset[Batch] = subject.clips
    return _loader(source, workers, sampler=requests, batch_size=None)


def peer_loader(subject: Subject, batches: int, workers: int, seed: int) -> DataLoader[Any]:
    """PyTorchVideo's loader of clips of the same videos, of the same length, size and crop.

    Its transforms, which today's torchvision no longer lets it import, are written out: frames at
    even distances, floats in [0, 1], normalised, a random short side, crop and flip.
    """
    from pytorchvideo.data import LabeledVideoDataset, RandomClipSampler

    videos = subject.clips.videos
    drawn = [
        videos[request.index]
        for batch in subject.batches(batches + WARM_UP * workers, seed)
        for request in batch
    ]
    with open_video(drawn[0].path) as video:
        duration = subject.shape.frames * subject.shape.stride / video.fps
    clips = LabeledVideoDataset(
        [(video.path, {"label": video.label}) for video in drawn],
        RandomClipSampler(duration),
        video_sampler=SequentialSampler,
        transform=PeerTransform(subject),
        decode_audio=False,
    )
    return _loader(clips, workers, batch_size=subject.batch_size)


class PeerTransform:
    """What PyTorchVideo's own recipe does with a clip; see :func:`peer_loader`."""

    def __init__(self, subject: Subject) -> None:
        self.frames = subject.shape.frames
        low, high = subject.clips.augment.short_side
        self.sides = [round(side * subject.shape.crop) for side in (low, high)]
        p = subject.data.preprocessing
        self.mean, self.std = (torch.tensor(v).view(3, 1, 1, 1) for v in (p.mean, p.std))
        self.cut = v2.Compose([v2.RandomCrop(subject.shape.crop), v2.RandomHorizontalFlip()])

    def __call__(self, sample: dict[str, Any]) -> dict[str, Any]:
        """From the decoded clip (C, T, H, W) to what the network is given."""
        clip = sample["video"]
        clip = clip[:, torch.linspace(0, clip.shape[1] - 1, self.frames).long()]
        clip = (clip / 255 - self.mean) / self.std
        side = int(torch.randint(self.sides[0], self.sides[1] + 1, ()))
        height, width = clip.shape[-2:]
        size = [math.ceil(side * length / min(height, width)) for length in (height, width)]
        clip = torch.nn.functional.interpolate(clip, size, mode="bilinear", align_corners=False)
        return {"clip": self.cut(clip), "label": sample["label"]}


def _loader(source: Any, workers: int, **options: Any) -> DataLoader[Any]:
    return DataLoader(source, num_workers=workers, pin_memory=torch.cuda.is_available(), **options)


def loading(
    loader: DataLoader[Any], subject: Subject, device: str, workers: int
) -> tuple[float, float]:
    """Seconds a clip until the clips are on the device, and CPU seconds a clip of the workers.

    Of the first, those until all workers run do not count.
    """
    count = loaded = 0
    started, cpu = 0.0, _cpu_of_children()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # more workers than CPUs
        for number, batch in enumerate(loader, start=1):
            if "counted" in batch:
                arrive(subject, batch, device)
            else:
                batch["clip"].to(device)
            loaded += len(batch["label"])
            if number == WARM_UP * workers:
                started = time.perf_counter()
            elif number > WARM_UP * workers:
                count += len(batch["label"])
    # the workers have ended with the loop
    return (time.perf_counter() - started) / count, (_cpu_of_children() - cpu) / loaded


def _cpu_of_children() -> float:
    times = os.times()
    return times.children_user + times.children_system
