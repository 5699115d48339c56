"""Multigrid training under Lightning."""

from typing import Any

import pytorch_lightning as pl
from pytorch_lightning.utilities import rank_zero_info, rank_zero_warn

from vidpool.data.datamodule import VideoDataModule
from vidpool.data.multigrid_schedule import MultigridSchedule, Variant
from vidpool.data.schedule import ScheduledSampler
from vidpool.data.views import ClipShape
from vidpool.errors import ConfigError
from vidpool.models import model_info
from vidpool.nn import SubBatchNorm, split_batch_norm
from vidpool.train.checkpoints import CLASS
from vidpool.train.checks import check_multigrid_callbacks
from vidpool.train.classifier import VideoClassifier


class Multigrid(pl.Callback):
    """Trains with clips and batches of varying sizes; see :class:`MultigridSchedule`.

    ``frames``, ``stride``, ``crop`` and ``batch_size`` of the datamodule are those of the full
    clip, which validation and testing use, too. ``max_epochs`` and ``milestones`` are those of the
    recipe with clips of one shape: the number of epochs is multiplied by ``epoch_factor``, and the
    learning rate follows.

    Args:
        variant: ``paper`` for the SoftPool paper's schedule, ``original`` for that of Wu et al.
        long_cycle: Grow frames and crop in phases. Defaults to True.
        short_cycle: Change the crop from step to step. Defaults to True.
        epoch_factor: Factor of the number of epochs. Defaults to 1 for ``paper`` and 1.5 for
            ``original``.
        sub_batch_norm: Number of clips per group of batch norm's statistics in training. Defaults
            to all clips of a process's batch.
    """

    def __init__(
        self,
        variant: Variant = "paper",
        long_cycle: bool = True,
        short_cycle: bool = True,
        epoch_factor: float | None = None,
        sub_batch_norm: int | None = None,
    ) -> None:
        self.variant: Variant = variant
        self.long_cycle = long_cycle
        self.short_cycle = short_cycle
        self.epoch_factor = epoch_factor
        self.sub_batch_norm = sub_batch_norm
        self._schedule: MultigridSchedule | None = None

    def schedule(
        self, shape: ClipShape, batch_size: int, epochs: int | None, model: dict[str, Any]
    ) -> MultigridSchedule:
        """Return the schedule of a recipe's settings.

        Args:
            shape: Shape of the full clip.
            batch_size: Full clips in a batch of each process.
            epochs: Epochs of the recipe.
            model: Settings of :class:`VideoClassifier`.

        Raises:
            ConfigError: The settings do not fit multigrid training.
        """
        stepwise = model["lr_schedule"] == "step"
        schedule = MultigridSchedule(
            shape,
            batch_size,
            epochs or 0,
            (model["milestones"] or ()) if stepwise else (),
            self.variant,
            self.long_cycle,
            self.short_cycle,
            self.epoch_factor,
        )
        if model["backbone"].startswith(CLASS):  # a module says nothing of its sizes
            return schedule
        network = model_info(model["backbone"])
        for phase in schedule.phases:
            for step in phase.steps:
                clip = step.shape
                try:
                    network.check_size((clip.frames, clip.crop, clip.crop))
                except ConfigError as error:
                    raise ConfigError(f"multigrid, {phase.name}: {error}") from error
        return schedule

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Set the schedule of the datamodule and the number of epochs of the trainer."""
        if stage != "fit":
            return
        datamodule = getattr(trainer, "datamodule", None)
        if not isinstance(datamodule, VideoDataModule) or not isinstance(
            pl_module, VideoClassifier
        ):
            raise ConfigError("multigrid needs a VideoClassifier and one of vidpool's datamodules")
        check_multigrid_callbacks(trainer)
        if trainer.accumulate_grad_batches > 1:
            raise ConfigError(
                "multigrid and accumulate_grad_batches exclude each other: batches of several "
                "sizes would be added up as if they were one; change batch_size",
                argument="accumulate_grad_batches",
            )
        if self._schedule is None:
            self._schedule = self.schedule(
                datamodule.preprocessing.shape,
                datamodule.batch_size,
                trainer.max_epochs,
                dict(pl_module.hparams),
            )
            if self.sub_batch_norm is not None:
                split_batch_norm(pl_module.model, self.sub_batch_norm)
        epochs = self._schedule.epochs
        if trainer.max_epochs != epochs:
            rank_zero_info(f"multigrid: the recipe's {trainer.max_epochs} epochs become {epochs}")
        trainer.fit_loop.max_epochs = epochs
        # an epoch's length is not that of the one before
        trainer.reload_dataloaders_every_n_epochs = 1  # type: ignore[attr-defined]
        datamodule.schedule = self._schedule

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Check that every phase has steps.

        Raises:
            ConfigError: There are too few clips for a phase; the message says how many it needs.
        """
        assert self._schedule is not None  # of setup()
        loader: Any = trainer.train_dataloader
        sampler: ScheduledSampler = loader.scheduled
        for warning in self._schedule.check(sampler.total, sampler.num_replicas):
            rank_zero_warn(f"multigrid: {warning}")
        split = any(isinstance(module, SubBatchNorm) for module in pl_module.modules())
        if self.sub_batch_norm is not None and not split:
            raise ConfigError(
                "multigrid's sub_batch_norm and sync_batchnorm exclude each other",
                argument="sync_batchnorm",
            )
