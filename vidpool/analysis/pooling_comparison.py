"""Statistics and report of ``make compare``: accuracy and step time by pooling, over seeds."""

import csv
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from rich import box
from rich.table import Table

from vidpool.analysis.similarity import CONFIDENCE, confidence_half_width
from vidpool.bench.timing import Times, describe_machine
from vidpool.figures import BLUE, GREEN, GREY, ORANGE
from vidpool.results import provenance, wide_console, write_results

CLASSES = ("MoveDown", "MoveLeft", "MoveRight", "MoveUp")


class Pooling(NamedTuple):
    """A pooling that is compared."""

    folder: str
    """Prefix of the folders of its runs."""
    name: str
    """Name for `swap_pooling`."""
    options: dict[str, str]
    """Options for `swap_pooling`."""
    colour: str


POOLINGS = {
    "max": Pooling("max", "max", {}, BLUE),
    "average": Pooling("avg", "avg", {}, GREY),
    "soft, exact gradient": Pooling("soft_exact", "soft", {"gradient": "exact"}, ORANGE),
    "soft, paper's gradient": Pooling("soft_paper", "soft", {"gradient": "paper"}, GREEN),
}
"""Poolings by their names in tables."""
BASELINE = "max"


class TrainingCurve(NamedTuple):
    """Metrics of one training, one entry per epoch."""

    accuracy: list[float]
    """Top-1 on the held-out videos, in [0, 1]."""
    train_loss: list[float]


class Interval(NamedTuple):
    """A mean over seeds and half the width of its confidence interval."""

    mean: float
    half_width: float


class ComparisonSettings(NamedTuple):
    """Settings of a comparison."""

    seeds: list[int]
    epochs: int
    videos: int
    """Training videos per class."""
    test_videos: int
    """Held-out videos per class."""
    noise: float
    """Share of mislabelled training videos."""


def read_curve(folder: Path, epochs: int) -> TrainingCurve:
    """Read the metrics of a training, which may have been interrupted and resumed.

    Args:
        folder: Folder of the runs of the training.
        epochs: Number of epochs that the training must have.
    """
    accuracy: dict[int, float] = {}
    loss: dict[int, float] = {}
    files = folder.glob("fit_*/metrics.csv")
    for file in sorted(files, key=lambda file: file.stat().st_mtime):
        with file.open(newline="", encoding="utf-8") as text:
            for row in csv.DictReader(text):
                for column, values in (("val/top1", accuracy), ("train/loss", loss)):
                    if row.get(column):
                        values[int(row["epoch"])] = float(row[column])
    wanted = list(range(epochs))
    if sorted(accuracy) != wanted or sorted(loss) != wanted:
        sys.exit(
            f"{folder} is of {len(accuracy)} epochs instead of {epochs}; give another --runs or "
            "remove it"
        )
    return TrainingCurve([accuracy[epoch] for epoch in wanted], [loss[epoch] for epoch in wanted])


def mean_interval(values: Sequence[float]) -> Interval:
    """Return the mean and Student's confidence interval of values by seed, two or more."""
    return Interval(float(np.mean(values)), confidence_half_width(values))


def report(
    path: Path,
    settings: ComparisonSettings,
    curves: dict[str, list[TrainingCurve]],
    steps: dict[str, Times],
    command: str,
) -> None:
    """Print the comparison, and write it as JSON and as a picture.

    Args:
        path: JSON file; the name of the picture ends in .png instead.
        settings: Settings of the comparison.
        curves: Metrics by pooling, one curve per seed.
        steps: Times of a training step by pooling.
        command: Command that was run.
    """
    content = {
        "settings": settings._asdict(),
        "confidence": CONFIDENCE,
        "poolings": {
            label: {
                "top1": mean_interval(_final_accuracies(own))._asdict(),
                "top1_minus_max": mean_interval(_differences(own, curves[BASELINE]))._asdict(),
                "top1_mean_over_epochs": mean_interval(
                    [float(np.mean(curve.accuracy)) for curve in own]
                )._asdict(),
                "step_seconds": steps[label].as_dict(),
                "runs": [curve._asdict() for curve in own],
            }
            for label, own in curves.items()
        },
    }
    about = {**provenance(command), **describe_machine("cpu"), "seed": settings.seeds}
    table = Table(
        box=box.SIMPLE_HEAD,
        title=f"top-1 on {settings.test_videos * len(CLASSES)} held-out videos after "
        f"{settings.epochs} epochs, {len(settings.seeds)} seeds (chance "
        f"{100 / len(CLASSES):.1f} %)",
        caption=f"± {CONFIDENCE:.0%} confidence intervals over seeds; differences are paired by "
        "seed. Step: CPU time of a training step on one thread, median; reading is left out.",
    )
    columns = ("pooling", "top-1, %", "minus max", "mean over epochs, %", "step, ms", "of max's")
    for column in columns:
        table.add_column(column, justify="left" if column == "pooling" else "right", no_wrap=True)
    for label, own in curves.items():
        median = steps[label].median
        minus_max = mean_interval(_differences(own, curves[BASELINE]))
        table.add_row(
            label,
            _percent(mean_interval(_final_accuracies(own))),
            "" if label == BASELINE else _percent(minus_max, "+"),
            _percent(mean_interval(_mean_accuracies(own))),
            f"{1e3 * median:.0f}",
            f"{median / steps[BASELINE].median:.2f}",
        )
    wide_console().print(table)
    for written in write_results(path, about, content, comparison_chart(curves, steps)):
        print(f"wrote {written}")


