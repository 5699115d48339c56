"""``vidpool data check``: check a data set and write its index."""

import argparse
import sys
from pathlib import Path
from typing import Any

from rich import box
from rich.table import Table

from vidpool.cli.arguments import add_num_workers, check_at_least
from vidpool.cli.configs import DATA_HELP, make_datamodule
from vidpool.data.listed import ListedDataModule
from vidpool.data.parallel import usable_cpus
from vidpool.data.prepare.check import PROBLEMS, CheckedData, check_data
from vidpool.data.prepare.check_report import repeat_warnings, write_report
from vidpool.data.prepare.journal import RECORDS
from vidpool.errors import ConfigError
from vidpool.results import wide_console


def add_parser(what: Any) -> None:
    """Add ``check`` to the subcommands of ``vidpool data``."""
    parser = what.add_parser(
        "check",
        help="find missing, broken and short videos; writes the index that training uses",
        usage="%(prog)s --config FILE [--output DIR] [--num_workers N] [--data.OPTION VALUE]...",
        description="Check every file of a data set: whether it exists and decodes, how many "
        "frames it has, and whether it is in two splits or under two labels. Writes a report, a "
        "chart and an index file, so that training starts faster and knows the broken files. An "
        "interrupted run continues where it stopped; a later run reads only files that are new, "
        "have changed or could not be read.",
        epilog=f"{DATA_HELP}. Example: vidpool data check --config data/hacs --num_workers 8",
    )
    parser.set_defaults(run=run, takes_data=True)
    parser.add_argument(
        "--output",
        metavar="DIR",
        help="the report's folder (default: that of data.index, or checks/)",
    )
    add_num_workers(parser.add_argument)


def run(args: argparse.Namespace) -> int:
    """Check a data set; the exit status is 0 even if problems are found.

    Raises:
        ConfigError: An option cannot work.
        DataError: The data are not where the settings say, or the folder is another data set's.
    """
    check_at_least(args, 1, "num_workers")
    data = make_datamodule("data check", args.rest)
    if not isinstance(data, ListedDataModule):
        raise ConfigError(f"{type(data).__name__} has no files to be checked one by one")
    if args.output is not None:
        folder = Path(args.output)
    elif data.index is not None:
        folder = data.index.parent
    else:
        folder = Path("checks") / data.root.absolute().name
    index = data.index or folder / "index.safetensors"
    try:
        checked = check_data(data, folder, index, args.num_workers or usable_cpus())
    except KeyboardInterrupt:
        print(
            f"progress is saved in {folder / RECORDS}: repeat the command to continue",
            file=sys.stderr,
        )
        raise
    wide_console().print(_overview(checked))
    for warning in repeat_warnings(checked):
        print(f"warning: {warning}")
    for file in write_report(checked, folder):
        print(f"wrote {file}")
    print(f"wrote {index}; train with it: --data.index {index}")
    return 0


def _overview(checked: CheckedData) -> Table:
    """Return a table of the videos and problems of each split."""
    table = Table(box=box.SIMPLE_HEAD, caption=f"{checked.read:,} files were read by this run")
    for name in ("split", "classes", "listed", "found", *PROBLEMS):
        narrow = len(name) < 11  # the longer names have a space to be broken at
        table.add_column(name, justify="left" if name == "split" else "right", no_wrap=narrow)
    for split in checked.listing.splits:
        counts = checked.counts(split)
        classes = int((counts[:-1, 0] > 0).sum())
        listed, *problems = counts.sum(axis=0).tolist()
        found = listed - problems[PROBLEMS.index("missing")]
        table.add_row(split, *(f"{number:,}" for number in (classes, listed, found, *problems)))
    return table
