"""The learning-rate scheduler that follows the progress of the training, not its steps."""

import math
from collections.abc import Iterable, Mapping
from typing import Any, Literal

import pytorch_lightning as pl
import torch
from torch.optim.lr_scheduler import LRScheduler

from vidpool.data.schedule import ScheduledSampler

LRSchedule = Literal["step", "cosine", "constant"]


def lr_factor(
    epochs_done: float,
    schedule: LRSchedule,
    max_epochs: float,
    warmup_epochs: float = 0.0,
    milestones: Iterable[float] = (),
    gamma: float = 0.1,
) -> float:
    """Return the factor of the base learning rate.

    It is the product of a linear warm-up from 1 % and the schedule: ``step`` is multiplied by
    ``gamma`` at each milestone, ``cosine`` falls to 0 at ``max_epochs`` (Loshchilov and Hutter,
    2017).

    Args:
        epochs_done: Progress in epochs, with its fraction.
        schedule: Name of the schedule.
        max_epochs: Length of the training.
        warmup_epochs: Length of the warm-up. Defaults to 0, no warm-up.
        milestones: Epochs at which ``step`` falls.
        gamma: Factor of ``step`` at each milestone.
    """
    warmup = 1.0
    if epochs_done < warmup_epochs:
        warmup = 0.01 + 0.99 * epochs_done / warmup_epochs
    if schedule == "step":
        return warmup * gamma ** sum(epochs_done >= m for m in milestones)
    if schedule == "cosine":
        return warmup * 0.5 * (1 + math.cos(math.pi * min(1.0, epochs_done / max_epochs)))
    return warmup


