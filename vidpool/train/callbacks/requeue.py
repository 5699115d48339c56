"""Requeueing of SLURM jobs whose time is up before the training ends."""

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
    """Has Lightning save a checkpoint and requeue the job between two batches.

    Lightning's SLURMEnvironment does so within the signal handler, in the middle of the training
    loop: processes that are at different places may wait for each other for ever. Here the handler
    only notes the signal. Every few batches the processes exchange whether one of them got it.
    """

    def __init__(self) -> None:
        self._signalled = False
        self._requeue: Any = None

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:  # noqa: ARG002
        """Replace Lightning's signal handler, which does not exist before."""
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
        """Save and requeue if any process got the signal."""
        gathered = trainer.accumulate_grad_batches
        if (batch_idx + 1) % gathered and not trainer.is_last_batch:
            return  # the gradients so far would be lost
        self._requeue_if_signalled(trainer, pl_module, batch_idx, gathered)

    def on_validation_batch_end(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        outputs: Any,  # noqa: ARG002
        batch: Any,  # noqa: ARG002
        batch_idx: int,
        dataloader_idx: int = 0,  # noqa: ARG002
    ) -> None:
        """Save and requeue if any process got the signal."""
        self._requeue_if_signalled(trainer, pl_module, batch_idx)

    def _requeue_if_signalled(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: int, gathered: int = 1
    ) -> None:
        """Exchange signals after every tenth batch, or after the optimiser step it belongs to."""
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
    """Put the weights in training back while validation uses their average (EMA).

    Checkpoints would mistake the average for the weights otherwise.
    """
    callbacks = trainer.callbacks  # type: ignore[attr-defined]
    averages = [each for each in callbacks if isinstance(each, WeightAveraging)]
    swapped = averages if trainer.validating else []
    for each in swapped:
        each.on_validation_epoch_end(trainer, pl_module)
    yield
    for each in swapped:
        each.on_validation_epoch_start(trainer, pl_module)
