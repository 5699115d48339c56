"""Multigrid training: the clip's shape and the batch's size vary together.

Small clips in large batches are quick and learn the coarse; the network ends on full clips. A
*long cycle* goes through four grids from small to full clips; within each, a *short cycle* changes
the crop from step to step. A batch grows as its clips shrink, so that memory stays level.

C.-Y. Wu, R. Girshick, K. He, C. Feichtenhofer and P. Krähenbühl, *A Multigrid Method for
Efficiently Training Video Models*, CVPR 2020; and the SoftPool paper, which varied it.
"""

import math
from collections.abc import Sequence
from functools import partial
from itertools import accumulate, pairwise
from typing import Literal, NamedTuple

from vidpool.data.schedule import Step, plan_epoch
from vidpool.data.views import ClipShape
from vidpool.errors import ConfigError

Variant = Literal["paper", "original"]

# grids of the long cycle: frames and crop as shares of the full clip's, from small to full
LONG_CYCLE = ((0.25, math.sqrt(0.5)), (0.5, math.sqrt(0.5)), (0.5, 1.0), (1.0, 1.0))
SHORT_CYCLE = (0.5, math.sqrt(0.5))  # crops of `original`, as shares of the full clip's


class Phase(NamedTuple):
    """A part of the training in which the same few steps are taken in turn.

    Attributes:
        name: What people call it.
        epochs: The first epoch and the one after the last.
        share: Which part of each of these epochs, from and to.
        steps: The short cycle: step n takes the one at n modulo their number.
    """

    name: str
    epochs: tuple[int, int]
    share: tuple[float, float]
    steps: tuple[Step, ...]


