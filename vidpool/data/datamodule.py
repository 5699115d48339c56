"""The base class of all datamodules: clip shape, augmentation, views and class ids."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any, Literal, get_args

import pytorch_lightning as pl

from vidpool.data.catalogue.listing import OnBadVideo
from vidpool.data.catalogue.table import UNLABELLED
from vidpool.data.parallel import usable_cpus
from vidpool.data.schedule import ConstantSchedule, Schedule
from vidpool.data.transforms.augmentation import Augmentation
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
    :class:`vidpool.data.dataset.Batch`; clips are uint8, and the classifier normalizes them on the
    device.

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
            raise ConfigError(f"num_workers must not be negative, got {num_workers}")
        if on_bad_video not in get_args(OnBadVideo):
            raise ConfigError(
                f"on_bad_video must be one of {', '.join(get_args(OnBadVideo))}, "
                f"got {on_bad_video!r}"
            )
        if sampling not in get_args(Sampling):
            raise ConfigError(
                f"sampling must be one of {', '.join(get_args(Sampling))}, got {sampling!r}"
            )
        if decode == "fast" and decoder not in ("auto", "pyav"):
            raise ConfigError(f"decode fast is for decoder auto or pyav, not {decoder}")
        if square_pixels and decoder not in ("auto", "pyav"):
            raise ConfigError(f"square_pixels is for decoder auto or pyav, not {decoder}")
        if not 0 <= max_bad_share <= 1:
            raise ConfigError(f"max_bad_share must lie within [0, 1], got {max_bad_share}")
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
        self.batch_size = batch_size
        self.schedule: Schedule = ConstantSchedule(ClipShape(frames, stride, crop), batch_size)
        # fewest clips, by shape, of an incomplete training batch; the classifier knows them
        self.smallest_batches: dict[ClipShape, int] = {}
        self.eval_schedule = ConstantSchedule(
            ClipShape(frames, stride, crop),
            batch_size if eval_batch_size is None else eval_batch_size,
        )
        self.augment = augment
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

    def _batches_done(self) -> int:
        """Return the batches of the epoch that Lightning counts as trained on when it resumes."""
        trainer: Any = self.trainer
        return trainer.fit_loop.epoch_loop.batch_progress.current.processed
