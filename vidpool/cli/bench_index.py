"""``vidpool bench index``: what the list of a data set costs as the data set grows."""

from __future__ import annotations

import argparse
from dataclasses import asdict
from pathlib import Path
from typing import Any

from rich import box
from rich.progress import MofNCompleteColumn, Progress
from rich.table import Table

from vidpool.bench.index import (
    HACS_ROWS,
    MIB,
    START_METHODS,
    WORKERS,
    IndexResult,
    index_chart,
    measure_index,
)
from vidpool.bench.timing import describe_machine
from vidpool.cli.arguments import add_output, results_file
from vidpool.errors import ConfigError
from vidpool.results import provenance, wide_console, write_results

DEFAULT_ROWS = (10_000, 100_000, 1_000_000, HACS_ROWS)


def add_parser(what: Any) -> None:
    """Add ``index`` to the subcommands of ``vidpool bench``."""
    parser = what.add_parser(
        "index",
        help="time loading the index of a data set, and measure its memory, by size",
        description="Generate annotation files as HACS has them, make their indexes, and measure "
        "how long these take to load in a fresh process, and the memory that they take there and "
        f"in {WORKERS} loader processes over an epoch (at most 1.6 million clips of it).",
        epilog="example: vidpool bench index --rows 10000 1550016",
    )
    parser.set_defaults(run=run)
    parser.add_argument(
        "--rows",
        nargs="+",
        type=int,
        default=DEFAULT_ROWS,
        metavar="N",
        help=f"clips (default: {' '.join(map(str, DEFAULT_ROWS))}; HACS has {HACS_ROWS}); "
        "--rows 10000000 takes ten minutes more",
    )
    add_output(parser.add_argument, "every figure")


def run(args: argparse.Namespace) -> int:
    """Run ``vidpool bench index``.

    Raises:
        ConfigError: A number of rows is too small, or memory cannot be measured here.
    """
    output = results_file(args)
    if min(args.rows) < 100:
        raise ConfigError(f"--rows must be at least 100, got {min(args.rows)}")
    if not Path("/proc/self/smaps_rollup").exists():
        raise ConfigError("memory is measured with Linux's /proc/self/smaps_rollup; not here")
    results: list[IndexResult] = []
    columns = (*Progress.get_default_columns(), MofNCompleteColumn())
    with Progress(*columns, transient=True) as progress:
        task = progress.add_task("sizes", total=len(args.rows))
        for result in measure_index(args.rows):
            results.append(result)
            progress.advance(task)
    machine = describe_machine("cpu")
    print(f"{machine['device_name']}, {WORKERS} loader processes")
    wide_console().print(_table(results))
    if output is not None:
        about = {**provenance(args.command), **machine, "workers": WORKERS}
        content = [asdict(result) for result in results]
        for path in write_results(output, about, content, index_chart(results, machine)):
            print(f"wrote {path}")
    return 0


def _table(results: list[IndexResult]) -> Table:
    table = Table(
        box=box.SIMPLE_HEAD,
        padding=(0, 1, 0, 0),
        caption="list: to read the annotation file and find each clip's file. load: the index, in "
        "a fresh process. main: by which that grows, of which private: not the mapped file. "
        "worker: private memory of a loader process after an epoch, less that with a tiny set.",
        caption_justify="left",
    )
    names = ["clips\n", "CSV\nMB", "list\ns", "index\nMB", "load\ns", "main\nMiB", "private\nMiB"]
    for name in [*names, *(f"worker,\n{start} MiB" for start in START_METHODS)]:
        table.add_column(name, justify="right", no_wrap=True)
    for result in results:
        table.add_row(
            f"{result.rows:,}",
            f"{result.csv_size / 1e6:.1f}",
            f"{result.csv_seconds:.2f}",
            f"{result.index_size / 1e6:.1f}",
            f"{result.load_seconds:.3f}",
            f"{result.main_memory / MIB:.1f}",
            f"{result.main_private / MIB:.1f}",
            *(f"{result.worker_private[start] / MIB:.1f}" for start in START_METHODS),
        )
    return table
