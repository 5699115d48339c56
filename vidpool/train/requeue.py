"""Training in jobs of SLURM that end before it does."""

import signal
from types import FrameType
from typing import Any

import pytorch_lightning as pl
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
        pl_module: pl.LightningModule,  # noqa: ARG002
        outputs: Any,  # noqa: ARG002
        batch: Any,  # noqa: ARG002
        batch_idx: int,
    ) -> None:
        """Save and requeue if any process has been told to."""
        self._ask(trainer, batch_idx)

    def on_validation_batch_end(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,  # noqa: ARG002
        outputs: Any,  # noqa: ARG002
        batch: Any,  # noqa: ARG002
        batch_idx: int,
        dataloader_idx: int = 0,  # noqa: ARG002
    ) -> None:
        """Save and requeue if any process has been told to."""
        self._ask(trainer, batch_idx)

    def _ask(self, trainer: pl.Trainer, batch: int) -> None:
        if self._requeue is None or batch % EVERY or trainer.sanity_checking:
            return
        if trainer.strategy.reduce_boolean_decision(self._signalled, all=False):
            self._signalled = False
            rank_zero_info("the job's time is up: saving a checkpoint and requeueing the job")
            self._requeue(signal.SIGUSR1, None)

    def _note(self, signum: int, frame: FrameType | None) -> None:  # noqa: ARG002
        self._signalled = True