class ScheduledLR(LRScheduler):
    """Sets the learning rate of each step from its place in the training schedule.

    The rate is ``lr`` of the settings, times the factor of the step's batch size, times
    :func:`lr_factor`; each parameter group gets it times its ``lr_scale``. Lightning steps this
    scheduler after every step of the optimizer (interval ``step``), and it then sets the rate of
    the following step. After the last step of an epoch that is the first step of the next epoch,
    whose plan follows from the schedule. With gradient accumulation, the rate is that of the last
    batch of those that are accumulated. With a loader of unknown length, the rate follows whole
    epochs.

    A rate that a callback sets counts from then on: the schedule is scaled by it.

    The scheduler saves nothing: a resumed run follows the settings that it is given.

    Args:
        optimizer: The optimizer.
        settings: Settings of :class:`~vidpool.train.classifier.VideoClassifier`; they are looked
            up at every step, so that a learning rate that a tuner finds counts.
        trainer: The trainer, which knows the epoch and the batch.
    """

    def __init__(
        self, optimizer: torch.optim.Optimizer, settings: Mapping[str, Any], trainer: pl.Trainer
    ) -> None:
        # LRScheduler.__init__ would leave base rates in the groups, which are saved
        self.optimizer = optimizer
        self.base_lrs = [group["lr"] for group in optimizer.param_groups]
        self.last_epoch = 0
        self._last_lr = list(self.base_lrs)
        self._settings = settings
        self._made_lr = settings["lr"]
        self._trainer = trainer
        # stochastic weight averaging adds an epoch to the trainer's later
        self._max_epochs = trainer.max_epochs or 1
        self._rate: float | None = None
        # factors by which others, such as callbacks, changed the rate of each group
        self._factors = [1.0] * len(self.base_lrs)
        self._restored = False

    def state_dict(self) -> dict[str, Any]:
        """Return nothing: the settings and the trainer's progress determine the rate."""
        return {}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:  # noqa: ARG002
        """Note that a checkpoint replaced the rates in the optimizer."""
        self._restored = True

    def get_lr(self) -> list[float | torch.Tensor]:
        """Return the learning rate of each parameter group."""
        return list(self._last_lr)

    def start(self, resumed: bool) -> None:
        """Set the rate of the first step, unless another was set since the optimizer was made.

        Args:
            resumed: The optimizer has the rates of the run that is resumed.
        """
        progress: Any = self._trainer.fit_loop.epoch_loop.batch_progress
        batch = progress.current.processed
        if batch >= self._trainer.num_training_batches:  # of the epoch before
            batch = 0
        self._rate = self.rate(self._trainer.current_epoch, batch)
        current = [group["lr"] for group in self.optimizer.param_groups]
        # a checkpoint brought the rates of its run, or a tuner changed lr of the settings
        replaced = resumed or self._restored or self._settings["lr"] != self._made_lr
        self._restored = False
        if replaced:
            self._last_lr = current
        if current == self._last_lr:
            self._apply()
        else:
            self._keep_changes()
            self._last_lr = current

    def correct(self, epoch: int, batch: int) -> None:
        """Set the rate of a step if the one set for it before was wrong.

        The step before cannot know an epoch that ended early, nor the length of the next epoch of a
        loader without a schedule.
        """
        rate = self.rate(epoch, batch)
        if rate != self._rate:
            self._rate = rate
            self._apply()

    def step(self, epoch: int | None = None) -> None:  # noqa: ARG002
        """Set the rate of the step that follows the current one."""
        trainer = self._trainer
        self.last_epoch += 1
        current, following = trainer.current_epoch, trainer.fit_loop.batch_idx + 1
        if following >= trainer.num_training_batches:
            current, following = current + 1, 0
            if trainer.max_epochs is not None and 0 <= trainer.max_epochs <= current:
                return
        self._rate = self.rate(current, following)
        self._apply()

    def rate(self, epoch: int, batch: int) -> float:
        """Return the base learning rate of a step.

        Args:
            epoch: The current epoch, or the one after it.
            batch: Number of the batch in its epoch.
        """
        trainer, settings = self._trainer, self._settings
        # loaders that are not vidpool's have no schedule
        sampler: ScheduledSampler | None = getattr(trainer.train_dataloader, "scheduled", None)
        batches = trainer.num_training_batches
        done, last, factor = float(epoch), float(self._max_epochs), 1.0
        if sampler is None:
            if batches != math.inf:
                done = epoch + self._stepping_batch(batch, int(batches)) / int(batches)
        else:
            schedule = sampler.schedule
            plan = sampler.plan if epoch == sampler.epoch else sampler.plan_of(epoch)
            # a trial run of few batches has the rates of a whole epoch
            limited = batches < len(sampler.plan)
            count = min(int(batches), len(plan)) if limited else len(plan)
            batch = self._stepping_batch(batch, count)
            end = plan[count - 1].first + plan[count - 1].batch_size * sampler.num_replicas
            done = schedule.recipe_epoch(epoch + plan[batch].first / end)
            last = schedule.recipe_epoch(last)
            factor = plan[batch].lr_factor
        lr = settings["lr"] * factor
        return lr * lr_factor(
            done,
            settings["lr_schedule"],
            last,
            settings["warmup_epochs"],
            settings["milestones"] or (),
            settings["gamma"],
        )

    def _stepping_batch(self, batch: int, batches: int) -> int:
        """Return the batch with which the optimizer's step is made that a batch belongs to."""
        gathered = self._trainer.accumulate_grad_batches
        return min(batch - batch % gathered + gathered, batches) - 1

    def _keep_changes(self) -> None:
        """Note the factors by which others changed the rates since they were set here."""
        for number, group in enumerate(self.optimizer.param_groups):
            rate = self._last_lr[number]
            if group["lr"] != rate and rate > 0:
                self._factors[number] *= group["lr"] / rate

    def _apply(self) -> None:
        """Set the rate of every group; changes by others stay, as factors."""
        assert self._rate is not None
        self._keep_changes()
        for group, factor in zip(self.optimizer.param_groups, self._factors, strict=True):
            group["lr"] = self._rate * group.get("lr_scale", 1.0) * factor
        self._last_lr = [group["lr"] for group in self.optimizer.param_groups]


def set_lr(optimizer: torch.optim.Optimizer, lr: float) -> None:
    """Set the learning rate of each group to ``lr`` times its ``lr_scale``."""
    for group in optimizer.param_groups:
        group["lr"] = lr * group.get("lr_scale", 1.0)