def _percent(value: Interval, sign: str = "") -> str:
    """Format an interval in percent, such as ``61.3 ± 2.5``."""
    return f"{100 * value.mean:{sign}.1f} ± {100 * value.half_width:.1f}"


def _final_accuracies(curves: Sequence[TrainingCurve]) -> list[float]:
    """Return top-1 after the last epoch by seed."""
    return [curve.accuracy[-1] for curve in curves]


def _mean_accuracies(curves: Sequence[TrainingCurve]) -> list[float]:
    """Return top-1 averaged over epochs, by seed."""
    return [float(np.mean(curve.accuracy)) for curve in curves]


def _differences(curves: Sequence[TrainingCurve], others: Sequence[TrainingCurve]) -> list[float]:
    """Return differences in top-1 after the last epoch by seed."""
    pairs = zip(_final_accuracies(curves), _final_accuracies(others), strict=True)
    return [one - other for one, other in pairs]


def comparison_chart(curves: dict[str, list[TrainingCurve]], steps: dict[str, Times]) -> Figure:
    """Draw accuracy and loss by epoch with confidence bands, final accuracy, and step times."""
    figure = Figure(figsize=(12, 8), layout="constrained")
    (accuracy, loss), (end, step) = figure.subplots(2, 2)
    for row, (label, own) in enumerate(curves.items()):
        colour = POOLINGS[label].colour
        _draw_band(
            accuracy, [[100 * value for value in curve.accuracy] for curve in own], colour, label
        )
        _draw_band(loss, [curve.train_loss for curve in own], colour, label)
        values = [100 * value for value in _final_accuracies(own)]
        mean, half_width = mean_interval(values)
        end.plot(values, [row + 0.2] * len(values), "o", color=colour, alpha=0.5)
        end.errorbar(mean, row, xerr=half_width, fmt="D", color=colour, capsize=4)
        lower, upper = steps[label].quartiles
        step.barh(row, 1e3 * steps[label].median, 0.6, color=colour)
        step.plot([1e3 * lower, 1e3 * upper], [row, row], color="black", linewidth=1)
    accuracy.axhline(100 / len(CLASSES), color="black", linestyle=":", linewidth=1, label="chance")
    accuracy.set(title="held-out videos", xlabel="epoch", ylabel="top-1, %")
    accuracy.set_ylim(0, 100)  # bands of few seeds are wider
    loss.set(title="training clips", xlabel="epoch", ylabel="cross-entropy")
    end.set(title="after the last epoch: each seed, and the mean", xlabel="top-1, %")
    end.set_xlim(0, 100)
    losses = [value for own in curves.values() for curve in own for value in curve.train_loss]
    loss.set_ylim(0, 1.1 * max(losses))
    step.set(title="a training step: median and quartiles", xlabel="CPU time, ms")
    for axes in (end, step):
        axes.set_yticks(range(len(curves)), list(curves))
        axes.set_ylim(len(curves) - 0.5, -0.5)  # the first on top
    for axes in (accuracy, loss, end, step):
        axes.grid(alpha=0.3)
        axes.set_axisbelow(True)
    handles, labels = accuracy.get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=len(labels))
    seeds = len(next(iter(curves.values())))
    figure.suptitle(f"{seeds} seeds each; bands and bars: {CONFIDENCE:.0%} confidence of the mean")
    return figure


def _draw_band(axes: Axes, values: Sequence[Sequence[float]], colour: str, label: str) -> None:
    """Draw the mean over seeds by epoch, with its confidence interval as a band.

    Args:
        axes: Axes to draw on.
        values: Values by seed, one per epoch.
        colour: Colour of line and band.
        label: Name in the legend.
    """
    means = [mean_interval(of_epoch) for of_epoch in zip(*values, strict=True)]
    epochs = range(1, len(means) + 1)
    axes.plot(epochs, [mean for mean, _ in means], "o-", markersize=3, color=colour, label=label)
    lower, upper = [mean - half for mean, half in means], [mean + half for mean, half in means]
    axes.fill_between(epochs, lower, upper, color=colour, alpha=0.15, linewidth=0)
