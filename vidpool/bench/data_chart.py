"""A picture of `vidpool bench data`: what a clip takes, and how many a second workers bring."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from matplotlib.figure import Figure

from vidpool.bench.data import OURS, PEER, STAGES, Result
from vidpool.colours import AMBER, BLUE, GREEN, GREY, ORANGE, SKY

STAGE_COLOURS = (SKY, BLUE, GREEN, GREY, AMBER)
LOADER_COLOURS = {OURS: ORANGE, PEER: GREY}


def rate_chart(results: Sequence[Result], machine: dict[str, Any]) -> Figure:
    """Draw milliseconds of a clip by stage, and clips a second by the number of workers.

    Args:
        results: At least one.
        machine: See :func:`vidpool.bench.machine.describe`.
    """
    figure = Figure(figsize=(11, 2.6 + 0.9 * len(results)), layout="constrained")
    left, right = figure.subplots(1, 2)
    names = [result.name for result in results]
    begin = [0.0] * len(results)
    for stage, colour in zip(STAGES, STAGE_COLOURS, strict=True):
        widths = [1e3 * result.stages[stage] for result in results]
        left.barh(names, widths, 0.6, left=begin, color=colour, label=stage)
        begin = [b + w for b, w in zip(begin, widths, strict=True)]
    left.set(title="one process", xlabel="milliseconds a clip")
    left.invert_yaxis()
    left.legend(loc="lower center", bbox_to_anchor=(0.5, 1.1), ncols=len(STAGES), fontsize=8)
    labels, place = [], 0.0
    for result in results:
        for workers in sorted({count for _, count in result.seconds}):
            for shift, loader in ((-0.2, OURS), (0.2, PEER)):
                rate = result.rate(loader, workers)
                if rate is None:
                    continue
                right.barh(place + shift, rate, 0.38, color=LOADER_COLOURS[loader])
                right.annotate(
                    f"{rate:.3g}",
                    (rate, place + shift),
                    (3, 0),
                    textcoords="offset points",
                    va="center",
                    fontsize=8,
                )
            labels.append((place, f"{result.name}\n{workers} worker{'s' * (workers > 1)}"))
            place += 1
        place += 0.3
    right.set_yticks([at for at, _ in labels], [text for _, text in labels], fontsize=8)
    right.set(title="loaders", xlabel="clips a second")
    right.margins(x=0.12)
    right.invert_yaxis()
    handles = [right.barh(0, 0, color=colour) for colour in LOADER_COLOURS.values()]
    right.legend(
        handles, LOADER_COLOURS, loc="lower center", bbox_to_anchor=(0.5, 1.1), ncols=2, fontsize=8
    )
    figure.suptitle(machine["device_name"], fontsize=10)
    return figure
