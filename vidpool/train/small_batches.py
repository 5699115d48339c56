"""Batches that are too small for batch norm: found beforehand, left out, or explained."""

from collections.abc import Iterable, Iterator, Sized
from contextlib import contextmanager
from typing import Any

import pytorch_lightning as pl
from pytorch_lightning.utilities import rank_zero_info

from vidpool.data.datamodule import VideoDataModule
from vidpool.data.schedule import ClipShape, ScheduledSampler
from vidpool.errors import ConfigError
from vidpool.models.cost import values_per_channel


def smallest_batches(classifier: Any, shapes: Iterable[ClipShape]) -> dict[ClipShape, int]:
    """Return the fewest clips that batch norm can be trained on, by clip shape.

    A batch of one clip is too small if a batch norm gets a single value per channel of it.

    Args:
        classifier: A :class:`~vidpool.train.classifier.VideoClassifier`.
        shapes: Shapes of training clips.

    Returns:
        2 for each shape whose batches need two clips; other shapes are left out.
    """
    channels = (classifier.hparams["backbone_options"] or {}).get("in_channels", 3)
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


def leave_out(trainer: pl.Trainer, datamodule: VideoDataModule, classifier: Any) -> None:
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
            f"no statistics: {advice}, or set data.crop higher"
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
            "set data.on_bad_video to substitute",
        )
    batches = [] if sampler is None else [step.batch_size for step in sampler.plan]
    if sampler is not None and len(batches) == 1 and sampler.total < 2 * sampler.num_replicas:
        return subject, "train on more videos"
    if batches and batches[max(0, batch_idx - 1)] == 1:
        return subject, "set data.batch_size to 2 or more"
    # a loader without a datamodule does not know which batches the network needs
    return subject, "leave incomplete batches out, as trainer.fit(model, datamodule=...) does"
