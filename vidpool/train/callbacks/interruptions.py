"""Callbacks for runs that are interrupted: ``last.ckpt``, and requeueing of SLURM jobs."""

import os
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import ModelCheckpoint, WeightAveraging
from pytorch_lightning.utilities import rank_zero_info

from vidpool.errors import ConfigError, StoppedError

NOTHING, SAVE, STOP = range(3)  # requests after a step; of several ranks the largest counts
EXCHANGE_EVERY = 10  # batches, between two exchanges of the requeueing signal


class LastCheckpoint(ModelCheckpoint):
    """Keeps ``last.ckpt``, from which a run resumes with the very next step.

    The checkpoint is saved every few minutes, at the end of each epoch, and when a signal stops the
    run: after SIGTERM, which a preempted job gets, and after Ctrl-C, the current step finishes, the
    checkpoint is saved and the run ends with :class:`~vidpool.errors.StoppedError`. A second Ctrl-C
    ends the run at once. A signal during validation ends the run without saving, since no step was
    trained since the last save.

    With gradient accumulation, saves are between two steps of the optimiser. With several
    processes, it is enough that one of them gets the signal.

    Args:
        save_minutes: Minutes between two saves within an epoch; 0 saves after every step, None
            only at the end of epochs. Defaults to 15.

    Raises:
        ConfigError: ``save_minutes`` is negative.
    """

    def __init__(self, save_minutes: float | None = 15.0) -> None:
        super().__init__(
            filename="last", save_on_train_epoch_end=True, enable_version_counter=False
        )
        if save_minutes is not None and not save_minutes >= 0:
            raise ConfigError(
                f"save_minutes must not be negative, got {save_minutes}", argument="save_minutes"
            )
        self.save_minutes = save_minutes
        self._saved_at = 0.0
        self._signal: int | None = None
        self._is_rank_zero = True

    def state_dict(self) -> dict[str, Any]:
        """Return nothing: each run has its own file."""
        return {}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Ignore the state of another run."""

    def on_train_start(self, trainer: pl.Trainer, *_: Any) -> None:
        """Start to count the minutes and to handle signals."""
        self._is_rank_zero = trainer.is_global_zero
        self._saved_at = time.monotonic()
        self._signal = None
        # the trainer restores the previous handlers
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGTERM, signal.SIGINT):
                signal.signal(number, self._note_signal)

    def on_train_batch_end(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,  # noqa: ARG002
        outputs: Any,  # noqa: ARG002
        batch: Any,  # noqa: ARG002
        batch_idx: int,
    ) -> None:
        """Save if the time is up, or if a signal stops the run.

        Raises:
            StoppedError: A signal stops the run.
        """
        cut_short = _ends_here(trainer)
        within = (batch_idx + 1) % trainer.accumulate_grad_batches and not trainer.is_last_batch
        if within and not cut_short:
            return  # the gradients so far would be lost
        request = self._request(trainer)
        # an epoch's last step is saved with the epoch, after its validation
        if request == STOP or ((request == SAVE or cut_short) and not trainer.is_last_batch):
            self._save(trainer)
        if request == STOP:
            self._stop(trainer)

    def on_validation_batch_end(self, trainer: pl.Trainer, *_: Any) -> None:
        """Stop if a signal says so.

        Raises:
            StoppedError: A signal stops the run.
        """
        if self._request(trainer) == STOP:
            self._stop(trainer)

    def on_train_epoch_end(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,  # noqa: ARG002
    ) -> None:
        """Save; a signal ends the run after the next step, when this epoch is logged.

        An epoch that was cut short is saved after its last step, since Lightning has counted the
        epoch by now.
        """
        if trainer.is_last_batch:
            self._save(trainer)

    def _note_signal(self, number: int, frame: FrameType | None) -> None:
        if number == signal.SIGINT and self._signal is not None:
            signal.default_int_handler(number, frame)
        self._signal = number
        if self._is_rank_zero:
            # print() and logging may be in the middle of a line of their own
            os.write(2, f"\n{signal.Signals(number).name}: stopping after this step\n".encode())

    def _request(self, trainer: pl.Trainer) -> int:
        """Return the most urgent request of all ranks."""
        request = NOTHING
        if self._signal is not None:
            request = STOP
        elif self._is_due():
            request = SAVE
        if trainer.world_size > 1:
            votes = torch.tensor(request, device=trainer.strategy.root_device)
            request = int(trainer.strategy.reduce(votes, reduce_op="max"))
        return request

    def _is_due(self) -> bool:
        minutes = (time.monotonic() - self._saved_at) / 60
        return self.save_minutes is not None and minutes >= self.save_minutes

    def _save(self, trainer: pl.Trainer) -> None:
        if trainer.fast_dev_run:  # type: ignore[attr-defined]
            return
        self._save_none_monitor_checkpoint(trainer, self._monitor_candidates(trainer))
        self._saved_at = time.monotonic()

    def _stop(self, trainer: pl.Trainer) -> None:
        number = self._signal or signal.SIGTERM  # the signal of another rank is unknown
        reason = f"stopped by {signal.Signals(number).name} after {trainer.global_step} steps"
        saved = self.best_model_path  # ModelCheckpoint's name for the file
        if not saved:
            reason += "; nothing had been saved yet"
        raise StoppedError(reason, number, saved or None)


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
        due = batch // EXCHANGE_EVERY > (batch - gathered) // EXCHANGE_EVERY
        if self._requeue is None or not due or trainer.sanity_checking:
            return
        if trainer.strategy.reduce_boolean_decision(self._signalled, all=False):
            self._signalled = False
            rank_zero_info("the job's time is up: saving a checkpoint and requeueing the job")
            with _trained_weights(trainer, pl_module):
                self._requeue(signal.SIGUSR1, None)

    def _note(self, signum: int, frame: FrameType | None) -> None:  # noqa: ARG002
        self._signalled = True


def _ends_here(trainer: pl.Trainer) -> bool:
    """Return True if the training ends here, by ``max_steps``, ``max_time`` or a callback."""
    by_steps = -1 < trainer.max_steps <= trainer.global_step
    return by_steps or (trainer.should_stop and trainer.fit_loop._can_stop_early)


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
