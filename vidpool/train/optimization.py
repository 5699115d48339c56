"""The part of the classifier that makes its optimizer and keeps track of the learning rate."""

from collections.abc import Mapping
from typing import Any

import torch
from pytorch_lightning.utilities.types import OptimizerLRScheduler
from torch import nn

from vidpool.data.schedule import ScheduledSampler, mix_seeds
from vidpool.errors import ConfigError
from vidpool.train import checks, finetuning, optim
from vidpool.train.lr_scheduler import ScheduledLR, set_lr
from vidpool.train.steps import ClassifierSteps

LR_FINDER = "pytorch_lightning.tuner.lr_finder"
"""Module of the schedulers that try learning rates."""


class OptimizedModule(ClassifierSteps):
    """A module whose learning rate lives in its optimizer and a scheduler that Lightning knows.

    Callbacks, tuners and an overridden :meth:`configure_optimizers` may set the rate and replace
    the scheduler.
    """

    model: nn.Module
    lr_scales: dict[str, float]

    def _keep_optimizer(self, optimizer: Any, lr_scheduler: Any) -> None:
        """Keep the arguments ``optimizer`` and ``lr_scheduler``, which may be callables."""
        self._optimizer, self._lr_scheduler = optimizer, lr_scheduler
        self._reported_left_out = False
        self._forget_optimizer()

    def _forget_optimizer(self) -> None:
        """Forget what is known of the optimizer of the fit before."""
        self._initialized = False
        # of the optimizer, as they are given now, and the learning rate it was made with
        self._settings: list[dict[str, Any]] | None = None
        self._made_lr: float | None = None

    def configure_optimizers(self) -> OptimizerLRScheduler:
        """Return the optimizer and its scheduler.

        Raises:
            ConfigError: A cosine schedule has no number of epochs.
        """
        # the trainer knows by now if it resumes, and tuners search before on_fit_start
        self._load_initial_weights()
        optimizer = self._new_optimizer()
        if self._trainer is None:  # a loop without Lightning
            return optimizer
        self._settings, self._made_lr = optim.settings_of(optimizer), self.hparams["lr"]
        if self._lr_scheduler is not None:
            interval = self.hparams["lr_scheduler_interval"]
            return optim.with_scheduler(optimizer, self._lr_scheduler, interval)
        if self.hparams["lr_schedule"] == "cosine" and (self.trainer.max_epochs or -1) < 1:
            raise ConfigError(
                "lr_schedule cosine needs the trainer's max_epochs", argument="lr_schedule"
            )
        scheduler = ScheduledLR(optimizer, self.hparams, self.trainer)
        return {
            "optimizer": optimizer,
            "lr_scheduler": {"scheduler": scheduler, "interval": "step"},
        }

    def _load_initial_weights(self) -> None:
        """Load the weights of ``init_from`` once in a fit that does not resume."""
        if self._initialized or not self.hparams["init_from"] or self._trainer is None:
            return
        self._initialized = True
        if self.trainer.ckpt_path is None:
            names = self.description["class_names"] if self.description else None
            finetuning.load_initial_weights(self.model, self.hparams["init_from"], names)

    def on_train_start(self) -> None:
        """Use the data's normalization and the current settings.

        A resumed optimizer brings the settings of the old run.
        """
        self.use_normalization_of(self.trainer.train_dataloader)
        # Lightning's bf16-true makes metrics bfloat16, whose sums stop growing
        self.train_loss.set_dtype(torch.promote_types(self.train_loss.dtype, torch.float32))
        resumed = self.trainer.ckpt_path is not None
        if self._settings is not None:
            if resumed:
                optim.update_settings(self.trainer.optimizers[0], self._settings)
            lr, made_lr = self.hparams["lr"], self._made_lr
            configs = self.trainer.lr_scheduler_configs
            if self._lr_scheduler is not None and made_lr not in (None, lr) and configs:
                # a tuner found another rate
                scheduler = configs[0].scheduler
                optim.scale_rates(self.trainer.optimizers[0], scheduler, lr / made_lr)
                self._made_lr = lr
        if (scheduled := self._scheduled_lr()) is not None:
            scheduled.start(resumed)

    def on_train_epoch_start(self) -> None:
        """Correct the rate of the epoch's first step; report that a batch is left out."""
        if (scheduled := self._scheduled_lr()) is not None:
            scheduled.correct(self.current_epoch, 0)
        if not self._reported_left_out:
            self._reported_left_out = checks.report_left_out(self.trainer)

    def on_train_batch_start(self, batch: Any, batch_idx: int) -> None:
        """Seed the step, and log its learning rate.

        Random numbers of the step, such as dropout's, depend on (seed, epoch, step, rank) alone, so
        that runs resumed in the middle of an epoch are exact.
        """
        # loaders that are not vidpool's have no schedule
        sampler: ScheduledSampler | None = getattr(self.trainer.train_dataloader, "scheduled", None)
        if sampler is not None:
            torch.manual_seed(mix_seeds(sampler.seed, self.current_epoch, batch_idx, sampler.rank))
        if (scheduled := self._scheduled_lr()) is not None:
            scheduled.correct(self.current_epoch, batch_idx)
        if not self.trainer.optimizers:
            return
        optimizer = self.trainer.optimizers[0]
        for config in self.trainer.lr_scheduler_configs:
            # Lightning's learning-rate finder tries the same rate for all groups
            if type(config.scheduler).__module__ == LR_FINDER:
                set_lr(optimizer, config.scheduler.lr[0])  # type: ignore[union-attr]
        group = optimizer.param_groups[0]
        lr = float(group["lr"]) / group.get("lr_scale", 1.0)
        self.log("lr", lr, batch_size=checks.batch_size_of(batch))

    def _check_parameter_groups(self, states: Any, saved: Mapping[str, Any]) -> None:
        """Refuse to resume from an optimizer of other parameters, see :mod:`checks`."""
        # without states Lightning refuses; an overridden method makes its own groups
        own = type(self).configure_optimizers is OptimizedModule.configure_optimizers
        if states and own:
            new = self._new_optimizer().param_groups
            checks.check_parameter_groups(states[0]["param_groups"], new, saved, self.hparams)

    def _scheduled_lr(self) -> ScheduledLR | None:
        """Return the scheduler of ``lr_schedule``, unless another took its place."""
        for config in self.trainer.lr_scheduler_configs:
            if isinstance(config.scheduler, ScheduledLR):
                return config.scheduler
        return None

    def _new_optimizer(self) -> torch.optim.Optimizer:
        h = self.hparams
        settings = h["lr"], h["momentum"], h["weight_decay"]
        return optim.make_optimizer(self.model, self._optimizer, *settings, self.lr_scales)
