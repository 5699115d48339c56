"""A picture of what decoding costs: bars of ratios to decord."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from matplotlib.figure import Figure

from vidpool.bench.decode import DECORD, Result
from vidpool.colours import AMBER, BLUE, ORANGE

COLOURS = {"auto": ORANGE, "auto fast": AMBER, "torchcodec": BLUE}
LONGEST = 2  # ratios beyond it are cut off, and told by their number
WRONG = 0.005  # share of wrong frames from which a bar is hatched


def ratio_chart(results: Sequence[Result], machine: dict[str, Any]) -> Figure:
    """Draw the CPU time of a clip over decord's, by file; hatched where frames are wrong.

    Args:
        results: At least one.
        machine: See :func:`vidpool.bench.machine.describe`.
    """
    figure = Figure(figsize=(9, 1.6 + 0.6 * len(results)), layout="constrained")
    axes = figure.subplots()
    height = 0.8 / len(COLOURS)
    for number, (decoder, colour) in enumerate(COLOURS.items()):
        places = [group + (number - 1) * height for group in range(len(results))]
        ratios = [result.ratio(decoder) or 0 for result in results]
        lengths = [min(ratio, LONGEST) for ratio in ratios]
        bars = axes.barh(places, lengths, 0.92 * height, color=colour, label=decoder)
        texts = []
        for bar, ratio, result in zip(bars, ratios, results, strict=True):
            wrong = result.wrong.get(decoder, 0)
            if wrong > WRONG:
                bar.set_hatch("////")
                bar.set_edgecolor("white")
            texts.append(
                f"{ratio:.2f}" + (f", {wrong:.0%} wrong" if wrong > WRONG else "")
                if ratio
                else "none"
            )
        axes.bar_label(bars, texts, padding=3, fontsize=7)
    axes.axvline(1, color="black", linewidth=0.8, linestyle="--", zorder=0)
    labels = [f"{result.name}\n{DECORD}: {_wrong_text(result)}" for result in results]
    axes.set_yticks(range(len(results)), labels, fontsize=8)
    axes.set_ylim(len(results) - 0.5, -0.5)  # the first file on top
    axes.set(
        title=f"CPU time of a random clip over decord's\n{machine['device_name']}, one thread",
        xlabel="times as long as decord",
    )
    axes.set_xlim(0, 1.2 * LONGEST)
    axes.grid(axis="x", alpha=0.3)
    axes.set_axisbelow(True)
    axes.legend(loc="lower right", fontsize=8)
    return figure


def _wrong_text(result: Result) -> str:
    if DECORD in result.missing:
        return "cannot read it"
    if DECORD not in result.wrong:
        return "frames not checked"
    return f"{result.wrong[DECORD]:.0%} wrong"
