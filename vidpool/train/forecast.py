"""Forecast of a training before it runs: phases, clips, batches, learning rate and cost."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import NullLocator

from vidpool.data.multigrid_schedule import MultigridSchedule
from vidpool.data.schedule import Schedule, plan_epoch
from vidpool.data.views import ClipShape
from vidpool.figures import AMBER, BLACK, BLUE, GREEN, ORANGE, PINK, SKY, plain_text

COLOURS = (BLUE, AMBER, GREEN, ORANGE, PINK, SKY, BLACK)
MAX_DOTS = 12_000  # in a panel; more make a large file of what looks the same


@dataclass(frozen=True)
class Forecast:
    """A training step by step; arrays have a value for each step.

    Attributes:
        epochs: Number of epochs.
        clips: Training clips per epoch.
        ranks: Number of processes.
        phases: Names of the phases.
        phase: Phase of each step, counted from 0.
        begin: Begin of each step, in epochs.
        frames: T of the clips of each step.
        stride: Temporal stride of the clips.
        crop: Crop of the clips, in pixels.
        batch: Number of clips in each step, over all ranks.
        rate: Learning rate of each step.
    """

    epochs: int
    clips: int
    ranks: int
    phases: list[str]
    phase: np.ndarray
    begin: np.ndarray
    frames: np.ndarray
    stride: np.ndarray
    crop: np.ndarray
    batch: np.ndarray
    rate: np.ndarray

    def shapes(self, where: np.ndarray | slice = slice(None)) -> list[ClipShape]:
        """Return the shapes of clips, in the order of their first step.

        Args:
            where: Selects steps. Defaults to all.
        """
        columns = np.stack([self.frames[where], self.stride[where], self.crop[where]], axis=1)
        found, first = np.unique(columns, axis=0, return_index=True)
        return [ClipShape(*map(int, found[i])) for i in np.argsort(first)]

    def cost(self, of_clip: Callable[[ClipShape], int]) -> float:
        """Return the cost of all clips together, such as multiply-adds.

        Args:
            of_clip: Returns the cost of one clip of a shape.
        """
        total = 0.0
        for shape in self.shapes():
            total += float(self.batch[self.has(shape)].sum()) * of_clip(shape)
        return total

    def has(self, shape: ClipShape) -> np.ndarray:
        """Return a mask of the steps that have clips of a shape."""
        return (
            (self.frames == shape.frames)
            & (self.stride == shape.stride)
            & (self.crop == shape.crop)
        )


def forecast(
    schedule: Schedule,
    epochs: int,
    clips: int,
    ranks: int,
    rate: Callable[[float], float],
    smallest: Mapping[ClipShape, int] | None = None,
) -> Forecast:
    """Forecast a training from its schedule.

    Args:
        schedule: Schedule of the training.
        epochs: Number of epochs.
        clips: Training clips per epoch.
        ranks: Number of processes that share the clips.
        rate: Returns the learning rate at an epoch of the recipe, without the batch's factor.
        smallest: The fewest clips of incomplete batches, see :func:`plan_epoch`.
    """
    names: dict[str, int] = {}
    columns = []
    for epoch in range(epochs):
        plan = plan_epoch(schedule, epoch, clips, ranks, smallest=smallest)
        used = plan[-1].first + plan[-1].batch_size * ranks if plan else 1
        rows = []
        for step in plan:
            name = "all"
            if isinstance(schedule, MultigridSchedule):
                name = schedule.phase(epoch, step.first / clips).name
            begin = epoch + step.first / used
            rows.append(
                (
                    names.setdefault(name, len(names)),
                    begin,
                    *step.shape,
                    step.batch_size * ranks,
                    rate(schedule.recipe_epoch(begin)) * step.lr_factor,
                )
            )
        columns.append(np.array(rows, dtype=float).reshape(-1, 7).T)
    phase, begin, frames, stride, crop, batch, rates = np.concatenate(columns, axis=1)
    return Forecast(
        epochs,
        clips,
        ranks,
        list(names),
        phase.astype(int),
        begin,
        frames.astype(int),
        stride.astype(int),
        crop.astype(int),
        batch.astype(int),
        rates,
    )


def forecast_figure(training: Forecast, title: str) -> Figure:
    """Draw crop, batch and learning rate over the training, and over one epoch of it.

    A dot is a step, its colour the number of frames; lengths that share a crop or a batch are
    drawn slightly apart.

    Args:
        training: The forecast.
        title: Title of the figure.
    """
    figure = Figure(figsize=(12, 7.5), layout="constrained")
    figure.get_layout_engine().set(wspace=0.04)  # type: ignore[union-attr, call-arg]
    panels = figure.subplots(3, 2, sharex="col", sharey="row", width_ratios=(3, 2))
    lengths = np.unique(training.frames)
    top = training.crop.max()
    parts = (
        (np.ones_like(training.begin, dtype=bool), "epoch", 3),
        (training.begin < 1, "share of the first epoch", 5),
    )
    for column, (part, label, size) in enumerate(parts):
        dots = _some(np.flatnonzero(part))
        for number, frames in enumerate(lengths):
            own = dots[training.frames[dots] == frames]
            # lengths may share a crop or a batch
            shift = number - (len(lengths) - 1) / 2
            values = (
                training.crop[own] + 0.022 * top * shift,
                training.batch[own] * 1.09**shift,
                training.rate[own],
            )
            for axes, value in zip(panels[:, column], values, strict=True):
                axes.plot(
                    training.begin[own],
                    value,
                    ".",
                    color=COLOURS[number % len(COLOURS)],
                    markersize=size,
                    markeredgewidth=0,
                    label=frames,
                )
        panels[-1, column].set_xlabel(label)
        panels[-1, column].set_xlim(0, (training.epochs, 1)[column])
    crops, batches, rates = panels[:, 0]
    crops.set_ylabel("crop, pixels")
    crops.set_yticks(np.unique(training.crop))
    crops.set_ylim(0.7 * training.crop.min(), 1.07 * top)
    batches.set_ylabel("clips in a batch")
    batches.set_yscale("log")
    # the last steps of epochs may be smaller
    full = {int(training.batch[training.has(shape)].max()) for shape in training.shapes()}
    batches.set_yticks(sorted(full), [str(batch) for batch in sorted(full)])
    batches.yaxis.set_minor_locator(NullLocator())
    rates.set_ylabel("learning rate")
    rates.set_yscale("log")
    for axes in panels.flat:
        axes.grid(alpha=0.3)
    figure.suptitle(plain_text(title))
    figure.legend(
        *crops.get_legend_handles_labels(),
        title="frames\n(drawn\nslightly\napart)",
        loc="outside right center",
        markerscale=4,
    )
    return figure


def _some(steps: np.ndarray) -> np.ndarray:
    """Return at most `MAX_DOTS` of the steps, with an equal share of the three of a short cycle."""
    every = -(-len(steps) // MAX_DOTS)
    if every > 1 and every % 3 == 0:
        every += 1
    return steps[::every]
