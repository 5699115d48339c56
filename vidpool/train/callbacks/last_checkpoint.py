"""The checkpoint that an interrupted run goes on from."""

import os
import signal
import threading
import time
from types import FrameType
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import ModelCheckpoint

from vidpool.errors import ConfigError, StoppedError

NOTHING, SAVE, STOP = range(3)  # what is to be done after a step; the most urgent counts


class LastCheckpoint(ModelCheckpoint):
    """Keeps ``last.ckpt``, from which a run goes on with the very next step.

    It is saved every few minutes, at the end of each epoch, and when the run is told to stop:
    SIGTERM, which a preempted job gets, and Ctrl-C let the step at hand finish, save and end the
    run with :class:`~vidpool.errors.StoppedError`; a second Ctrl-C ends it at once. During
    validation the run ends without saving, since the training is as it was.

    With gradient accumulation it saves between two steps of the optimiser. Of several processes it
    is enough that one gets the signal.

    Args:
        minutes: How often it is saved within an epoch; 0 is after every step, null not at all.

    Raises:
        ConfigError: ``minutes`` is negative.
    """

    def __init__(self, minutes: float | None = 15.0) -> None:
        super().__init__(
            filename="last", save_on_train_epoch_end=True, enable_version_counter=False
        )
        if minutes is not None and not minutes >= 0:
            raise ConfigError(
                f"minutes between two checkpoints must not be negative, got {minutes}"
            )
        self.minutes = minutes
        self._saved_at = 0.0
        self._signal: int | None = None
        self._is_rank_zero = True

    def state_dict(self) -> dict[str, Any]:
        """Nothing: each run has its own file."""
        return {}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Nothing is kept."""

    def on_train_start(self, trainer: pl.Trainer, *_: Any) -> None:
        """Begin to count the minutes and to listen."""
        self._is_rank_zero = trainer.is_global_zero
        self._saved_at = time.monotonic()
        self._signal = None
        # the trainer puts back what was there before it
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGTERM, signal.SIGINT):
                signal.signal(number, self._remember)

    def on_train_batch_end(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,  # noqa: ARG002
        outputs: Any,  # noqa: ARG002
        batch: Any,  # noqa: ARG002
        batch_idx: int,
    ) -> None:
        """Save if it is time to, or if the run is to stop.

        Raises:
            StoppedError: The run was told to stop.
        """
        cut_short = _ends_here(trainer)
        within = (batch_idx + 1) % trainer.accumulate_grad_batches and not trainer.is_last_batch
        if within and not cut_short:
            return  # the gradients so far would be lost
        todo = self._todo(trainer)
        # an epoch's last step is saved with the epoch, after its validation
        if todo == STOP or ((todo == SAVE or cut_short) and not trainer.is_last_batch):
            self._save(trainer)
        if todo == STOP:
            self._stop(trainer)

    def on_validation_batch_end(self, trainer: pl.Trainer, *_: Any) -> None:
        """Stop if the run is to.

        Raises:
            StoppedError: The run was told to stop.
        """
        if self._todo(trainer) == STOP:
            self._stop(trainer)

    def on_train_epoch_end(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,  # noqa: ARG002
    ) -> None:
        """Save; if the run is to stop, the next step ends it, after this epoch's log.

        An epoch that was cut short is saved after its last step: Lightning has counted it by now.
        """
        if trainer.is_last_batch:
            self._save(trainer)

    def _remember(self, number: int, frame: FrameType | None) -> None:
        if number == signal.SIGINT and self._signal is not None:
            signal.default_int_handler(number, frame)
        self._signal = number
        if self._is_rank_zero:
            # print() and logging may be in the middle of a line of their own
            os.write(2, f"\n{signal.Signals(number).name}: stopping after this step\n".encode())

    def _todo(self, trainer: pl.Trainer) -> int:
        """What is to be done, on all ranks the same."""
        todo = NOTHING
        if self._signal is not None:
            todo = STOP
        elif self.minutes is not None and time.monotonic() - self._saved_at >= 60 * self.minutes:
            todo = SAVE
        if trainer.world_size > 1:
            votes = torch.tensor(todo, device=trainer.strategy.root_device)
            todo = int(trainer.strategy.reduce(votes, reduce_op="max"))
        return todo

    def _save(self, trainer: pl.Trainer) -> None:
        if trainer.fast_dev_run:  # type: ignore[attr-defined]
            return
        self._save_none_monitor_checkpoint(trainer, self._monitor_candidates(trainer))
        self._saved_at = time.monotonic()

    def _stop(self, trainer: pl.Trainer) -> None:
        number = self._signal or signal.SIGTERM  # which one another rank got is not known
        told = f"stopped by {signal.Signals(number).name} after {trainer.global_step} steps; "
        saved = self.best_model_path  # ModelCheckpoint's name for the file
        told += f"resume with --ckpt_path {saved}" if saved else "nothing had been saved yet"
        raise StoppedError(told, number)


def _ends_here(trainer: pl.Trainer) -> bool:
    """Whether the training ends with this step, by ``max_steps``, ``max_time`` or a callback."""
    by_steps = -1 < trainer.max_steps <= trainer.global_step
    return by_steps or (trainer.should_stop and trainer.fit_loop._can_stop_early)
