"""Reading of webdataset shards: the manifest of a folder, and clips of tar files read in sequence.

The clips of an epoch are laid out in the order of the (shuffled) shards. Every rank, and of it
every loader process, takes a stretch of them, whatever the shards' borders: so no clip is lost or
doubled, and all ranks make the same steps. What a process reads passes through a buffer from which
it draws at random.
"""

import copy
import json
import os
import random
import tarfile
import tempfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch.utils.data import IterableDataset, get_worker_info

from vidpool.data.catalogue.listing import OnBadVideo
from vidpool.data.catalogue.table import LabelledVideo
from vidpool.data.dataset import SHAPE, Batch, Sample
from vidpool.data.schedule import ClipRequest, Schedule, ScheduledSampler, mix_seeds
from vidpool.data.views import ClipShape, Preprocessing
from vidpool.errors import ConfigError, DataError, VideoError

MANIFEST = "shards.json"
PARTIAL = "shards.partial.json"
VERSION = 1

ReadClip = Callable[[LabelledVideo, ClipRequest], Batch]


def require_webdataset() -> None:
    """Check that webdataset is installed.

    Raises:
        ConfigError: webdataset is not installed.
    """
    try:
        import webdataset  # noqa: F401
    except ImportError:
        raise ConfigError(
            "shards are written and read with webdataset, which is not installed: "
            "pip install webdataset"
        ) from None


def read_manifest(folder: Path) -> dict[str, Any]:
    """Read the manifest of complete shards.

    Returns:
        ``class_names``; ``sizes``, the labelled videos of each split when it was listed; and
        ``shards``, for each split a list of shards with ``name`` and ``videos``, the number of
        labelled videos in the shard.

    Raises:
        DataError: The folder holds no complete shards, or the manifest cannot be read.
    """
    try:
        manifest: dict[str, Any] = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
    except FileNotFoundError:
        begun = ": they are not complete, repeat" if (folder / PARTIAL).exists() else ", made by"
        raise DataError(f"{folder}: holds no shards{begun} `vidpool data shard`") from None
    except (OSError, ValueError) as error:
        raise DataError(f"{folder / MANIFEST}: cannot be read ({error})") from None
    return manifest


@dataclass(frozen=True)
class Shard:
    """A tar file and its number of labelled videos."""

    path: Path
    videos: int


@dataclass(frozen=True)
class _Item:
    """A clip to read: the content of a file, the video in it, and the number of the clip."""

    content: bytes
    name: str
    video: LabelledVideo
    number: int
    clip: int
    counted: bool


