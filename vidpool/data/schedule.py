"""The training schedule as data: which clips, in what shape and batch, at which step.

A schedule says the clip's shape and the batch's size at every (epoch, step); a sampler turns it
into batches of :class:`ClipRequest`; the data set reads them. Plain training is the constant
schedule. Everything is a pure function of (seed, epoch, step), the same on every rank.
"""

import copy
from collections.abc import Iterator, Mapping, Sized
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol, cast

import torch
from torch import Tensor
from torch.utils.data import DistributedSampler

from vidpool.data.views import ClipShape
from vidpool.errors import ConfigError


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
    """One optimisation step: the clips' shape and how many clips each rank takes.

    ``lr_factor`` is what the batch's size makes of the learning rate.
    """

    shape: ClipShape
    batch_size: int
    lr_factor: float = 1.0


class Schedule(Protocol):
    """Protocol of a training schedule."""

    def step(self, epoch: int, step: int, used: float) -> Step:
        """Return what a rank does at a step of an epoch.

        Args:
            epoch: Counted from 0.
            step: Counted from 0 in each epoch.
            used: Share of the epoch's clips that the steps before it took, in [0, 1).
        """

    def shapes(self) -> list[ClipShape]:
        """Return every shape that :meth:`step` may return, once."""

    def recipe_epoch(self, epoch: float) -> float:
        """Return the position in the recipe's own epochs, which the learning rate follows.

        Args:
            epoch: Epochs that are done, with their fraction.
        """


class PlannedStep(NamedTuple):
    """A step with its clips: those from place ``first`` on in the epoch's order, over all ranks."""

    first: int
    shape: ClipShape
    batch_size: int
    lr_factor: float


