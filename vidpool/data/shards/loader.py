"""A loader of clips from shards that resumes in the middle of an epoch."""

from collections.abc import Callable, Iterator
from typing import Any

from torch.utils.data import DataLoader

from vidpool.data.dataset import Batch
from vidpool.data.schedule import ScheduledSampler
from vidpool.data.shards.reader import ShardClips
from vidpool.errors import ConfigError


class ShardLoader:
    """A loader over :class:`ShardClips` that Lightning can resume in the middle of an epoch.

    Args:
        dataset: The clips to load.
        batches_done: As for :class:`vidpool.data.loader.ScheduledLoader`.
        **options: Of PyTorch's DataLoader.
    """

    def __init__(
        self,
        dataset: ShardClips,
        batches_done: Callable[[], int] | None = None,
        **options: Any,
    ) -> None:
        self.dataset = dataset
        # Lightning calls `loader.sampler.set_epoch`, and a DataLoader of an iterable dataset has no
        # sampler of its own
        self.sampler = self
        self._loader: DataLoader[Batch] = DataLoader(dataset, batch_size=None, **options)
        self._batches_done = batches_done
        self._epoch = 0
        self._made = 0
        self._resumed: dict[str, int] = {}

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch of the next iteration."""
        self._epoch = epoch

    @property
    def scheduled(self) -> ScheduledSampler:
        """Sampler of the current epoch."""
        self.dataset.scheduled.set_epoch(self._epoch)
        return self.dataset.scheduled

    def __len__(self) -> int:
        """Return the number of this rank's batches in the epoch."""
        self.dataset.begin(self._epoch, 0)
        return len(self.dataset.steps())

    def __iter__(self) -> Iterator[Batch]:
        """Iterate over the batches of the epoch, without those made before the run was resumed.

        Raises:
            ConfigError: They were made by another number of processes, which share clips otherwise.
        """
        state, self._resumed = self._resumed, {}
        # a checkpoint from the end of an epoch says nothing of the next one
        self._made = state["made"] if state.get("epoch") == self._epoch else 0
        if self._made and max(1, state["workers"]) != max(1, self._loader.num_workers):
            raise ConfigError(
                f"data.num_workers was {state['workers']} and is {self._loader.num_workers}: "
                "within an epoch, shards can be gone on with by the same number only"
            )
        self.dataset.begin(self._epoch, self._made)
        for batch in self._loader:
            self._made += 1
            yield batch

    def state_dict(self) -> dict[str, int]:
        """Return the epoch, its batches that are done, and the number of worker processes."""
        made = self._made if self._batches_done is None else self._batches_done()
        return {"epoch": self._epoch, "made": made, "workers": self._loader.num_workers}

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Skip the batches that are done, if the same epoch is resumed."""
        self._resumed = state
