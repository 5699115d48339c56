"""Training and testing on webdataset shards: tar files read from one end to the other.

The clips of an epoch are laid out in the order of the (shuffled) shards. Every rank, and of it
every loader process, takes a stretch of them, whatever the shards' borders: so no clip is lost or
doubled, and all ranks make the same steps. What a process reads passes through a buffer from which
it draws at random.
"""

import json
import os
import random
import tarfile
import tempfile
import warnings
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Literal

import torch
from torch.utils.data import DataLoader, IterableDataset, get_worker_info

from vidpool.data.datamodule import VideoDataModule
from vidpool.data.dataset import Batch, EvaluationViews, OnBadVideo, Preprocessing, TrainingClips
from vidpool.data.listed import no_videos
from vidpool.data.loader import outlive_signals
from vidpool.data.schedule import (
    ClipRequest,
    ClipShape,
    Schedule,
    ScheduledSampler,
    mix_seeds,
)
from vidpool.data.shards.writer import CATALOGUE, PARTIAL, require_webdataset
from vidpool.data.table import UNLABELLED, LabelledVideo
from vidpool.data.transforms.augmentation import Augmentation
from vidpool.errors import ConfigError, DataError, VideoError
from vidpool.files import expand_path

Split = Literal["train", "val", "test"]
INSTEAD: dict[Split, Split] = {"val": "test", "test": "val"}
Read = Callable[[LabelledVideo, ClipRequest], Batch]


@dataclass(frozen=True)
class Shard:
    """A tar file and how many labelled videos it holds."""

    path: Path
    videos: int


@dataclass(frozen=True)
class _Item:
    """A clip that is to be read: the video, in a file's content, and which of its clips."""

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
    """

    def __init__(
        self,
        shards: list[Shard],
        videos: int,
        clips: int,
        read: Read,
        schedule: Schedule,
        on_bad_video: OnBadVideo = "error",
        num_replicas: int = 1,
        rank: int = 0,
        shuffle: bool = True,
        seed: int = 0,
        buffer: int = 100,
        smallest: Mapping[ClipShape, int] | None = None,
    ) -> None:
        self.shards = shards
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
            range(self.total),  # type: ignore[arg-type]  # only its length is asked
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

    def begin(self, epoch: int, done: int) -> None:
        """Set what the next iteration yields: the epoch's batches but for the first ``done``."""
        self._state[0], self._state[1] = epoch, done

    def steps(self) -> list[tuple[int, ClipShape]]:
        """Batch size of each rank, and shape, at the steps of the epoch."""
        self.scheduled.set_epoch(int(self._state[0]))
        return [(step.batch_size, step.shape) for step in self.scheduled.plan]

    def __iter__(self) -> Iterator[Batch]:
        """The batches of this process: those of every n-th step, where there are n processes."""
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

    def _stretch(self, begin: int, end: int) -> Iterator[_Item]:
        """The clips at some places of the epoch; beyond its end come those that only fill up."""
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

    def _batch(self, items: list[_Item], shape: ClipShape, epoch: int) -> Batch:
        parts, bad = [], []
        for item in items:
            seed = mix_seeds(self.seed, epoch, item.number * self.clips + item.clip)
            request = ClipRequest(item.clip, shape, seed, item.counted)
            try:
                parts.append(_read(self.read, item, request))
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
        return batch


def _items(sample: dict[str, Any], shard: Path, clips: int, counted: bool) -> Iterator[_Item]:
    """All clips of a sample of a shard."""
    about = json.loads(sample["json"])
    (suffix,) = (name for name in sample if name != "json" and not name.startswith("__"))
    for number, label, start, end in about["videos"]:
        video = LabelledVideo("", label, start, end, about["frames"])
        name = f"{shard}: {about['path']}"
        for clip in range(clips):
            yield _Item(sample[suffix], name, video, number, clip, counted)