def plan_epoch(
    schedule: Schedule,
    epoch: int,
    clips: int,
    ranks: int = 1,
    fill_up: bool = False,
    smallest: Mapping[ClipShape, int] | None = None,
) -> list[PlannedStep]:
    """Return the steps of an epoch.

    Of the last, incomplete batch each rank gets the same number of clips. That batch is left out
    where it would be smaller than ``smallest`` allows, unless the epoch has no other.

    Args:
        schedule: What to plan by.
        epoch: Counted from 0.
        clips: How many clips the epoch has.
        ranks: Processes that share them.
        fill_up: Whether the last batch is rounded up to a multiple of the ranks rather than down.
        smallest: By clip shape, the fewest clips of a rank that an incomplete batch may have; 1 for
            shapes that are not in it.
    """
    plan: list[PlannedStep] = []
    first = 0
    while first < clips:
        shape, batch_size, lr_factor = schedule.step(epoch, len(plan), first / clips)
        left = clips - first
        if left < batch_size * ranks:
            batch_size = -(-left // ranks) if fill_up else left // ranks
            if plan and batch_size < (smallest or {}).get(shape, 1):
                break
        if batch_size == 0:
            break
        plan.append(PlannedStep(first, shape, batch_size, lr_factor))
        first += batch_size * ranks
    return plan


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
            raise ConfigError(
                f"batch_size must be at least 1, got {batch_size}", argument="batch_size"
            )
        self._step = Step(shape.check(), batch_size)

    def step(self, epoch: int, step: int, used: float) -> Step:  # noqa: ARG002
        """Return the one step."""
        return self._step

    def shapes(self) -> list[ClipShape]:
        """Return the one shape."""
        return [self._step.shape]

    def recipe_epoch(self, epoch: float) -> float:
        """Return the epoch itself."""
        return epoch


class ScheduledSampler(DistributedSampler[list[ClipRequest]]):
    """Yields batches of :class:`ClipRequest`, as the schedule says, for one rank.

    It is to be a loader's ``sampler`` with ``batch_size=None``; being a ``DistributedSampler``,
    Lightning leaves it as it is and calls its ``set_epoch``.

    In training (``shuffle=True``) a clip is used at most once an epoch; of the last, incomplete
    batch each rank gets the same number of clips, so that at most ``num_replicas - 1`` are left
    out. Where that batch is smaller than ``smallest`` allows, all of it is left out. In evaluation
    every clip comes exactly once and in order; ranks that come out short are filled up with clips
    that are not ``counted``, because all ranks must make the same steps.

    With ``labels`` an epoch has as many clips as ever, but of each class as many as of any other,
    give or take one: videos of large classes are left out in turn, those of small ones come
    several times, each time with another random clip.

    Args:
        dataset: What is sampled; only its length is asked.
        schedule: Shape and batch size at each step.
        num_replicas: How many ranks there are.
        rank: Which of them this one is.
        shuffle: True in training.
        seed: Of the order and of the clips; the same on every rank.
        labels: int64 (len(dataset),), classes to be balanced in training; None takes clips as they
            are.
        smallest: In training, the fewest clips of an incomplete batch, see :func:`plan_epoch`.

    Raises:
        ConfigError: There are labels without ``shuffle``, or not one for each clip.
    """

    def __init__(
        self,
        dataset: Sized,
        schedule: Schedule,
        num_replicas: int = 1,
        rank: int = 0,
        shuffle: bool = True,
        seed: int = 0,
        labels: Tensor | None = None,
        smallest: Mapping[ClipShape, int] | None = None,
    ) -> None:
        super().__init__(cast(Any, dataset), num_replicas, rank, shuffle=shuffle, seed=seed)
        self.schedule = schedule
        self.total = len(dataset)
        if labels is not None and not shuffle:
            raise ConfigError("classes are balanced in training only, where clips are shuffled")
        if labels is not None and len(labels) != self.total:
            raise ConfigError(f"there are {len(labels)} labels for {self.total} clips")
        self.labels = labels
        self.smallest = smallest if shuffle else None
        self.skipped = 0
        self._plan: list[PlannedStep] | None = None
        self._pinned = False
        self._pass_may_begin = True

    @property
    def plan(self) -> list[PlannedStep]:
        """Steps of the current epoch."""
        if self._plan is None:
            self._plan = self.plan_of(self.epoch)
        return self._plan

    def plan_of(self, epoch: int) -> list[PlannedStep]:
        """Return the steps of any epoch."""
        return plan_epoch(
            self.schedule,
            0 if self._pinned else epoch,
            self.total,
            self.num_replicas,
            not self.shuffle,
            self.smallest,
        )

    @property
    def left_out(self) -> int:
        """Number of clips, over all ranks, that are in no batch of the present epoch."""
        used = (
            self.plan[-1].first + self.plan[-1].batch_size * self.num_replicas if self.plan else 0
        )
        return max(0, self.total - used)

    @property
    def drawn_epoch(self) -> int:
        """Epoch whose clips are drawn: the current one, or 0 if :meth:`pinned`."""
        return 0 if self._pinned else self.epoch

    def pinned(self) -> "ScheduledSampler":
        """Return a sampler of the same clips that draws those of epoch 0 in every epoch."""
        sampler = copy.copy(self)
        sampler._pinned = True
        sampler._plan = None
        return sampler

    def set_epoch(self, epoch: int) -> None:
        """Go to an epoch, to its first step unless it is the present one."""
        if epoch != self.epoch:
            self.skipped = 0
            self._plan = None
        self._pass_may_begin = True
        super().set_epoch(epoch)

    def begin_pass(self) -> None:
        """Go to the next epoch in training, unless the epoch was set since the last pass began."""
        if self.shuffle and not self._pass_may_begin:
            self.set_epoch(self.epoch + 1)
        self._pass_may_begin = False

    def skip(self, steps: int) -> None:
        """Leave out the first steps of the present epoch, which are done."""
        self.skipped = steps
        self._pass_may_begin = True

    def __iter__(self) -> Iterator[list[ClipRequest]]:
        """Iterate over this rank's batches of the current epoch, without skipped ones."""
        generator = torch.Generator().manual_seed(mix_seeds(self.seed, self.drawn_epoch))
        if not self.shuffle:
            order = torch.arange(self.total)
        elif self.labels is None:
            order = torch.randperm(self.total, generator=generator)
        else:
            order = class_balanced_order(self.labels, generator)
        for step in self.plan[self.skipped :]:
            first = step.first + self.rank * step.batch_size
            batch = []
            for position in range(first, first + step.batch_size):
                index = int(order[position % self.total])
                seed = mix_seeds(self.seed, self.drawn_epoch, position)
                batch.append(ClipRequest(index, step.shape, seed, counted=position < self.total))
            yield batch

    def __len__(self) -> int:
        """Return the number of this rank's batches in the current epoch, skipped ones included."""
        return len(self.plan)


def class_balanced_order(labels: Tensor, generator: torch.Generator) -> Tensor:
    """Draw as many clips as there are labels, equally many of each class, in random order.

    Which classes get one more, where they cannot all have as many, is drawn. A clip comes again
    only when all others of its class have come as often.

    Args:
        labels: int64 (N,), in any range; classes without clips are left out.
        generator: What to draw from.

    Returns:
        int64 (N,), places in ``labels``.
    """
    _, members = labels.unique(return_counts=True)
    wanted = torch.full_like(members, len(labels) // max(1, len(members)))
    more = len(labels) - int(wanted.sum())
    wanted[torch.randperm(len(members), generator=generator)[:more]] += 1
    places = [labels.new_empty(0, dtype=torch.int64)]
    by_class = labels.argsort(stable=True).split(members.tolist())
    for own, count in zip(by_class, wanted.tolist(), strict=True):
        laps, rest = divmod(count, len(own))
        drawn = own[torch.randperm(len(own), generator=generator)[:rest]]
        places += [own.repeat(laps), drawn]
    return torch.cat(places)[torch.randperm(len(labels), generator=generator)]


def mix_seeds(*numbers: int) -> int:
    """One 63-bit seed from several numbers; neighbours give unrelated seeds (splitmix64)."""
    state = 0
    for number in numbers:
        state = (state ^ number) + 0x9E3779B97F4A7C15 & 0xFFFFFFFFFFFFFFFF
        state = (state ^ state >> 30) * 0xBF58476D1CE4E5B9 & 0xFFFFFFFFFFFFFFFF
        state = (state ^ state >> 27) * 0x94D049BB133111EB & 0xFFFFFFFFFFFFFFFF
        state ^= state >> 31
    return state >> 1
