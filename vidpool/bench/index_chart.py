"""A picture of `vidpool bench index`: seconds and memory over the number of clips."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from matplotlib.figure import Figure

from vidpool.bench.index import IndexResult
from vidpool.colours import BLUE, GREEN, GREY, ORANGE

MIB = 2**20


def growth_chart(results: Sequence[IndexResult], machine: dict[str, Any]) -> Figure:
    """Draw how the time to load a data set's list, and the memory it takes, grow with its clips.

    Args:
        results: At least one.
        machine: See :func:`vidpool.bench.machine.describe`.
    """
    results = sorted(results, key=lambda result: result.rows)
    rows = [result.rows for result in results]
    figure = Figure(figsize=(11, 4.5), layout="constrained")
    left, right = figure.subplots(1, 2)
    left.plot(rows, [r.csv_seconds for r in results], "o-", color=GREY, label="annotation file")
    left.plot(rows, [r.load_seconds for r in results], "o-", color=ORANGE, label="index")
    left.set(title="to load the list", ylabel="seconds", yscale="log")
    mapped = [(r.main_memory - r.main_private) / MIB for r in results]
    right.plot(rows, mapped, "o-", color=GREY, label="main process, mapped file")
    private = [r.main_private / MIB for r in results]
    right.plot(rows, private, "o-", color=BLUE, label="main process, private")
    for start, colour in zip(results[0].worker_private, (ORANGE, GREEN), strict=True):
        worker = [r.worker_private[start] / MIB for r in results]
        right.plot(rows, worker, "o-", color=colour, label=f"worker ({start}), private")
    # private memory is about none, and may be a little less than that of a tiny data set
    right.set(title="memory", ylabel="MiB")
    right.set_yscale("symlog", linthresh=1)
    for axes in (left, right):
        axes.set(xlabel="clips", xscale="log")
        axes.grid(alpha=0.3)
        axes.legend()
    figure.suptitle(
        f"The list of a data set as it grows\n{machine['device_name']}, PyTorch {machine['torch']}"
    )
    return figure