class ShardClips(IterableDataset[Batch]):
    """Batches of clips from shards; each loader process of each rank yields its share.

    Args:
        shards: The shards of a split.
        videos: Labelled videos of the split when it was listed; their numbers are below.
        clips: Clips of each video.
        read: Reads one clip of a video, with all its crops.
        schedule: Shape and batch size at each step.
        on_bad_video: ``"error"``, or else leave clips out that cannot be read.
        num_replicas: How many ranks there are.
        rank: Which of them this one is.
        shuffle: True in training.
        seed: Of the order and of the clips; the same on every rank.
        buffer: How many clips a process draws from when it shuffles.
        smallest: See :class:`vidpool.data.schedule.ScheduledSampler`.
        shape: Shape of the clips of samples. Defaults to 16 frames, 2 apart, of 112 x 112 pixels.
        preprocessing: As for :class:`vidpool.data.dataset.TrainingClips`.
    """

    def __init__(
        self,
        shards: list[Shard],
        videos: int,
        clips: int,
        read: ReadClip,
        schedule: Schedule,
        on_bad_video: OnBadVideo = "error",
        num_replicas: int = 1,
        rank: int = 0,
        shuffle: bool = True,
        seed: int = 0,
        buffer: int = 100,
        smallest: Mapping[ClipShape, int] | None = None,
        shape: ClipShape = SHAPE,
        preprocessing: Preprocessing | None = None,
    ) -> None:
        self.shards = shards
        self.shape = shape
        self.preprocessing = preprocessing
        self.videos = range(videos)
        self.clips = clips
        self.read = read
        self.on_bad_video = on_bad_video
        self.rank = rank
        self.shuffle = shuffle
        self.seed = seed
        self.buffer = buffer
        self.total = clips * sum(shard.videos for shard in shards)
        self.scheduled = ScheduledSampler(
            range(self.total),
            schedule,
            num_replicas,
            rank,
            shuffle=shuffle,
            seed=seed,
            smallest=smallest,
        )
        # epoch, and steps that were made in it before: shared with processes that live on
        with torch.inference_mode(False):  # Lightning asks for loaders within it
            self._state = torch.zeros(2, dtype=torch.int64).share_memory_()

    def pinned(self) -> "ShardClips":
        """Return a dataset of the same clips that yields those of epoch 0 in every epoch."""
        clips = copy.copy(self)
        clips.scheduled = self.scheduled.pinned()
        with torch.inference_mode(False):
            clips._state = torch.zeros(2, dtype=torch.int64).share_memory_()
        return clips

    def begin(self, epoch: int, done: int) -> None:
        """Set what the next iteration yields: the epoch's batches but for the first ``done``."""
        self.scheduled.set_epoch(epoch)
        self._state[0], self._state[1] = self.scheduled.drawn_epoch, done

    def steps(self) -> list[tuple[int, ClipShape]]:
        """Return the batch size of each rank, and the shape, at the steps of the epoch."""
        self.scheduled.set_epoch(int(self._state[0]))
        return [(step.batch_size, step.shape) for step in self.scheduled.plan]

    def __iter__(self) -> Iterator[Batch]:
        """Iterate over the batches of this process: with n processes, those of every n-th step."""
        info = get_worker_info()
        worker, workers = (info.id, info.num_workers) if info else (0, 1)
        epoch, done = self._state.tolist()
        steps = self.steps()
        # the loader asks process 0 first, also for what comes after the steps that were made before
        turn = (worker + done) % workers
        shares = [sum(size for size, _ in steps[one::workers]) for one in range(workers)]
        begin = self.rank * sum(shares) + sum(shares[:turn])
        items = self._shuffled(self._stretch(begin, begin + shares[turn]), epoch, turn)
        for number in range(turn, len(steps), workers):
            size, shape = steps[number]
            wanted = [next(items) for _ in range(size)]
            if number >= done:
                yield self._batch(wanted, shape, epoch)

    def read_samples(self, seed: int, worker: int, workers: int) -> Iterator[Sample]:
        """Yield the samples of one of several processes that share a pass over the shards.

        Args:
            seed: Seed of the order and of the clips; the same in all processes.
            worker: Number of the process.
            workers: Number of processes.
        """
        clips = copy.copy(self)
        clips.seed = seed
        begin, end = (self.total * turn // workers for turn in (worker, worker + 1))
        for item in clips._shuffled(clips._stretch(begin, end), 0, worker):
            try:
                batch = _read(self.read, item, clips._request(item, self.shape, 0))
            except VideoError:
                if self.on_bad_video == "error":
                    raise
                continue
            for clip, label, counted in zip(
                batch["clip"], batch["label"].tolist(), batch["counted"].tolist(), strict=True
            ):
                yield Sample(clip=clip, label=label, video=item.number, counted=counted)

    def _stretch(self, begin: int, end: int) -> Iterator[_Item]:
        """Yield the clips at some positions of the epoch; beyond its end, clips that fill up."""
        while begin < end:
            lap, place = divmod(begin, self.total)
            last = min(place + end - begin, self.total)
            yield from self._between(place, last, counted=lap == 0)
            begin += last - place

    def _between(self, begin: int, end: int, counted: bool) -> Iterator[_Item]:
        from webdataset import tarfile_samples

        first = 0
        for shard in self._order():
            last = first + shard.videos * self.clips
            if begin < last and first < end:
                place = first
                try:
                    for sample in tarfile_samples([{"url": str(shard.path.absolute())}]):
                        for item in _items(sample, shard.path, self.clips, counted):
                            if begin <= place < end:
                                yield item
                            place += 1
                        if place >= end:
                            break
                except (OSError, EOFError, ValueError, KeyError, tarfile.TarError) as error:
                    raise DataError(f"{shard.path}: cannot be read ({error})") from error
                if place < min(last, end):
                    raise DataError(f"{shard.path}: ends early; make the shards again")
            first = last

    def _order(self) -> list[Shard]:
        if not self.shuffle:
            return self.shards
        generator = torch.Generator().manual_seed(mix_seeds(self.seed, int(self._state[0])))
        order = torch.randperm(len(self.shards), generator=generator).tolist()
        return [self.shards[number] for number in order]

    def _shuffled(self, items: Iterator[_Item], epoch: int, turn: int) -> Iterator[_Item]:
        if not self.shuffle:
            return items
        from webdataset import shuffle

        rng = random.Random(mix_seeds(self.seed, epoch, self.rank, turn))
        drawn: Iterator[_Item] = shuffle(self.buffer, initial=self.buffer, rng=rng)(items)
        return drawn

    def _request(self, item: _Item, shape: ClipShape, epoch: int) -> ClipRequest:
        seed = mix_seeds(self.seed, epoch, item.number * self.clips + item.clip)
        return ClipRequest(item.clip, shape, seed, item.counted)

    def _batch(self, items: list[_Item], shape: ClipShape, epoch: int) -> Batch:
        parts, bad = [], []
        for item in items:
            try:
                parts.append(_read(self.read, item, self._request(item, shape, epoch)))
            except VideoError as error:
                if self.on_bad_video == "error":
                    raise
                bad.append(str(error))
        if not parts:
            raise VideoError(f"{bad[-1]}; nor can the rest of its batch be read")
        batch: Batch = {
            "clip": torch.cat([part["clip"] for part in parts]),
            "label": torch.cat([part["label"] for part in parts]),
            "video": torch.cat([part["video"] for part in parts]),
            "counted": torch.cat([part["counted"] for part in parts]),
            "seed": [seed for part in parts for seed in part["seed"]],
            "requested": len(items),
            "bad": [*bad, *(message for part in parts for message in part["bad"])],
        }
        if "augment" in parts[0]:
            batch["augment"] = parts[0]["augment"]
        return batch


class ShardSamples(IterableDataset[Sample]):
    """Samples of shards, one after another, for a DataLoader of your own.

    Worker processes share the clips. Every pass has another order and other random clips, which
    follow from PyTorch's seed. Clips of videos that cannot be read are left out, unless
    ``on_bad_video`` is ``error``.

    Args:
        clips: The dataset whose clips are read.
        crops: Crops of each clip. Defaults to 1.
    """

    def __init__(self, clips: ShardClips, crops: int = 1) -> None:
        self.clips = clips
        self.crops = crops
        self._passes = 0

    def __len__(self) -> int:
        """Return the number of samples."""
        return self.clips.total * self.crops

    def __iter__(self) -> Iterator[Sample]:
        """Iterate over the samples of this process."""
        info = get_worker_info()
        # what DataLoader adds to the seed of each worker is its number
        seed = info.seed - info.id if info else torch.initial_seed()
        seed = mix_seeds(seed, self._passes)
        self._passes += 1
        worker, workers = (info.id, info.num_workers) if info else (0, 1)
        return self.clips.read_samples(seed, worker, workers)


def _items(sample: dict[str, Any], shard: Path, clips: int, counted: bool) -> Iterator[_Item]:
    """Yield all clips of a sample of a shard."""
    about = json.loads(sample["json"])
    (suffix,) = (name for name in sample if name != "json" and not name.startswith("__"))
    for number, label, start, end in about["videos"]:
        video = LabelledVideo("", label, start, end, about["frames"])
        name = f"{shard}: {about['path']}"
        for clip in range(clips):
            yield _Item(sample[suffix], name, video, number, clip, counted)


def _read(read: ReadClip, item: _Item, request: ClipRequest) -> Batch:
    """Read a clip from a temporary file, in memory if possible: decoders need a file."""
    place = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
    with tempfile.NamedTemporaryFile(dir=place, prefix="vidpool_") as file:
        file.write(item.content)
        file.flush()
        try:
            batch = read(item.video._replace(path=file.name), request)
        except VideoError as error:
            raise VideoError(str(error).replace(file.name, item.name)) from error
        bad = [message.replace(file.name, item.name) for message in batch["bad"]]
        return {**batch, "bad": bad, "video": torch.full_like(batch["video"], item.number)}
