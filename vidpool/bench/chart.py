"""A picture of a benchmark: bars of ratios to a copy."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, NullFormatter

from vidpool.bench.pool import CLONE, PASSES, POOLS, Measured, Pass, Result
from vidpool.colours import BLUE, GREEN, GREY, ORANGE, SKY

COLOURS = dict(zip(POOLS, (ORANGE, BLUE, SKY, GREY, GREEN), strict=True))
TITLES = {"forward": "forward", "forward_backward": "forward + backward"}
# the longest bar over the shortest one, or a copy's, from which a linear scale hides the short
LOG_FROM = 12


def ratio_chart(results: Sequence[Result], machine: dict[str, Any]) -> Figure:
    """Draw how many times as long as `x.clone()` each pool takes.

    A group of bars is a case; whiskers are the quartiles. Forward is on the left, forward +
    backward on the right, both over the same forward copy.

    Args:
        results: At least one.
        machine: See :func:`vidpool.bench.machine.describe`.
    """
    pools = [
        pool
        for pool in POOLS
        if any(key.what == pool for r in results for key in (*r.times, *r.missing))
    ]
    bars = len(results) * (len(pools) + 1)
    figure = Figure(figsize=(13, 2.2 + 0.17 * bars), layout="constrained")
    left, right = figure.subplots(1, 2, sharex=True, sharey=True)
    ends = [1.0]  # a copy over itself
    for axes, to in zip((left, right), PASSES, strict=True):
        ends += _panel(axes, results, pools, to)
    if max(ends) / min(ends) > LOG_FROM:
        left.set_xscale("log")
        left.set_xlim(0.7 * min(ends), 1.7 * max(ends))
        left.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        left.xaxis.set_minor_formatter(NullFormatter())
    else:
        left.set_xlim(0, 1.15 * max(ends))
    # what all results have in common stands in the title, the rest at each group
    settings = {
        name: [str(getattr(result, name)) for result in results]
        for name in ("layout", "dtype", "values")
    }
    own = [values for values in settings.values() if len(set(values)) > 1]
    shared = ", ".join(values[0] for values in settings.values() if len(set(values)) == 1)
    labels = [
        "\n".join(filter(None, [result.case.name, ", ".join(parts)]))
        for result, *parts in zip(results, *own, strict=True)
    ]
    left.set_yticks(range(len(results)), labels)
    left.set_ylim(len(results) - 0.5, -0.5)  # the first case on top
    threads = f", CPU threads: {machine['threads']}" if machine["device"] == "cpu" else ""
    figure.suptitle(
        f"Pooling beside a copy of its input{shared and f' ({shared})'}\n"
        f"{machine['device_name']}, PyTorch {machine['torch']}{threads}"
    )
    figure.legend(*left.get_legend_handles_labels(), loc="outside lower center", ncols=len(pools))
    return figure


def _panel(axes: Axes, results: Sequence[Result], pools: list[str], to: Pass) -> list[float]:
    """Draw one pass: a group of bars for each result, and the ratio at the end of each bar.

    Returns:
        Where bars or their whiskers end.
    """
    height = 1 / (len(pools) + 1)
    ends = []
    for i, pool in enumerate(pools):
        key = Measured(pool, to)
        places, ratios = [], []
        for group, result in enumerate(results):
            place = group + (i - (len(pools) - 1) / 2) * height
            ratio = result.ratio(key, CLONE)
            if ratio is None:
                end, text = 0.0, "none"
            else:
                clone = result.times[CLONE].median
                lower, upper = (seconds / clone for seconds in result.times[key].quartiles)
                axes.plot([lower, upper], [place, place], color="black", linewidth=0.8)
                places.append(place)
                ratios.append(ratio)
                end, text = max(ratio, upper), f"{ratio:.3g}"
                ends += [ratio, end]
            # x in the data's units is only known for a bar; "none" stands at the axis itself
            axes.annotate(
                text,
                (end, place),
                xycoords="data" if ratio is not None else ("axes fraction", "data"),
                xytext=(3, 0),
                textcoords="offset points",
                va="center",
                fontsize=7,
                bbox={"facecolor": "white", "alpha": 0.8, "linewidth": 0, "pad": 0.5},
            )
        axes.barh(places, ratios, 0.92 * height, color=COLOURS[pool], label=pool)
    axes.axvline(1, color="black", linewidth=0.8, linestyle="--", zorder=0)
    axes.set(title=TITLES[to], xlabel="times as long as x.clone()")
    axes.grid(axis="x", alpha=0.3)
    axes.set_axisbelow(True)
    return ends
