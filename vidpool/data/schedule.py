"""The training schedule as data: which clips, in what shape and batch, at which step.

A schedule says the clip's shape and the batch's size at every (epoch, step); a sampler turns it
into batches of :class:`ClipRequest`; the data set reads them. Plain training is the constant
schedule. Everything is a pure function of (seed, epoch, step), the same on every rank.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import torch
from torch.utils.data import Dataset, DistributedSampler

from vidpool.data.sampling import clip_span
from vidpool.errors import ConfigError


class ClipShape(NamedTuple):
    """The shape of a clip: T frames, ``stride`` frames apart, of ``crop`` x ``crop`` pixels."""

    frames: int
    stride: int
    crop: int

    def check(self) -> "ClipShape":
        """Return the shape itself.

        Raises:
            ConfigError: A value is below 1; the message names it.
        """
        clip_span(self.frames, self.stride)
        if self.crop < 1:
            raise ConfigError(f"the crop must be at least 1 pixel, got crop={self.crop}")
        return self


@dataclass(frozen=True)
class ClipRequest:
    """One clip to be read.

    ``seed`` is where the clip's randomness comes from, so that it does not depend on the worker.
    ``counted`` is False for a clip that only fills up the last batch of an evaluation.
    """

    index: int
    shape: ClipShape
    seed: int
    counted: bool = True


class Step(NamedTuple):
    """One optimisation step: the clips' shape and how many clips each rank takes."""

    shape: ClipShape
    batch_size: int


class Schedule(Protocol):
    """What a training schedule has to say."""

    def step(self, epoch: int, step: int) -> Step:
        """The shape and the batch size of a rank at a step of an epoch."""


class ConstantSchedule:
    """The same shape and batch size at every step.

    Args:
        shape: The shape of every clip.
        batch_size: Clips in a batch of each rank.

    Raises:
        ConfigError: A value is below 1.
    """

    def __init__(self, shape: ClipShape, batch_size: int) -> None:
        if batch_size < 1:
            raise ConfigError(f"batch_size must be at least 1, got {batch_size}")
        self._step = Step(shape.check(), batch_size)

    def step(self, epoch: int, step: int) -> Step:  # noqa: ARG002
        """The shape and the batch size, whatever the epoch and the step."""
        return self._step


class ScheduledSampler(DistributedSampler[list[ClipRequest]]):
    """Yields batches of :class:`ClipRequest`, as the schedule says, for one rank.

    It is to be a loader's ``sampler`` with ``batch_size=None``; being a ``DistributedSampler``,
    Lightning leaves it as it is and calls its ``set_epoch``.

    In training (``shuffle=True``) a clip is used at most once an epoch; of the last, incomplete
    batch each rank gets the same number of clips, so that at most ``num_replicas - 1`` are left
    out. In evaluation every clip comes exactly once and in order; ranks that come out short are
    filled up with clips that are not ``counted``, because all ranks must make the same steps.

    Args:
        dataset: What is sampled; only its length is asked.
        schedule: Shape and batch size at each step.
        num_replicas: How many ranks there are.
        rank: Which of them this one is.
        shuffle: True in training.
        seed: Of the order and of the clips; the same on every rank.
    """

    def __init__(
        self,
        dataset: Dataset[Any],
        schedule: Schedule,
        num_replicas: int = 1,
        rank: int = 0,
        shuffle: bool = True,
        seed: int = 0,
    ) -> None:
        super().__init__(dataset, num_replicas, rank, shuffle=shuffle, seed=seed)
        self.schedule = schedule
        self.total = len(dataset)  # type: ignore[arg-type]  # a Dataset need not have a length
        self._length: tuple[int, int] | None = None  # the epoch that was counted, and its batches

    def __iter__(self) -> Iterator[list[ClipRequest]]:
        """The batches of this rank in the present epoch."""
        generator = torch.Generator().manual_seed(mix_seeds(self.seed, self.epoch))
        if self.shuffle:
            order = torch.randperm(self.total, generator=generator)
        else:
            order = torch.arange(self.total)
        for begin, each, shape in self.steps():
            first = begin + self.rank * each
            batch = []
            for position in range(first, first + each):
                index = int(order[position % self.total])
                seed = mix_seeds(self.seed, self.epoch, position)
                batch.append(ClipRequest(index, shape, seed, counted=position < self.total))
            yield batch

    def __len__(self) -> int:
        """How many batches this rank gets in the present epoch."""
        # Lightning asks many times an epoch, which may have 100,000 steps
        if self._length is None or self._length[0] != self.epoch:
            self._length = (self.epoch, sum(1 for _ in self.steps()))
        return self._length[1]

    def steps(self) -> Iterator[tuple[int, int, ClipShape]]:
        """First position of the step in the order of clips, clips a rank, and their shape."""
        begin = 0
        step = 0
        while begin < self.total:
            shape, batch_size = self.schedule.step(self.epoch, step)
            left = self.total - begin
            if left < batch_size * self.num_replicas:
                # the last, incomplete batch: rounded down in training, filled up in evaluation
                batch_size = (
                    left // self.num_replicas if self.shuffle else -(-left // self.num_replicas)
                )
            if batch_size == 0:
                return
            yield begin, batch_size, shape
            begin += batch_size * self.num_replicas
            step += 1


def mix_seeds(*numbers: int) -> int:
    """One 63-bit seed from several numbers; neighbours give unrelated seeds (splitmix64)."""
    state = 0
    for number in numbers:
        state = (state ^ number) + 0x9E3779B97F4A7C15 & 0xFFFFFFFFFFFFFFFF
        state = (state ^ state >> 30) * 0xBF58476D1CE4E5B9 & 0xFFFFFFFFFFFFFFFF
        state = (state ^ state >> 27) * 0x94D049BB133111EB & 0xFFFFFFFFFFFFFFFF
        state ^= state >> 31
    return state >> 1
