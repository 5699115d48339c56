"""A data loader that resumes from a checkpoint in the middle of an epoch."""

import signal
from collections.abc import Callable, Iterator
from typing import Any

from torch.utils.data import DataLoader, Dataset

from vidpool.data.schedule import ScheduledSampler
from vidpool.errors import CheckpointError

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


class ScheduledLoader(DataLoader[Any]):
    """A data loader of the batches of a :class:`ScheduledSampler`.

    Workers start with the first batch, not with ``iter``: Lightning calls that before it says which
    epoch begins.

    Its state is kept in Lightning's checkpoints. After :meth:`load_state_dict` the epoch goes on
    with the batch after the last that was done; clips, their order and their randomness are those
    that it would have had. The length stays that of the whole epoch.

    Args:
        dataset: What is read; it takes a list of requests and returns a batch.
        sampler: What makes the batches.
        batches_done: Tells how many batches of the present epoch have been trained on; by default
            those that were handed out count.
        **options: Of :class:`torch.utils.data.DataLoader`.
    """

    sampler: ScheduledSampler

    def __init__(
        self,
        dataset: Dataset[Any],
        sampler: ScheduledSampler,
        batches_done: Callable[[], int] | None = None,
        **options: Any,
    ) -> None:
        options.setdefault("worker_init_fn", ignore_signals)
        super().__init__(dataset, sampler=sampler, batch_size=None, **options)
        self._batches_done = batches_done
        self._handed_out = 0

    @property
    def scheduled(self) -> ScheduledSampler:
        """Sampler of the current epoch."""
        return self.sampler

    def __iter__(self) -> Iterator[Any]:  # type: ignore[override]
        """Iterate over the remaining batches of the current epoch."""
        self._handed_out = self.sampler.skipped
        for batch in super().__iter__():
            self._handed_out += 1
            yield batch

    def state_dict(self) -> dict[str, int]:
        """Return the progress in the current epoch, and what its batches depend on."""
        done = self._handed_out if self._batches_done is None else self._batches_done()
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
