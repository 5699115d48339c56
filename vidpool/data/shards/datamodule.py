"""A datamodule whose videos lie in shards, with a loader that resumes in the middle of an epoch."""

import warnings
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from itertools import repeat
from typing import Any

from torch.utils.data import DataLoader, Sampler

from vidpool.data.catalogue.listing import OnBadVideo, Split, choose_split, empty_split_message
from vidpool.data.catalogue.table import UNLABELLED, LabelledVideo
from vidpool.data.datamodule import VideoDataModule
from vidpool.data.dataset import Batch, EvaluationViews, TrainingClips
from vidpool.data.loader import loader_options
from vidpool.data.registry import register_datamodule
from vidpool.data.schedule import ClipRequest, Schedule, ScheduledSampler
from vidpool.data.shards.reader import (
    ReadClip,
    Shard,
    ShardClips,
    ShardSamples,
    read_manifest,
    require_webdataset,
)
from vidpool.data.transforms.augmentation import Augmentation
from vidpool.data.transforms.custom import ClipTransform
from vidpool.data.views import Preprocessing
from vidpool.errors import ConfigError, DataError
from vidpool.files import expand_path


class _Epochs(Sampler[None]):
    """Counts the epochs of a :class:`ShardLoader`; Lightning calls ``loader.sampler.set_epoch``.

    Args:
        counts: Whether each pass is an epoch of its own.
    """

    def __init__(self, counts: bool) -> None:
        self.epoch = 0
        self._counts = counts
        self._pass_may_begin = True

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch of the next pass."""
        self.epoch = epoch
        self._pass_may_begin = True

    def begin_pass(self) -> None:
        """Go to the next epoch, unless the epoch was set since the last pass began."""
        if self._counts and not self._pass_may_begin:
            self.epoch += 1
        self._pass_may_begin = False

    def __iter__(self) -> Iterator[None]:
        """Iterate without end: the dataset knows when the epoch ends."""
        return repeat(None)


class ShardLoader(DataLoader[Any]):
    """A loader over :class:`ShardClips` that Lightning can resume in the middle of an epoch.

    Passes are epochs, and Lightning may re-instantiate the loader, as with
    :class:`vidpool.data.loader.ScheduledLoader`.

    Args:
        dataset: The clips to load.
        batches_done: As for :class:`vidpool.data.loader.ScheduledLoader`.
        **options: Of PyTorch's DataLoader. Those that make batches, which the dataset does, are
            ignored.
    """

    dataset: ShardClips

    def __init__(
        self,
        dataset: ShardClips,
        batches_done: Callable[[], int] | None = None,
        **options: Any,
    ) -> None:
        # for overfit_batches, Lightning injects a sampler, which is None for an iterable dataset
        if "sampler" in options:
            dataset = dataset.pinned()
            del options["sampler"]
        self.batches_done = batches_done
        super().__init__(dataset, **loader_options(options))
        self._epochs = _Epochs(dataset.shuffle)
        # DataLoader accepts no sampler for an iterable dataset, nor a later one
        self.__dict__["sampler"] = self._epochs
        self._made = 0
        self._resumed: dict[str, int] = {}

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch of the next iteration."""
        self._epochs.set_epoch(epoch)

    @property
    def scheduled(self) -> ScheduledSampler:
        """Sampler of the current epoch."""
        self.dataset.scheduled.set_epoch(self._epochs.epoch)
        return self.dataset.scheduled

    def __len__(self) -> int:
        """Return the number of this rank's batches in the epoch."""
        return len(self.scheduled)

    def __iter__(self) -> Iterator[Batch]:  # type: ignore[override]
        """Iterate over the batches of the epoch, without those made before the run was resumed.

        Raises:
            ConfigError: They were made by another number of processes, which share clips otherwise.
        """
        state, self._resumed = self._resumed, {}
        if not state:
            self._epochs.begin_pass()
        # a checkpoint from the end of an epoch says nothing of the next one
        self._made = state["made"] if state.get("epoch") == self._epochs.epoch else 0
        if self._made and max(1, state["workers"]) != max(1, self.num_workers):
            raise ConfigError(
                f"num_workers was {state['workers']} and is {self.num_workers}: within an epoch, "
                "shards can be resumed with the same number only",
                argument="num_workers",
            )
        if self._made and state.get("seed", self.dataset.seed) != self.dataset.seed:
            raise ConfigError(
                f"the seed was {state['seed']} and is {self.dataset.seed}: an epoch can be resumed "
                "with the same seed only; call pl.seed_everything before the data is loaded"
            )
        self.dataset.begin(self._epochs.epoch, self._made)
        for batch in super().__iter__():
            self._made += 1
            yield batch

    def state_dict(self) -> dict[str, int]:
        """Return the epoch, its batches that are done, the number of workers and the seed."""
        made = self._made if self.batches_done is None else self.batches_done()
        own = {"workers": self.num_workers, "seed": self.dataset.seed}
        return {"epoch": self._epochs.epoch, "made": made, **own}

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Skip the batches that are done, if the same epoch is resumed."""
        self._resumed = state


@register_datamodule
class ShardDataModule(VideoDataModule):
    """Videos in the shards that ``vidpool data shard`` makes, read one after another.

    Args:
        shards: The folder with ``shards.json``.
        shuffle_buffer: From how many clips each loader process draws in training.
        **options: See :class:`vidpool.data.datamodule.VideoDataModule`.

    Raises:
        ConfigError: An option cannot work, or webdataset is missing.
        DataError: There are no complete shards.

    Examples:
        >>> from vidpool.data import VideoFolderDataModule, example_dataset
        >>> from vidpool.data.shards.writer import make_shards
        >>> size = {"frames": 8, "crop": 32, "short_side": 36, "num_workers": 0}
        >>> root = example_dataset()
        >>> files = VideoFolderDataModule(str(root), **size)
        >>> report = make_shards(files, root / "shards", num_workers=0)
        >>> data = ShardDataModule(str(root / "shards"), batch_size=4, **size)
        >>> [tuple(batch["clip"].shape) for batch in data.train_dataloader()]
        [(4, 3, 8, 32, 32), (2, 3, 8, 32, 32)]
        >>> next(iter(data.val_dataset()))["clip"].shape
        torch.Size([3, 8, 32, 32])
    """

    def __init__(self, shards: str, shuffle_buffer: int = 100, **options: Any) -> None:
        super().__init__(**options)
        require_webdataset()
        if self.sampling != "uniform":
            raise ConfigError(
                f"sampling {self.sampling} needs videos in any order, and shards are read from one "
                "end to the other: train on video files, or with sampling uniform",
                argument="sampling",
            )
        if shuffle_buffer < 1:
            raise ConfigError(
                f"shuffle_buffer must be at least 1, got {shuffle_buffer}",
                argument="shuffle_buffer",
            )
        self.folder = expand_path(shards)
        self.shuffle_buffer = shuffle_buffer
        self.manifest = read_manifest(self.folder)

    @property
    def class_names(self) -> list[str]:
        """Names of the classes, in the order of their ids."""
        names: list[str] = self.trained_classes or self.manifest["class_names"]
        return names

    def train_dataset(self) -> ShardSamples:
        """Return the dataset of random, augmented clips, for a DataLoader of your own."""
        return ShardSamples(self._training_clips(on_device=False))

    def val_dataset(self) -> ShardSamples:
        """Return the dataset of the central clip and crop of every video."""
        return ShardSamples(self._evaluation_clips("val", clips=1, crops=1))

    def test_dataset(self) -> ShardSamples:
        """Return the dataset of all views of every video."""
        views = self.preprocessing.clips, self.preprocessing.crops
        return ShardSamples(self._evaluation_clips("test", *views), self.preprocessing.crops)

    def train_dataloader(self) -> ShardLoader:
        """Return the loader of random, augmented clips."""
        return self._loader(self._training_clips(self.augment.on_device))

    def val_dataloader(self) -> ShardLoader:
        """Return the loader of the central clip and crop of every video."""
        return self._loader(self._evaluation_clips("val", clips=1, crops=1))

    def test_dataloader(self) -> ShardLoader:
        """Return the loader of all views of every video."""
        views = self.preprocessing.clips, self.preprocessing.crops
        return self._loader(self._evaluation_clips("test", *views))

    def _training_clips(self, on_device: bool) -> ShardClips:
        read = partial(
            _training_clip,
            replace(self.augment, on_device=on_device),
            self.decoder,
            self.fast,
            self.preprocessing.square_pixels,
            self.transform,
        )
        return self._clips("train", 1, read, self.schedule, train=True)

    def _evaluation_clips(self, split: Split, clips: int, crops: int) -> ShardClips:
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
        return self._clips(split, clips, read, self.eval_schedule, train=False)

    def _clips(
        self, split: Split, clips: int, read: ReadClip, schedule: Schedule, train: bool
    ) -> ShardClips:
        there = self.manifest["shards"]
        split = choose_split(split, {name for name, shards in there.items() if shards})
        shards = [Shard(self.folder / s["name"], s["videos"]) for s in there.get(split, [])]
        if not sum(shard.videos for shard in shards):
            raise DataError(f"{self.folder}: {empty_split_message(split)}")
        return ShardClips(
            shards,
            self.manifest["sizes"][split],
            clips,
            read,
            schedule,
            self.on_bad_video,
            buffer=self.shuffle_buffer,
            shape=self.preprocessing.shape,
            preprocessing=self.preprocessing,
            **self._sampler_settings(train),
        )

    def _loader(self, dataset: ShardClips) -> ShardLoader:
        # it knows its length, and shares the clips out
        warnings.filterwarnings("ignore", "Your `IterableDataset` has `__len__` defined")
        loader = ShardLoader(dataset, **self._loader_settings(dataset.shuffle))
        loader.set_epoch(self.trainer.current_epoch if self.trainer else 0)
        return loader


def _training_clip(
    augment: Augmentation,
    decoder: str,
    fast: bool,
    square_pixels: bool,
    transform: ClipTransform | None,
    video: LabelledVideo,
    request: ClipRequest,
) -> Batch:
    options: dict[str, Any] = {"square_pixels": square_pixels, "transform": transform}
    clips = TrainingClips([video], augment, decoder, fast=fast, **options)
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
