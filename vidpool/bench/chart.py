"""Parts that the charts of benchmarks share: bars of ratios, their axes, and the machine's name."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter, NullFormatter

from vidpool.bench.timing import Times


class Bar(NamedTuple):
    """A horizontal bar.

    Attributes:
        position: Centre of the bar on the y axis.
        ratio: Length of the bar; None for a measurement that is missing.
        quartiles: Ends of the whisker; None for a bar without one.
    """

    position: float
    ratio: float | None
    quartiles: tuple[float, float] | None = None


def ratio_bar(position: float, times: Times, baseline: Times) -> Bar:
    """Return the bar of a measurement relative to the median of another one."""
    lower, upper = (seconds / baseline.median for seconds in times.quartiles)
    return Bar(position, times.median / baseline.median, (lower, upper))


def draw_bars(
    axes: Axes, bars: Sequence[Bar], label: str, colour: str, height: float, offset: int = 3
) -> list[float]:
    """Draw the bars of one series, with whiskers, and write each ratio at the end of its bar.

    Args:
        axes: Axes to draw on.
        bars: Bars of the series; "none" is written for those that are missing.
        label: Name of the series in the legend.
        colour: Colour of the bars.
        height: Height of a bar.
        offset: Distance from the end of a bar to its text, points. Defaults to 3.

    Returns:
        Where the bars and their whiskers end.
    """
    ends = []
    for position, ratio, quartiles in bars:
        end = 0.0
        if ratio is not None:
            end = ratio if quartiles is None else max(ratio, quartiles[1])
            ends += [ratio, end]
        if quartiles is not None:
            axes.plot(quartiles, [position] * 2, color="black", linewidth=0.8)
        axes.annotate(
            "none" if ratio is None else f"{ratio:.3g}",
            (end, position),
            # x in the data's units is only known for a bar; "none" stands at the axis itself
            xycoords="data" if ratio is not None else ("axes fraction", "data"),
            xytext=(offset, 0),
            textcoords="offset points",
            va="center",
            fontsize=7,
            bbox={"facecolor": "white", "alpha": 0.8, "linewidth": 0, "pad": 0.5},
        )
    drawn = [(bar.position, bar.ratio) for bar in bars if bar.ratio is not None]
    positions, ratios = [position for position, _ in drawn], [ratio for _, ratio in drawn]
    axes.barh(positions, ratios, height, color=colour, label=label)
    return ends


def use_log_scale(axes: Axes, left: float, right: float) -> None:
    """Make the x axis logarithmic from ``left`` to ``right``, with plain numbers at its ticks."""
    axes.set_xscale("log")
    axes.set_xlim(left, right)
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.xaxis.set_minor_formatter(NullFormatter())


def mark_baseline(axes: Axes) -> None:
    """Draw a dashed line at a ratio of 1, and a grid behind the bars."""
    axes.axvline(1, color="black", linewidth=0.8, linestyle="--", zorder=0)
    axes.grid(axis="x", alpha=0.3)
    axes.set_axisbelow(True)


def machine_line(machine: dict[str, Any]) -> str:
    """Return the device, the PyTorch version and, on a CPU, the number of threads.

    Args:
        machine: Description by :func:`vidpool.bench.timing.describe_machine`.
    """
    threads = f", CPU threads: {machine['threads']}" if machine["device"] == "cpu" else ""
    return f"{machine['device_name']}, PyTorch {machine['torch']}{threads}"
