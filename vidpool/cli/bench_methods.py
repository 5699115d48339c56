"""``vidpool bench pool --methods``: the latencies of Table 3, beside the paper's."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table

from vidpool.analysis.published import TABLE_3_LATENCY
from vidpool.bench.methods import (
    BASELINE,
    DIRECTIONS,
    Direction,
    MethodCall,
    MethodsResult,
    methods_chart,
)
from vidpool.results import provenance, write_results

SEED = 0  # of x


def published_ratios(device: str) -> dict[str, dict[Direction, float]]:
    """Table 3's latencies over those of average pooling, by method.

    Args:
        device: `cpu` or `cuda`.
    """
    average = TABLE_3_LATENCY[BASELINE]._asdict()
    return {
        name: {
            direction: times[f"{device}_{direction}"] / average[f"{device}_{direction}"]
            for direction in DIRECTIONS
        }
        for name, times in ((name, row._asdict()) for name, row in TABLE_3_LATENCY.items())
    }


def show(console: Console, results: Sequence[MethodsResult], device: str) -> None:
    """Print a table for each setting, and why methods are missing."""
    published = published_ratios(device)
    for result in results:
        console.print(methods_table(result, published, device))
        for name, reason in result.missing.items():
            console.print(f"none: {name}: {reason}", markup=False, highlight=False)


def methods_table(
    result: MethodsResult, published: Mapping[str, Mapping[Direction, float]], device: str
) -> Table:
    """Times in milliseconds, their ratios to average pooling beside the paper's, and memory."""
    shape = ",".join(map(str, result.case.shape))
    window = "x".join(map(str, result.case.window.kernel_size))
    table = Table(
        box=box.SIMPLE_HEAD,
        title=f"Table 3: {shape}, window {window}, {result.layout}, {result.dtype}, "
        f"{result.values}; {CLOCKS[result.clock]}",
        title_justify="left",
        caption="/avg: over average pooling's time; paper: the same of Table 3's times for "
        f"{device}, whose layer and window the paper does not say. spread: the wider interquartile "
        "range of the row's times, of its median. kept: what forward keeps for backward beyond x."
        + (" peak: what both hold at most beyond x." if result.peak_bytes else ""),
        caption_justify="left",
    )
    table.add_column("method", no_wrap=True)
    names = [f"{direction}\n{column}" for direction in DIRECTIONS for column in COLUMNS]
    for name in (*names, "\nspread", "kept\nMiB", *(["peak\nMiB"] if result.peak_bytes else [])):
        table.add_column(name, justify="right", no_wrap=True)
    for method in result.methods:
        cells = []
        for direction in DIRECTIONS:
            ratio = result.ratio(method, direction)
            cells.append(f"{1e3 * result.times[MethodCall(method, direction)].median:#.3g}")
            cells.append("none" if ratio is None else f"{ratio:.2f}")
            cells.append(f"{published[method][direction]:.2f}" if method in published else "")
        spread = max(result.times[MethodCall(method, direction)].spread for direction in DIRECTIONS)
        cells += [f"{spread:.0%}", f"{result.kept_bytes[method] / 2**20:.1f}"]
        if result.peak_bytes:
            cells.append(f"{result.peak_bytes[method] / 2**20:.1f}")
        table.add_row(method, *cells)
    return table


COLUMNS = ("ms", "/avg", "paper")
"""Labels of the directions."""
CLOCKS = {"cpu": "CPU time", "wall": "time by the clock", "cuda": "the device's time"}


def write(
    path: Path, machine: dict[str, Any], results: Sequence[MethodsResult], command: str
) -> list[Path]:
    """Write all times, and a chart of the first setting; see :func:`write_results`."""
    published = published_ratios(machine["device"])
    about = {**provenance(command, SEED), **machine}
    content = {
        "settings": [result.as_dict() for result in results],
        "published_ratios": published,
        "published_ms": {name: times._asdict() for name, times in TABLE_3_LATENCY.items()},
    }
    return write_results(path, about, content, methods_chart(results[0], machine, published))
