"""Training in jobs of SLURM that end before it does."""

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

import pytorch_lightning as pl
from pytorch_lightning.callbacks import WeightAveraging
from pytorch_lightning.utilities import rank_zero_info

EVERY = 10  # batches


class RequeueBetweenBatches(pl.Callback):
    """Has Lightning save a checkpoint and requeue the job when no batch is under way.

    Lightning's SLURMEnvironment does so within the signal's handler, in the middle of whatever
    Python was doing: where processes are at different places, they may wait for each other for
    ever. Here the signal is only noted; every few batches the processes ask each other whether one
    has had it.
    """

    def __init__(self) -> None:
        self._signalled = False
        self._requeue: Any = None

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:  # noqa: ARG002
        """Stand in for Lightning's handler, where there is one; it is not there before."""
        handler = signal.getsignal(signal.SIGUSR1)
        if callable(handler):
            self._requeue = handler
            signal.signal(signal.SIGUSR1, self._note)

    def on_train_batch_end(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        outputs: Any,  # noqa: ARG002
        batch: Any,  # noqa: ARG002
        batch_idx: int,
    ) -> None:
        """Save and requeue if any process has been told to."""
        gathered = trainer.accumulate_grad_batches
        if (batch_idx + 1) % gathered and not trainer.is_last_batch:
            return  # the gradients so far would be lost
        self._ask(trainer, pl_module, batch_idx, gathered)

    def on_validation_batch_end(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        outputs: Any,  # noqa: ARG002
        batch: Any,  # noqa: ARG002
        batch_idx: int,
        dataloader_idx: int = 0,  # noqa: ARG002
    ) -> None:
        """Save and requeue if any process has been told to."""
        self._ask(trainer, pl_module, batch_idx)

    def _ask(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: int, gathered: int = 1
    ) -> None:
        """Ask after every tenth batch, or after the step of the optimiser that it belongs to."""
        due = batch // EVERY > (batch - gathered) // EVERY
        if self._requeue is None or not due or trainer.sanity_checking:
            return
        if trainer.strategy.reduce_boolean_decision(self._signalled, all=False):
            self._signalled = False
            rank_zero_info("the job's time is up: saving a checkpoint and requeueing the job")
            with _trained_weights(trainer, pl_module):
                self._requeue(signal.SIGUSR1, None)

    def _note(self, signum: int, frame: FrameType | None) -> None:  # noqa: ARG002
        self._signalled = True


@contextmanager
def _trained_weights(trainer: pl.Trainer, pl_module: pl.LightningModule) -> Iterator[None]:
    """Put the weights in training back where validation has their average (EMA) in their place.

    Checkpoints would take the one for the other.
    """
    callbacks = trainer.callbacks  # type: ignore[attr-defined]
    averages = [each for each in callbacks if isinstance(each, WeightAveraging)]
    swapped = averages if trainer.validating else []
    for each in swapped:
        each.on_validation_epoch_end(trainer, pl_module)
    yield
    for each in swapped:
        each.on_validation_epoch_start(trainer, pl_module)
