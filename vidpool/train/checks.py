"""Checks of a training: callbacks, batches too small for batch norm, and checkpoints.

Checkpoints have to fit the training that resumes from them, or the evaluation that loads them.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence, Sized
from contextlib import contextmanager
from typing import Any

import pytorch_lightning as pl
from pytorch_lightning.callbacks import (
    BatchSizeFinder,
    LearningRateFinder,
    StochasticWeightAveraging,
    WeightAveraging,
)
from pytorch_lightning.utilities import rank_zero_info

from vidpool.data.datamodule import VideoDataModule
from vidpool.data.schedule import ClipShape, ConstantSchedule, ScheduledSampler
from vidpool.errors import CheckpointError, ConfigError
from vidpool.models.cost import values_per_channel
from vidpool.train.batches import as_dict
from vidpool.train.checkpoints import CLASS
from vidpool.train.network import ARCHITECTURE, input_channels
from vidpool.train.optim import same_groups

FINETUNING = ("freeze", "backbone_lr", "layer_decay")
"""The settings that determine which parameters an optimizer trains, and in which groups."""


def check_batch_size_finder(trainer: pl.Trainer) -> None:
    """Refuse Lightning's batch-size finder where it could not find anything.

    Raises:
        ConfigError: The training has several processes, no datamodule with a batch size, or batches
            of several sizes.
    """
    if not _has_callback(trainer, BatchSizeFinder):
        return
    datamodule = getattr(trainer, "datamodule", None)
    if trainer.world_size > 1:
        raise ConfigError(
            f"the batch-size finder needs a single process, but there are {trainer.world_size}: "
            "run it with devices=1, and train with the batch size that it finds"
        )
    if isinstance(datamodule, VideoDataModule) and not isinstance(
        datamodule.schedule, ConstantSchedule
    ):
        raise ConfigError(
            "the batch-size finder needs batches of one size, but the schedule is a "
            f"{type(datamodule.schedule).__name__}"
        )


def check_multigrid_callbacks(trainer: pl.Trainer) -> None:
    """Refuse callbacks that cannot work while the batches of multigrid training vary.

    Raises:
        ConfigError: The trainer has a tuner, or stochastic weight averaging.
    """
    reasons = {
        LearningRateFinder: "the rates that it tries would be on batches of different sizes",
        BatchSizeFinder: "batches have several sizes",
        StochasticWeightAveraging: "it replaces the learning rate, which must follow the batches",
    }
    for kind, reason in reasons.items():
        if _has_callback(trainer, kind):
            raise ConfigError(
                f"multigrid and {kind.__name__} exclude each other: {reason}. Use it in a training "
                "with clips of one shape"
            )


def _has_callback(trainer: pl.Trainer, kind: type[pl.Callback]) -> bool:
    callbacks = trainer.callbacks  # type: ignore[attr-defined]
    return any(isinstance(each, kind) for each in callbacks)


def channels_of(settings: Mapping[str, Any]) -> int | None:
    """Return C of the clips: the option ``in_channels``, 3 for named networks, or else None."""
    channels = (settings.get("backbone_options") or {}).get("in_channels")
    if channels is None and not str(settings.get("backbone")).startswith(CLASS):
        return 3
    return channels


def batch_size_of(batch: Any) -> int:
    """Return the number of clips in a batch."""
    return len(as_dict(batch)["clip"])


def smallest_batches(classifier: Any, shapes: Iterable[ClipShape]) -> dict[ClipShape, int]:
    """Return the fewest clips that batch norm can be trained on, by clip shape.

    A batch of one clip is too small if a batch norm gets a single value per channel of it.

    Args:
        classifier: A :class:`~vidpool.train.classifier.VideoClassifier`.
        shapes: Shapes of training clips.

    Returns:
        2 for each shape whose batches need two clips; other shapes are left out.
    """
    channels = channels_of(classifier.hparams) or input_channels(classifier.model)
    enough: list[ClipShape] = []
    smallest = {}
    for shape in sorted(shapes, key=lambda shape: shape.frames * shape.crop**2):
        # feature maps do not shrink as clips grow, so that mostly one shape is tried
        if any(one.frames <= shape.frames and one.crop <= shape.crop for one in enough):
            continue
        size = (
            2 * (shape.crop,) if classifier.is_image_model else (shape.frames, *2 * (shape.crop,))
        )
        try:
            values = values_per_channel(classifier.model, size, channels)
        except ConfigError:  # the first step fails for the same reason, with its message
            continue
        if values == 1:
            smallest[shape] = 2
        else:
            enough.append(shape)
    return smallest


def leave_out_small_batches(
    trainer: pl.Trainer, datamodule: VideoDataModule, classifier: Any
) -> None:
    """Have a datamodule leave out the batches that are too small for batch norm.

    Args:
        trainer: The trainer, set up for training.
        datamodule: The datamodule.
        classifier: A :class:`~vidpool.train.classifier.VideoClassifier`.
    """
    synchronized = getattr(trainer.strategy, "_layer_sync", None) is not None
    # synchronized batch norm has the values of all ranks
    over_ranks = synchronized and trainer.world_size > 1
    shapes = [] if over_ranks else datamodule.schedule.shapes()
    datamodule.smallest_batches = smallest_batches(classifier, shapes)


def report_left_out(trainer: pl.Trainer) -> bool:
    """Report the incomplete batch that an epoch leaves out; return True if there is one."""
    sampler: ScheduledSampler | None = getattr(trainer.train_dataloader, "scheduled", None)
    if sampler is None or sampler.left_out < sampler.num_replicas:
        return False
    clips = "1 clip" if sampler.num_replicas == 1 else "1 clip on each process"
    rank_zero_info(
        f"the last batch of epoch {trainer.current_epoch} would be {clips}, which ends as a "
        "single value per channel, of which batch norm has no statistics: such batches are "
        f"left out. Of {sampler.total} clips, {sampler.total - sampler.left_out} are trained on"
    )
    return True


@contextmanager
def explain_single_values(
    classifier: pl.LightningModule, batch: Any, batch_idx: int
) -> Iterator[None]:
    """Explain PyTorch's error about a batch of which batch norm gets one value per channel.

    Args:
        classifier: The classifier, in a training step.
        batch: The batch, of vidpool's loaders.
        batch_idx: Number of the batch in its epoch.

    Raises:
        ConfigError: The batch is too small; the message says why, and what to do.
    """
    try:
        yield
    except ValueError as error:
        if "Expected more than 1 value per channel" not in str(error):
            raise
        clip, requested = batch["clip"], batch.get("requested", 1)
        shape = " x ".join(map(str, clip.shape[2:]))
        sampler = getattr(classifier.trainer.train_dataloader, "scheduled", None)
        subject, advice = _cause_and_advice(sampler, clip, requested, batch_idx)
        raise ConfigError(
            f"{subject} of {shape} ends as a single value per channel, of which batch norm has "
            f"no statistics: {advice}, or set crop higher"
        ) from error


def _cause_and_advice(
    sampler: ScheduledSampler | None, clips: Sized, requested: int, batch_idx: int
) -> tuple[str, str]:
    """Return the subject of the message and what can be done about the batch."""
    if len(clips) > 1:  # sub-batch norm takes each clip by itself
        return f"each of {len(clips)} clips", "set multigrid's sub_batch_norm to 2 or more"
    subject = "a batch of 1 clip"
    if requested > 1:
        return (
            f"{subject} (the others of {requested} cannot be read)",
            "set on_bad_video to substitute",
        )
    batches = [] if sampler is None else [step.batch_size for step in sampler.plan]
    if sampler is not None and len(batches) == 1 and sampler.total < 2 * sampler.num_replicas:
        return subject, "train on more videos"
    if batches and batches[max(0, batch_idx - 1)] == 1:
        return subject, "set batch_size to 2 or more"
    # a loader without a datamodule does not know which batches the network needs
    return subject, "leave incomplete batches out, as trainer.fit(model, datamodule=...) does"


def check_same_network(
    saved: Mapping[str, Any], settings: Mapping[str, Any], resuming: bool
) -> None:
    """Refuse the checkpoint of another network and, for resuming, of another optimizer.

    Args:
        saved: Settings in the checkpoint.
        settings: Settings of the classifier that loads it.
        resuming: A training resumes from the checkpoint.

    Raises:
        CheckpointError: The settings differ; the message says in what, and how to fine-tune.
    """
    names = (*ARCHITECTURE, "optimizer") if resuming else ARCHITECTURE
    differing = [
        f"{name} is {saved[name]!r} in the checkpoint and {settings[name]!r} here"
        for name in names
        if name in saved
        and saved[name] != settings[name]
        # a class may have moved to another module; the keys of its weights decide
        and not all(str(each[name]).startswith(CLASS) for each in (saved, settings))
    ]
    if differing:
        raise CheckpointError(
            f"the checkpoint is of another network: {'; '.join(differing)}. To fine-tune its "
            "weights on other classes give it as init_from instead of ckpt_path",
            argument="ckpt_path",
        )


def check_parameter_groups(
    groups: Sequence[Mapping[str, Any]],
    new: Sequence[Mapping[str, Any]],
    saved: Mapping[str, Any],
    settings: Mapping[str, Any],
) -> None:
    """Refuse an optimizer with other parameters, or with the parameters in other groups.

    Args:
        groups: Parameter groups in the checkpoint.
        new: Parameter groups of the optimizer that resumes.
        saved: Settings in the checkpoint.
        settings: Settings of the classifier that resumes.

    Raises:
        CheckpointError: The groups differ; the message names the settings that cause it.
    """
    if same_groups(groups, new):
        return
    differing = [
        f"{name} is {saved[name]} in the checkpoint and {settings[name]} here"
        for name in FINETUNING
        if name in saved and saved[name] != settings[name]
    ]
    raise CheckpointError(
        "the checkpoint's optimizer trains other parameters, or groups them otherwise: "
        f"{'; '.join(differing) or 'they are not named'}. To change this give the checkpoint "
        "as init_from instead of ckpt_path",
        argument="ckpt_path",
    )


def check_averaging(checkpoint: Mapping[str, Any], trainer: pl.Trainer) -> None:
    """Refuse to resume from averaged weights without the callback that averages them.

    Raises:
        CheckpointError: The trainer lacks the callback.
    """
    callbacks = trainer.callbacks  # type: ignore[attr-defined]
    averages = any(isinstance(each, WeightAveraging) for each in callbacks)
    if "averaging_state" in checkpoint and not averages:
        raise CheckpointError(
            "the checkpoint's weights are an average (EMA), and the weights in training are kept "
            "separately. Resume with the callback that averaged them, "
            "or give the checkpoint as init_from to start from the average",
            argument="ckpt_path",
        )


def check_class_names(saved: Sequence[str], names: Sequence[str]) -> None:
    """Refuse a checkpoint of other classes.

    Args:
        saved: Class names in the checkpoint.
        names: Class names of the data, as many.

    Raises:
        CheckpointError: The names differ; the message gives the first that does.
    """
    if saved == names:
        return
    number = next(i for i in range(len(names)) if names[i] != saved[i])
    unnamed = saved == [str(i) for i in range(len(saved))]
    hint = "It was imported without their names: see vidpool import --classes. " * unnamed
    raise CheckpointError(
        f"the checkpoint's classes are not the data's: class {number} is {saved[number]!r} "
        f"in the checkpoint and {names[number]!r} in the data. {hint}To fine-tune on other "
        "classes give the checkpoint as init_from instead of ckpt_path",
        argument="ckpt_path",
    )
