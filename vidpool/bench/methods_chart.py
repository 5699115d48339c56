"""A picture of Table 3's latencies: each method over average pooling, beside the paper's ratios."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, NullFormatter

from vidpool.bench.methods import BASELINE, DIRECTIONS, Direction, MethodsResult, Timed
from vidpool.colours import GREY, ORANGE

MEASURED, PUBLISHED = ORANGE, GREY


def methods_chart(
    result: MethodsResult,
    machine: dict[str, Any],
    published: Mapping[str, Mapping[Direction, float]],
) -> Figure:
    """Draw how many times as long as average pooling each method takes.

    Forward is on the left, backward on the right; whiskers are the quartiles.

    Args:
        result: What was measured.
        machine: See :func:`vidpool.bench.machine.describe`.
        published: The paper's ratios for the same kind of device, by method.
    """
    methods = [name for name in result.methods if name != BASELINE]
    figure = Figure(figsize=(12, 2.2 + 0.42 * len(methods)), layout="constrained")
    left, right = figure.subplots(1, 2, sharey=True)
    for axes, direction in zip((left, right), DIRECTIONS, strict=True):
        _panel(axes, result, methods, direction, published)
    left.set_yticks(range(len(methods)), methods)
    left.set_ylim(len(methods) - 0.5, -0.5)  # the first method on top
    shape = ", ".join(map(str, result.case.shape))
    threads = f", CPU threads: {machine['threads']}" if machine["device"] == "cpu" else ""
    figure.suptitle(
        f"Pooling methods over average pooling (Table 3)\n({shape}), "
        f"window {' x '.join(map(str, result.case.window.kernel_size))}, "
        f"{result.dtype}, {result.layout}; "
        f"{machine['device_name']}, PyTorch {machine['torch']}{threads}"
    )
    figure.legend(*left.get_legend_handles_labels(), loc="outside lower center", ncols=2)
    return figure


def _panel(
    axes: Axes,
    result: MethodsResult,
    methods: list[str],
    direction: Direction,
    published: Mapping[str, Mapping[Direction, float]],
) -> None:
    """Draw one direction, and the ratio at the end of each bar."""
    average = result.times.get(Timed(BASELINE, direction))
    # place, ratio, and where its whisker ends
    rows: dict[str, list[tuple[float, float, float]]] = {"measured here": [], "the paper": []}
    for place, method in enumerate(methods):
        ratio = result.ratio(method, direction)
        if ratio is not None and average is not None:
            quartiles = result.times[Timed(method, direction)].quartiles
            whisker = [seconds / average.median for seconds in quartiles]
            rows["measured here"].append((place - 0.2, ratio, whisker[1]))
            axes.plot(whisker, [place - 0.2] * 2, color="black", linewidth=0.8)
        if method in published:
            ratio = published[method][direction]
            rows["the paper"].append((place + 0.2, ratio, ratio))
    for (label, bars), colour in zip(rows.items(), (MEASURED, PUBLISHED), strict=True):
        places, ratios = [place for place, *_ in bars], [ratio for _, ratio, _ in bars]
        axes.barh(places, ratios, 0.38, color=colour, label=label)
        for at, ratio, end in bars:
            axes.annotate(
                f"{ratio:.3g}",
                (max(ratio, end), at),
                xytext=(4, 0),
                textcoords="offset points",
                va="center",
                fontsize=7,
                bbox={"facecolor": "white", "alpha": 0.8, "linewidth": 0, "pad": 0.5},
            )
    ends = [1.0, *(end for bars in rows.values() for _, *both in bars for end in both)]
    axes.set_xscale("log")
    axes.set_xlim(0.7 * min(ends), 2.2 * max(ends))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.axvline(1, color="black", linewidth=0.8, linestyle="--", zorder=0)
    axes.set(title=direction, xlabel="times as long as average pooling")
    axes.grid(axis="x", alpha=0.3)
    axes.set_axisbelow(True)