class MultigridSchedule:
    """The steps of multigrid training.

    ``variant="paper"`` is that of the SoftPool paper: each epoch runs through the four grids of the
    long cycle, on a quarter of its clips each; the short cycle's crops are the grid's, divided by
    1, √2 and 2, its batches 1, 2 and 4 times the grid's. The base learning rate belongs to the
    first grid, whose batch is the largest; the rate of the others falls with their batches. The
    temporal stride stays.

    ``variant="original"`` is that of Wu et al., as SlowFast has it: each step of the learning rate
    is divided into the four grids, the epochs of a grid being proportional to its mean batch, and a
    last phase with full clips fine-tunes, its second half at the last rate. The base learning rate
    belongs to the full clip; the rate of the other grids rises with their batches. The short
    cycle's crops are 0.5, √0.5 and 1 times the full clip's, but no larger than the grid's. The
    temporal stride grows as frames get fewer, so that a clip spans the same time.

    Without the long cycle every step has the full clip's frames, and the base learning rate.

    Args:
        shape: The full clip.
        batch_size: Full clips in a batch of each rank.
        epochs: Of the recipe with clips of one shape.
        milestones: For ``original``: the epochs at which this recipe's rate falls.
        variant: See above.
        long_cycle: Whether to vary the grid.
        short_cycle: Whether to vary the crop from step to step.
        epoch_factor: How many times as many epochs to train; by default 1 for ``paper`` and 1.5 for
            ``original``.

    Raises:
        ConfigError: A value cannot work.
    """

    epochs: int
    """Number of epochs to train."""
    phases: list[Phase]
    """In the order of training."""

    def __init__(
        self,
        shape: ClipShape,
        batch_size: int,
        epochs: int,
        milestones: Sequence[float] = (),
        variant: Variant = "paper",
        long_cycle: bool = True,
        short_cycle: bool = True,
        epoch_factor: float | None = None,
    ) -> None:
        if variant not in ("paper", "original"):
            raise ConfigError(
                f"multigrid's variant is paper or original, got {variant!r}", argument="variant"
            )
        if not (long_cycle or short_cycle):
            raise ConfigError("multigrid needs the long cycle, the short cycle or both")
        if batch_size < 1:
            raise ConfigError(
                f"batch_size must be at least 1, got {batch_size}", argument="batch_size"
            )
        if epochs < 1:
            raise ConfigError(
                f"multigrid needs max_epochs of the Trainer, got {epochs}", argument="max_epochs"
            )
        if epoch_factor is None:
            epoch_factor = 1.5 if variant == "original" else 1.0
        if epoch_factor <= 0:
            raise ConfigError(
                f"multigrid's epoch_factor must be positive, got {epoch_factor}",
                argument="epoch_factor",
            )
        self.shape = shape.check()
        self.batch_size = batch_size
        self.variant: Variant = variant
        self.short_cycle = short_cycle
        self._with_batch = partial(
            type(self),
            shape,
            epochs=epochs,
            milestones=milestones,
            variant=variant,
            long_cycle=long_cycle,
            short_cycle=short_cycle,
            epoch_factor=epoch_factor,
        )
        self.epochs = max(1, round(epochs * epoch_factor))
        # (epoch, the recipe's epoch): in between it goes straight
        self._marks = [(0.0, 0.0), (float(self.epochs), float(epochs))]
        if not long_cycle:
            self.phases = [Phase("short cycle", (0, self.epochs), (0, 1), self._cycle(1, 1, 1))]
        elif variant == "paper":
            self.phases = self._paper_phases()
        else:
            self.phases, self._marks = self._original_phases(epochs, list(milestones), epoch_factor)
            self.epochs = int(self._marks[-1][0])

    def phase(self, epoch: int, used: float) -> Phase:
        """The phase at a point of the training.

        Args:
            epoch: Counted from 0; those after the last are like it.
            used: Share of the epoch's clips that are used, in [0, 1).
        """
        epoch = min(epoch, self.epochs - 1)
        return next(
            phase
            for phase in self.phases
            if phase.epochs[0] <= epoch < phase.epochs[1] and used < phase.share[1]
        )

    def step(self, epoch: int, step: int, used: float) -> Step:
        """See :meth:`vidpool.data.schedule.Schedule.step`."""
        steps = self.phase(epoch, used).steps
        return steps[step % len(steps)]

    def shapes(self) -> list[ClipShape]:
        """See :meth:`vidpool.data.schedule.Schedule.shapes`."""
        return list(dict.fromkeys(step.shape for phase in self.phases for step in phase.steps))

    def recipe_epoch(self, epoch: float) -> float:
        """See :meth:`vidpool.data.schedule.Schedule.recipe_epoch`."""
        for (begin, recipe_begin), (end, recipe_end) in pairwise(self._marks):
            if epoch < end:
                return recipe_begin + (recipe_end - recipe_begin) * (epoch - begin) / (end - begin)
        return self._marks[-1][1]

    def check(self, clips: int, ranks: int = 1) -> list[str]:
        """Check that there are clips and epochs enough for every phase.

        Args:
            clips: Training clips in an epoch.
            ranks: Processes that share them.

        Returns:
            Warnings: what will be otherwise than the schedule wants.

        Raises:
            ConfigError: A phase would never come, or its largest batch is never filled; the message
                says what batch size would do.
        """
        wrong = self._wrong(clips, ranks)
        if wrong is not None:
            fits = self.batch_size
            while fits and self._with_batch(batch_size=fits)._wrong(clips, ranks) is not None:
                fits -= 1
            way_out = (
                f"batch_size must be {fits} or less"
                if fits
                else "train with one clip shape, or with the short cycle alone"
            )
            raise ConfigError(
                f"multigrid with batch_size {self.batch_size} on {ranks} "
                f"{'process' if ranks == 1 else 'processes'} and {clips} training clips: {wrong}; "
                f"{way_out}",
                argument="batch_size",
            )
        never = [phase.name for phase in self.phases if phase.epochs[0] == phase.epochs[1]]
        if never:
            return [f"{self.epochs} epochs are too few: no epoch for {', '.join(never)}"]
        return []

    def _wrong(self, clips: int, ranks: int) -> str | None:
        """Return the problems that this number of clips causes."""
        there = [phase for phase in self.phases if phase.epochs[0] < phase.epochs[1]]
        for phase in there:
            largest = max(step.batch_size for step in phase.steps) * ranks
            if largest > clips:
                return f"the batches of {phase.name} are of up to {largest} clips"
        for epoch in {phase.epochs[0] for phase in there}:
            plan = plan_epoch(self, epoch, clips, ranks)
            come = {self.phase(epoch, step.first / clips) for step in plan}
            for phase in there:
                if phase.epochs[0] <= epoch < phase.epochs[1] and phase not in come:
                    return f"{phase.name} never comes, since one batch before it reaches past it"
        return None

    def _paper_phases(self) -> list[Phase]:
        largest = self._batch_factor(*self._grid(*LONG_CYCLE[0]))
        phases = []
        for number, grid in enumerate(LONG_CYCLE):
            lr_factor = self._batch_factor(*self._grid(*grid)) / largest
            share = (number / len(LONG_CYCLE), (number + 1) / len(LONG_CYCLE))
            steps = self._cycle(*grid, lr_factor)
            phases.append(Phase(f"quarter {number + 1}", (0, self.epochs), share, steps))
        return phases

    def _original_phases(
        self, recipe_epochs: int, milestones: list[float], epoch_factor: float
    ) -> tuple[list[Phase], list[tuple[float, float]]]:
        """The phases, and the marks between epochs and the recipe's."""
        steps_at = [0.0, *milestones]
        rising = all(one < other for one, other in pairwise([*steps_at, recipe_epochs]))
        if not milestones or not rising:
            raise ConfigError(
                "multigrid's variant original spreads its long cycle over the steps of the "
                "learning rate: lr_schedule must be step and milestones must rise and lie within "
                f"max_epochs of the Trainer, got {milestones} and {recipe_epochs}",
                argument="milestones",
            )
        cycles = []
        for grid in LONG_CYCLE:
            lr_factor = float(self._batch_factor(*self._grid(*grid)))
            cycles.append(self._cycle(*grid, lr_factor))
        # mean batches, in full clips' batches
        means = [
            sum(step.batch_size for step in cycle) / len(cycle) / self.batch_size
            for cycle in cycles
        ]
        # epochs and relative iterations before they are stretched to the number wanted
        lengths = [
            (end - begin) * mean / sum(means) for begin, end in pairwise(steps_at) for mean in means
        ]
        iterations = milestones[-1] * len(means) / sum(means)
        saving = milestones[-1] / iterations
        lengths.append((recipe_epochs - milestones[-1]) / saving * means[-1])
        stretch = recipe_epochs * epoch_factor / sum(lengths)
        ends = [round(total * stretch) for total in accumulate(lengths)]
        names = [
            f"step {number}, grid {grid}"
            for number in range(1, len(steps_at))
            for grid in range(1, len(cycles) + 1)
        ]
        phases = [
            Phase(name, epochs, (0, 1), cycle)
            for name, epochs, cycle in zip(
                [*names, "fine-tuning"],
                pairwise([0, *ends]),
                [*cycles * len(milestones), cycles[-1]],
                strict=True,
            )
        ]
        falls = [*ends[len(cycles) - 1 : -2 : len(cycles)], (ends[-2] + ends[-1]) // 2, ends[-1]]
        return phases, list(zip([0.0, *falls], [*steps_at, recipe_epochs], strict=True))

    def _grid(self, frames: float, crop: float) -> tuple[int, int]:
        """Frames and crop of a grid, given as shares of the full clip's."""
        return max(1, round(self.shape.frames * frames)), self._crop(crop)

    def _crop(self, share: float) -> int:
        if share == 1:
            return self.shape.crop
        side = self.shape.crop * share
        return max(1, round(side) if self.variant == "original" else 2 * round(side / 2))

    def _batch_factor(self, frames: int, crop: int) -> int:
        """Return the factor of clips that take up as much memory as the full ones."""
        full = self.shape.frames * self.shape.crop**2
        return max(1, round(full / (frames * crop**2)))

    def _cycle(self, frames: float, crop: float, lr_factor: float) -> tuple[Step, ...]:
        """The steps of the short cycle in a grid; without a short cycle the one of the grid."""
        length, side = self._grid(frames, crop)
        stride = self.shape.stride
        if not self.short_cycle:
            sides = [side]
        elif self.variant == "paper":
            sides = [self._crop(crop / math.sqrt(divisor)) for divisor in (1, 2, 4)]
        else:
            sides = [*(self._crop(share) for share in SHORT_CYCLE), side]
        if self.variant == "original":
            stride = round(stride * self.shape.frames / length)
        return tuple(
            Step(
                ClipShape(length, stride, side),
                self.batch_size * self._batch_factor(length, side),
                lr_factor,
            )
            for side in sides
        )
