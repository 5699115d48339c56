"""A data loader that resumes from a checkpoint in the middle of an epoch."""

import signal
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from torch.utils.data import DataLoader, Dataset, SequentialSampler

from vidpool.data.schedule import ScheduledSampler
from vidpool.errors import CheckpointError, ConfigError

GRACE = 60  # seconds


def ignore_signals(worker: int) -> None:  # noqa: ARG001
    """Let a loader's worker process ignore signals that stop its whole process group.

    Ctrl-C and schedulers (SIGTERM; SIGUSR1 when a job's time is up) signal all processes at once.
    The training needs its workers until the current step is done, and ends them itself. A worker
    that gets SIGTERM, also from the training if the worker does not answer, ends within `GRACE`
    seconds.

    Args:
        worker: Number of the worker, as the ``worker_init_fn`` of a DataLoader gets it.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if hasattr(signal, "alarm"):  # not on Windows
        signal.signal(signal.SIGUSR1, signal.SIG_IGN)
        signal.signal(signal.SIGTERM, lambda *_: signal.alarm(GRACE))


def loader_options(options: dict[str, Any]) -> dict[str, Any]:
    """Return the options of a DataLoader of ready batches, whatever Lightning injects."""
    made_elsewhere = ("batch_size", "shuffle", "batch_sampler", "drop_last")
    kept = {name: value for name, value in options.items() if name not in made_elsewhere}
    return {"worker_init_fn": ignore_signals, **kept, "batch_size": None}


class ScheduledLoader(DataLoader[Any]):
    """A data loader of the batches of a :class:`ScheduledSampler`.

    Each pass over a training loader is an epoch of its own: clips, their order and their randomness
    differ from those of the pass before. ``loader.sampler.set_epoch(n)``, which Lightning calls,
    chooses the epoch of the next pass.

    Workers start with the first batch, not with ``iter``: Lightning calls that before it says which
    epoch begins.

    Its state is kept in Lightning's checkpoints. After :meth:`load_state_dict` the epoch goes on
    with the batch after the last that was done; clips, their order and their randomness are those
    that it would have had. The length stays that of the whole epoch.

    Lightning may re-instantiate the loader. With ``overfit_batches``, every epoch has the batches
    of epoch 0.

    Args:
        dataset: What is read; it takes a list of requests and returns a batch.
        scheduled: What makes the batches.
        batches_done: Tells how many batches of the present epoch have been trained on; by default
            those that were handed out count.
        sampler: Sampler that Lightning puts in the place of ``scheduled``: a ``SequentialSampler``
            stands for the same batches in every epoch. Defaults to None.
        **options: Of :class:`torch.utils.data.DataLoader`. Those that make batches, which
            ``scheduled`` does, are ignored.

    Raises:
        ConfigError: ``sampler`` is another one.
    """

    sampler: ScheduledSampler

    def __init__(
        self,
        dataset: Dataset[Any],
        scheduled: ScheduledSampler,
        batches_done: Callable[[], int] | None = None,
        *,
        sampler: Iterable[Any] | None = None,
        **options: Any,
    ) -> None:
        if isinstance(sampler, SequentialSampler):
            scheduled = scheduled.pinned()
        elif isinstance(sampler, ScheduledSampler):
            scheduled = sampler
        elif sampler is not None:
            raise ConfigError(
                f"the batches of the loader follow a schedule, which {type(sampler).__name__} "
                "cannot replace",
                argument="sampler",
            )
        # attributes of the arguments' names, by which Lightning makes the loader again
        self.scheduled = scheduled
        self.batches_done = batches_done
        super().__init__(dataset, sampler=scheduled, **loader_options(options))
        self._handed_out = 0

    def __iter__(self) -> Iterator[Any]:  # type: ignore[override]
        """Iterate over the remaining batches of the current epoch."""
        self.sampler.begin_pass()
        self._handed_out = self.sampler.skipped
        for batch in super().__iter__():
            self._handed_out += 1
            yield batch

    def state_dict(self) -> dict[str, int]:
        """Return the progress in the current epoch, and what its batches depend on."""
        done = self._handed_out if self.batches_done is None else self.batches_done()
        return self._state(done)

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Resume after the batches that are done.

        Raises:
            CheckpointError: The epoch has other batches here.
        """
        here = self._state(state["batches"])
        differing = [
            f"{name} {state.get(name, 0)} in the checkpoint and {here[name]} here"
            for name in here
            if state.get(name, 0) != here[name]
        ]
        if differing:
            raise CheckpointError(
                f"the checkpoint is from the middle of an epoch, after {state['batches']} batches, "
                f"and the epoch's batches are others here: {'; '.join(differing)}. Resume with the "
                "data, batch size, sampling, schedule, seed and number of processes that it was "
                "trained with, or from a checkpoint of the end of an epoch"
            )
        self.sampler.skip(state["batches"])

    def _state(self, batches: int) -> dict[str, int]:
        sampler = self.sampler
        used = sum(step.batch_size for step in sampler.plan[:batches]) * sampler.num_replicas
        return {
            "epoch": sampler.epoch,
            "batches": batches,
            "used clips": used,
            "clips": sampler.total,
            "processes": sampler.num_replicas,
            "seed": sampler.seed,
            "class-balanced": int(sampler.labels is not None),
        }
