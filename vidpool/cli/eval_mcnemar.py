"""``vidpool eval mcnemar``: test whether two networks differ in accuracy. Tables 4 and S1."""

import argparse
from dataclasses import asdict
from pathlib import Path
from typing import Any

from rich import box
from rich.table import Table

from vidpool.analysis.mcnemar import (
    MIN_DISAGREEING,
    Contingency,
    compare_predictions,
    contingency_figure,
    mcnemar,
    reproduce_table_4,
    table_4_figure,
)
from vidpool.cli.arguments import add_output, results_file
from vidpool.errors import ConfigError
from vidpool.results import provenance, wide_console, write_results


def add_parser(what: Any) -> None:
    """Add ``mcnemar`` to the subcommands of ``vidpool eval``."""
    parser = what.add_parser(
        "mcnemar",
        help="test whether two networks differ in accuracy (Tables 4 and S1)",
        description="McNemar's test of two runs of `vidpool test` on the same videos: the numbers "
        "of videos that only one of them classifies correctly, chi-square with Edwards' "
        "correction, and p.",
        epilog="example: vidpool eval mcnemar runs/max/test_0/predictions.csv "
        "runs/soft/test_0/predictions.csv; vidpool eval mcnemar --paper",
    )
    parser.set_defaults(run=run)
    add = parser.add_argument
    add(
        "files",
        nargs="*",
        metavar="CSV",
        help="two predictions.csv of `vidpool test`, or their run folders",
    )
    add(
        "--counts",
        nargs=2,
        type=int,
        metavar=("ONLY_A", "ONLY_B"),
        help="instead: samples that only the first, and only the second, classifies correctly",
    )
    add("--paper", action="store_true", help="instead: reproduce Table 4 from Table S1's counts")
    add_output(add, "the results")


def run(args: argparse.Namespace) -> int:
    """Test and print.

    Raises:
        ConfigError: It is not clear what to compare, or a count is negative.
        DataError: A file cannot be read, or the two are of different samples.
    """
    output = results_file(args)
    given = [bool(args.files), args.counts is not None, args.paper]
    if sum(given) != 1 or len(args.files) not in (0, 2):
        raise ConfigError("give two predictions.csv, or --counts ONLY_A ONLY_B, or --paper")
    if args.paper:
        return _run_paper(args, output)
    if args.counts:
        only_a, only_b = args.counts
        counts, names = Contingency(None, only_a, only_b, None), ("the first", "the second")
    else:
        counts = compare_predictions(*map(Path, args.files))
        names = (args.files[0], args.files[1])
    test = mcnemar(counts.only_a, counts.only_b)
    console = wide_console()
    for letter, name in zip("AB", names, strict=True):
        console.print(f"{letter}: {name}", markup=False, highlight=False)
    console.print(_contingency_table(counts))
    console.print(f"chi-square {test.statistic:.2f}, p = {test.p_value:.3g}", highlight=False)
    few = counts.only_a + counts.only_b < MIN_DISAGREEING
    note = f"; fewer than {MIN_DISAGREEING} disagree, so this one counts" if few else ""
    console.print(f"exact (binomial) p = {test.exact_p_value:.3g}{note}", highlight=False)
    if output:
        content = {"names": names, "counts": counts._asdict(), **asdict(test)}
        figure = contingency_figure(counts, names, test)
        for path in write_results(output, provenance(args.command), content, figure):
            print(f"wrote {path}")
    return 0


def _run_paper(args: argparse.Namespace, output: Path | None) -> int:
    rows = reproduce_table_4()
    table = Table(box=box.SIMPLE_HEAD, title="Table 4, computed from the counts of Table S1")
    table.add_column("network", no_wrap=True)
    for name in ("only\nSoftPool", "only\noriginal", "χ²\n", "χ²\npaper", "p\n", "p\npaper"):
        table.add_column(name, justify="right", no_wrap=True)
    for row in rows:
        numbers = [f"{row.counts.only_a:,}", f"{row.counts.only_b:,}"]
        numbers += [f"{row.test.statistic:.2f}", row.published.statistic]
        numbers += [f"{row.test.p_value:.2e}", row.published.p_value]
        table.add_row(row.published.network, *numbers)
    console = wide_console()
    console.print(table)
    console.print("What the paper prints and its own counts do not give:", highlight=False)
    for row in rows:
        for misprint in row.misprints:
            console.print(f"  {row.published.network}: {misprint}", highlight=False, markup=False)
    if output:
        content = [row.as_dict() for row in rows]
        for path in write_results(output, provenance(args.command), content, table_4_figure(rows)):
            print(f"wrote {path}")
    return 0


def _contingency_table(counts: Contingency) -> Table:
    def text(*numbers: int | None) -> str:
        known = [number for number in numbers if number is not None]
        return f"{sum(known):,}" if len(known) == len(numbers) else "not known"

    table = Table(box=box.SIMPLE_HEAD)
    for name in ("", "B right", "B wrong", "total"):
        table.add_column(name, justify="right" if name else "left", no_wrap=True)
    both, only_a, only_b, neither = counts
    table.add_row("A right", text(both), text(only_a), text(both, only_a))
    table.add_row("A wrong", text(only_b), text(neither), text(only_b, neither), end_section=True)
    table.add_row("total", text(both, only_b), text(only_a, neither), text(*counts))
    return table
