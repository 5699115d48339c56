"""``vidpool eval table7``: accuracies of tested networks and of the paper's Table 7."""

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich import box
from rich.markup import escape
from rich.table import Table

from vidpool.analysis.published import ACTION_DATASETS
from vidpool.analysis.table7 import (
    Method,
    TestedRun,
    arrange_methods,
    find_runs,
    read_run,
    table_7_figure,
)
from vidpool.cli.arguments import add_output, results_file
from vidpool.data.parallel import counting_bar
from vidpool.errors import DataError, VidpoolError
from vidpool.models.registry import size_text
from vidpool.results import provenance, wide_console, write_results


def add_parser(what: Any) -> None:
    """Add ``table7`` to the subcommands of ``vidpool eval``."""
    parser = what.add_parser(
        "table7",
        help="collect accuracies of tested networks by data set (Table 7)",
        description="Collect what `vidpool test` measured into the paper's Table 7, with the "
        "networks' parameters and multiply-adds.",
        epilog="example: vidpool eval table7 runs/r3d_50/test_0 runs/r3d_50_soft --output t7.json",
    )
    parser.set_defaults(run=run)
    add = parser.add_argument
    add(
        "runs",
        nargs="+",
        metavar="RUN",
        help="folders of tests, runs/NAME/test_N, or folders that contain such folders",
    )
    add_output(add, "the runs")


def run(args: argparse.Namespace) -> int:
    """Collect and print; unreadable tests are listed and make the exit status 1.

    Raises:
        DataError: A folder holds no test, or none of the tests can be read.
    """
    output = results_file(args)
    folders = find_runs([Path(folder) for folder in args.runs])
    runs: list[TestedRun] = []
    failures: list[str] = []
    with counting_bar() as bar:
        task = bar.add_task("counting multiply-adds", total=len(folders))
        for folder in folders:
            try:
                runs.append(read_run(folder))
            except VidpoolError as error:
                failures.append(str(error))
            bar.advance(task)
    if not runs:
        raise DataError(f"none of {len(folders)} tests can be read: {failures[0]}")
    methods, data_sets = arrange_methods(runs)
    console = wide_console()
    console.print(_table(methods, data_sets))
    for tested in runs:
        console.print(
            f"{tested.folder}: {tested.method} on {tested.data_set}, {tested.videos:,} "
            f"{'videos' if tested.clip[0] > 1 else 'pictures'}, {tested.views} "
            f"{'views' if tested.views > 1 else 'view'} of {size_text(tested.clip)}"
            + (", each one frame, repeated" if tested.static else ""),
            markup=False,
            highlight=False,
            soft_wrap=True,
        )
    for message in failures:
        console.print(f"left out: {escape(message)}", highlight=False)
    if output:
        content = {
            "runs": [tested.as_dict() for tested in runs],
            "published": [method.as_dict() for method in methods if method.published],
            "left_out": failures,
        }
        figure = table_7_figure(methods, data_sets)
        for path in write_results(output, provenance(args.command), content, figure):
            print(f"wrote {path}")
    return 1 if failures else 0


def _table(methods: Sequence[Method], data_sets: Sequence[str]) -> Table:
    table = Table(
        box=box.SIMPLE_HEAD,
        padding=(0, 1, 0, 0),
        title="Table 7: what was measured, and below it, in brackets, the paper's values",
        title_justify="left",
        caption="GFLOPs: multiply-adds in units of 10^9 of one clip, as the paper counts them; the "
        "paper's follow from 32 frames. Accuracies: top-1, top-5 in percent.",
        caption_justify="left",
    )
    table.add_column("method", overflow="fold")
    for name in (
        "params\nM",
        "GFLOPs\n",
        "clip\n",
        *(f"{name}\ntop-1, top-5" for name in data_sets),
    ):
        table.add_column(name, justify="right", no_wrap=True)
    for method in methods:
        clips = dict.fromkeys((run.clip, run.cost) for run in method.runs)
        published = method.published
        cells = [
            [f"{cost.parameters / 1e6:.2f}" for _, cost in clips],
            [f"{cost.paper / 1e9:.2f}" for _, cost in clips]
            + ([f"({published.gflops:.2f})"] if published else []),
            [size_text(clip) for clip, _ in clips],
        ]
        for data_set in data_sets:
            lines = [_accuracies(run.top1, run.top5) for run in method.on(data_set)]
            if published and data_set in ACTION_DATASETS:
                lines.append(f"({_accuracies(*method.published_on(data_set))})")
            cells.append(lines)
        table.add_row(method.name, *("\n".join(lines) for lines in cells))
    return table


def _accuracies(top1: float | None, top5: float | None) -> str:
    return ", ".join("N/A" if value is None else f"{value:.2f}" for value in (top1, top5))
