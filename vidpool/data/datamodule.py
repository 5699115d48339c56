"""The base class of all datamodules: clip shape, augmentation, views and class ids."""

import os
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any, Literal, get_args

import pytorch_lightning as pl
import torch
from pytorch_lightning.trainer.states import TrainerStatus

from vidpool.data.catalogue.listing import OnBadVideo
from vidpool.data.catalogue.table import UNLABELLED
from vidpool.data.parallel import usable_cpus
from vidpool.data.schedule import ConstantSchedule, Schedule
from vidpool.data.transforms.augmentation import Augmentation
from vidpool.data.transforms.custom import ClipTransform, check_picklable, check_transform
from vidpool.data.views import ClipShape, Preprocessing
from vidpool.errors import ConfigError, DataError
from vidpool.video import Decoder

Sampling = Literal["uniform", "class_balanced"]
# of Kinetics-400's pixels, as torchvision's video models use them
MEAN = (0.43216, 0.394666, 0.37645)
STD = (0.22803, 0.22145, 0.216989)


class VideoDataModule(pl.LightningDataModule, ABC):
    """Clips of labelled videos for training, validation and testing.

    A subclass says what the classes are called (:attr:`class_names`) and makes the loaders;
    :class:`vidpool.data.listed.ListedDataModule` does so for video files. Batches are
    :class:`vidpool.data.dataset.Batch`; clips are uint8, and the
    classifier normalizes them on the device.

    Outside a Trainer, the loaders work as PyTorch's: each pass over a training loader is an epoch
    of its own. Clips and their order depend on the seed of ``pl.seed_everything``, or else on that
    of ``torch.manual_seed``.

    Validation looks at the central clip and crop of each video; testing at ``test_clips`` x
    ``test_crops`` views.

    Args:
        frames: T, frames of a clip.
        stride: Temporal stride, in frames of the video.
        crop: Side of the square clip, pixels.
        short_side: In evaluation, pixels to which the shorter side is scaled before cropping.
        batch_size: Training clips a step on each device. The attribute of this name may be changed
            later; loaders that are made from then on have the new size.
        eval_batch_size: Clips of a video a step on each device; by default ``batch_size``.
        test_clips: Clips of a video in testing, spread evenly.
        test_crops: Crops of each of these clips, 1 or 3.
        augment: How training clips are varied.
        transform: Callable on uint8 (T, C, H, W) training clips, applied after the crop of
            ``augment`` and before its changes of colour; it returns a uint8 clip of any height and
            width that are equal within a batch. Worker processes call it; what it draws from
            PyTorch's generator depends on the clip's seed alone. Defaults to None.
        sampling: ``uniform`` takes a clip of every video once an epoch. ``class_balanced`` takes as
            many clips, but equally many of each class: videos of small classes come several times,
            of large ones not all in every epoch.
        decoder: How videos are read, see :func:`vidpool.video.open_video`.
        decode: ``exact``, or ``fast``: pixels that are not quite right, see there.
        square_pixels: Scale frames to square pixels, where a file declares other ones, see there.
        on_bad_video: What to do about videos that are missing or cannot be read. ``error`` stops
            there. Else those known to be bad beforehand are left out, and of those found in
            training ``skip`` leaves the clip out and ``substitute`` puts another video's in its
            place; evaluation does not count them. All are counted, reported at the end of the
            epoch, and listed in ``bad_videos.csv`` in the run's folder.
        max_bad_share: The share of a split's videos, and of an epoch's clips, that may be bad; more
            is an error.
        num_workers: Loader processes. Defaults to one per CPU, at most 8.
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
        transform: ClipTransform | None = None,
        sampling: Sampling = "uniform",
        decoder: Decoder = "auto",
        decode: Literal["exact", "fast"] = "exact",
        square_pixels: bool = False,
        on_bad_video: OnBadVideo = "error",
        max_bad_share: float = 0.1,
        num_workers: int | None = None,
        worker_start: Literal["fork", "spawn", "forkserver"] | None = None,
        mean: tuple[float, float, float] = MEAN,
        std: tuple[float, float, float] = STD,
        static: bool = False,
    ) -> None:
        super().__init__()
        if num_workers is not None and num_workers < 0:
            raise ConfigError(
                f"num_workers must not be negative, got {num_workers}", argument="num_workers"
            )
        for name, value, choices in (
            ("on_bad_video", on_bad_video, get_args(OnBadVideo)),
            ("sampling", sampling, get_args(Sampling)),
        ):
            if value not in choices:
                raise ConfigError(
                    f"{name} must be one of {', '.join(choices)}, got {value!r}", argument=name
                )
        if decode == "fast" and decoder not in ("auto", "pyav"):
            raise ConfigError(
                f"decode fast is for decoder auto or pyav, not {decoder}", argument="decode"
            )
        if square_pixels and decoder not in ("auto", "pyav"):
            raise ConfigError(
                f"square_pixels is for decoder auto or pyav, not {decoder}",
                argument="square_pixels",
            )
        if not 0 <= max_bad_share <= 1:
            raise ConfigError(
                f"max_bad_share must lie within [0, 1], got {max_bad_share}",
                argument="max_bad_share",
            )
        if not isinstance(augment, Augmentation):
            raise ConfigError(
                f"augment must be an Augmentation, got {augment!r}; a callable on clips is given "
                "as transform",
                argument="augment",
            )
        check_transform(transform)
        self.preprocessing = Preprocessing(
            frames,
            stride,
            short_side,
            crop,
            test_clips,
            test_crops,
            tuple(mean),
            tuple(std),
            square_pixels,
        )
        self._schedule: Schedule = ConstantSchedule(self.preprocessing.shape, batch_size)
        self._batch_size = batch_size
        # fewest clips, by shape, of an incomplete training batch; the classifier knows them
        self.smallest_batches: dict[ClipShape, int] = {}
        if eval_batch_size is not None and eval_batch_size < 1:
            raise ConfigError(
                f"eval_batch_size must be at least 1, got {eval_batch_size}",
                argument="eval_batch_size",
            )
        self.eval_batch_size = eval_batch_size
        self.augment = augment
        self.transform = transform
        self.sampling: Sampling = sampling
        self.decoder = decoder
        self.fast = decode == "fast"
        self.on_bad_video: OnBadVideo = on_bad_video
        self.max_bad_share = max_bad_share
        self.num_workers = min(8, usable_cpus()) if num_workers is None else num_workers
        self.worker_start = worker_start
        self.static = static
        self.trained_classes: list[str] | None = None

    @property
    def batch_size(self) -> int:
        """Training clips a step on each device; with multigrid, full clips."""
        return self._batch_size

    @batch_size.setter
    def batch_size(self, size: int) -> None:
        if not isinstance(self._schedule, ConstantSchedule):
            raise ConfigError(
                f"batch_size cannot become {size}: the batches have the sizes that "
                f"{type(self._schedule).__name__} gives them, beginning with {self._batch_size}. "
                "Batch sizes can be searched for without multigrid only",
                argument="batch_size",
            )
        trainer: Any = self.trainer
        running = getattr(getattr(trainer, "state", None), "status", None) == TrainerStatus.RUNNING
        if running and trainer.world_size > 1:
            raise ConfigError(
                f"batch_size cannot become {size} while {trainer.world_size} processes run, which "
                "must have the same: search for a batch size with one process",
                argument="batch_size",
            )
        self._schedule = ConstantSchedule(self._schedule.shapes()[0], size)
        self._batch_size = size

    @property
    def schedule(self) -> Schedule:
        """Shape and batch size of the training clips at each step; constant unless set."""
        return self._schedule

    @schedule.setter
    def schedule(self, schedule: Schedule) -> None:
        self._schedule = schedule

    @property
    def eval_schedule(self) -> ConstantSchedule:
        """Shape and batch size of evaluation."""
        size = self.batch_size if self.eval_batch_size is None else self.eval_batch_size
        return ConstantSchedule(self.preprocessing.shape, size)

    def predict_dataloader(self) -> Any:
        """Return the loader of all views of every test video, see :meth:`test_dataloader`."""
        return self.test_dataloader()

    @property
    @abstractmethod
    def class_names(self) -> list[str]:
        """Names of the classes, in the order of their ids."""

    def use_classes(self, names: Sequence[str] | None) -> None:
        """Use the class ids of a trained network; labels are matched to its classes by name.

        Evaluation then needs neither training videos nor a video of every class.

        Args:
            names: Class names in the order of the network's ids; None for the dataset's own.
        """
        self.trained_classes = None if names is None else list(names)

    def class_ids(self, own: Sequence[str]) -> list[int]:
        """Return the id of each class of the dataset, see :meth:`use_classes`.

        Args:
            own: Class names in the order of the dataset's own ids.

        Returns:
            An id for each; :data:`~vidpool.data.catalogue.table.UNLABELLED` for a class that the
            network does not know.
        """
        if self.trained_classes is None:
            return list(range(len(own)))
        ids = {name: number for number, name in enumerate(self.trained_classes)}
        return [ids.get(name, UNLABELLED) for name in own]

    def unknown_classes(self, place: object, names: Sequence[str]) -> DataError:
        """Return the error for classes that the network was not trained on.

        Args:
            place: Folder of the videos.
            names: Names of the classes.
        """
        known = self.trained_classes or []
        named = ", ".join(map(repr, names[:5])) + (", …" if len(names) > 5 else "")
        hint = "test on videos of its classes only, or give them its names"
        if known == [str(number) for number in range(len(known))]:
            hint = "it was imported without their names: see vidpool import --classes"
        return DataError(
            f"{place}: the checkpoint does not know {len(names)} of the data's classes: {named}. "
            f"Its {len(known)} classes are {', '.join(map(repr, known[:5]))}"
            f"{', …' if len(known) > 5 else ''}: {hint}"
        )

    @property
    def num_classes(self) -> int:
        """Number of classes."""
        return len(self.class_names)

    def describe(self) -> dict[str, Any]:
        """Return what a checkpoint must hold so that prediction needs nothing else."""
        return {"class_names": self.class_names, "preprocessing": self.preprocessing.to_dict()}

    def _loader_settings(self, train: bool) -> dict[str, Any]:
        """Return the arguments of a loader that follow from the datamodule."""
        if train:
            check_picklable(self.transform, self.num_workers, self.worker_start)
        return {
            "batches_done": self._batches_done if self.trainer and train else None,
            "num_workers": self.num_workers,
            "multiprocessing_context": self.worker_start if self.num_workers else None,
            "persistent_workers": self.num_workers > 0,
            "pin_memory": torch.cuda.is_available(),
        }

    def _sampler_settings(self, train: bool) -> dict[str, Any]:
        """Return the arguments of a sampler that follow from the datamodule and the trainer."""
        trainer = self.trainer
        # with a trainer it must be the same on every rank and in a resumed run; PyTorch's own seed
        # changes while vidpool trains
        seed = os.environ.get("PL_GLOBAL_SEED", 0 if trainer else torch.initial_seed())
        return {
            "num_replicas": trainer.world_size if trainer else 1,
            "rank": trainer.global_rank if trainer else 0,
            "shuffle": train,
            "seed": int(seed) % 2**63,
            "smallest": self.smallest_batches,
        }

    def _batches_done(self) -> int:
        """Return the batches of the epoch that Lightning counts as trained on when it resumes."""
        trainer: Any = self.trainer
        return trainer.fit_loop.epoch_loop.batch_progress.current.processed