def _read(read: Read, item: _Item, request: ClipRequest) -> Batch:
    """Read a clip from a file in memory, where there is such a place, since decoders want files."""
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
        if video.label == UNLABELLED:  # the catalogue does not say which split has which class
            raise unknown
    return EvaluationViews([video], preprocessing, decoder, on_bad_video, static, fast)[[request]]


class ShardLoader:
    """A loader over :class:`ShardClips` that Lightning can resume in the middle of an epoch.

    Args:
        dataset: What is loaded.
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
        self.sampler = self  # where Lightning looks for set_epoch
        self._loader: DataLoader[Batch] = DataLoader(dataset, batch_size=None, **options)
        self._batches_done = batches_done
        self._epoch = 0
        self._made = 0
        self._resumed: dict[str, int] = {}

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch that the next iteration is of."""
        self._epoch = epoch

    @property
    def scheduled(self) -> ScheduledSampler:
        """The steps of the present epoch."""
        self.dataset.scheduled.set_epoch(self._epoch)
        return self.dataset.scheduled

    def __len__(self) -> int:
        """Batches of this rank in the epoch."""
        self.dataset.begin(self._epoch, 0)
        return len(self.dataset.steps())

    def __iter__(self) -> Iterator[Batch]:
        """The batches of the epoch, but for those made before a run was resumed.

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
        """How many batches of which epoch are done, and how many processes made them."""
        made = self._made if self._batches_done is None else self._batches_done()
        return {"epoch": self._epoch, "made": made, "workers": self._loader.num_workers}

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Leave out what was made before, where that epoch is gone on with."""
        self._resumed = state


class ShardDataModule(VideoDataModule):
    """The shards that ``vidpool data shard`` makes, read one after another.

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
        self.catalogue = _read_catalogue(self.folder)

    @property
    def class_names(self) -> list[str]:
        """Names of the classes, in the order of their ids."""
        names: list[str] = self.trained_classes or self.catalogue["class_names"]
        return names

    def train_dataloader(self) -> ShardLoader:
        """Random, augmented clips."""
        read = partial(
            _training_clip,
            self.augment,
            self.decoder,
            self.fast,
            self.preprocessing.square_pixels,
        )
        return self._loader("train", 1, read, shuffle=True)

    def val_dataloader(self) -> ShardLoader:
        """The central clip and crop of every video."""
        return self._evaluation("val", clips=1, crops=1)

    def test_dataloader(self) -> ShardLoader:
        """All views of every video."""
        return self._evaluation("test", self.preprocessing.clips, self.preprocessing.crops)

    def _evaluation(self, split: Split, clips: int, crops: int) -> ShardLoader:
        preprocessing = replace(self.preprocessing, clips=clips, crops=crops)
        own = self.catalogue["class_names"]
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

    def _loader(self, split: Split, clips: int, read: Read, shuffle: bool) -> ShardLoader:
        there = self.catalogue["shards"]
        split = split if there.get(split) else INSTEAD.get(split, split)
        shards = [Shard(self.folder / s["name"], s["videos"]) for s in there.get(split, [])]
        if not sum(shard.videos for shard in shards):
            raise DataError(f"{self.folder}: {no_videos(split)}")
        trainer = self.trainer
        dataset = ShardClips(
            shards,
            self.catalogue["sizes"][split],
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
            worker_init_fn=outlive_signals,
            persistent_workers=self.num_workers > 0,
            pin_memory=torch.cuda.is_available(),
        )
        loader.set_epoch(trainer.current_epoch if trainer else 0)
        return loader


def _read_catalogue(folder: Path) -> dict[str, Any]:
    try:
        catalogue: dict[str, Any] = json.loads((folder / CATALOGUE).read_text(encoding="utf-8"))
    except FileNotFoundError:
        begun = ": they are not complete, repeat" if (folder / PARTIAL).exists() else ", made by"
        raise DataError(f"{folder}: holds no shards{begun} `vidpool data shard`") from None
    except (OSError, ValueError) as error:
        raise DataError(f"{folder / CATALOGUE}: cannot be read ({error})") from None
    return catalogue
