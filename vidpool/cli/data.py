"""``vidpool data``: making data sets, and checking them."""

import argparse
import sys
from pathlib import Path

from rich import box
from rich.console import Console
from rich.table import Table

from vidpool.cli.data_options import HELP, make_datamodule
from vidpool.data.check import PROBLEMS, RECORDS, CheckedData, check_data
from vidpool.data.check_report import write_report
from vidpool.data.cpus import usable_cpus
from vidpool.data.demo import make_demo
from vidpool.data.listed import ListedDataModule
from vidpool.errors import ConfigError


def main(verb: str, arguments: list[str]) -> int:
    """Run ``vidpool data demo | check``."""
    parser = argparse.ArgumentParser(
        prog=f"vidpool {verb}", description="Make and check data sets."
    )
    what = parser.add_subparsers(dest="what", metavar="WHAT", required=True)
    demo = what.add_parser(
        "demo",
        help="eight classes of generated videos that only motion tells apart",
        description="Generate the demo data set: real video files in UCF-101's layout, eight "
        "classes that only motion tells apart. What is there already is kept.",
    )
    demo.add_argument("--out", required=True, metavar="DIR", help="the folder to make")
    demo.add_argument(
        "--clips-per-group",
        type=int,
        default=10,
        metavar="N",
        help="clips of each of the 8 classes in each of the 18 groups (default: %(default)s)",
    )
    demo.add_argument("--seed", type=int, default=0, help="(default: %(default)s)")
    demo.add_argument("--workers", type=int, metavar="N", help="processes (default: one a CPU)")
    check = what.add_parser(
        "check",
        help="what is missing, broken or too short; makes the index that training uses",
        usage="%(prog)s --config FILE [--out DIR] [--workers N] [--data.OPTION VALUE]...",
        description="Look at every file of a data set: is it there, does it decode, how many "
        "frames has it? Writes a report, a picture and an index file, which makes training start "
        "faster and know broken files beforehand. An interrupted run goes on where it ended; "
        "a later one reads only what is new, has changed or could not be read.",
        epilog=f"{HELP}. Example: vidpool data check --config configs/data/hacs.yaml --workers 8",
    )
    check.add_argument(
        "--out", metavar="DIR", help="the report's folder (default: that of data.index, or checks/)"
    )
    check.add_argument("--workers", type=int, metavar="N", help="processes (default: one a CPU)")
    args, rest = parser.parse_known_args(arguments)
    if args.what == "check":
        return _check(f"{verb} check", args, rest)
    if rest:
        parser.error(f"unrecognized arguments: {' '.join(rest)}")
    root = make_demo(args.out, args.clips_per_group, args.seed, args.workers)
    print(f"the demo data set is complete: {root}")
    return 0


def _check(verb: str, args: argparse.Namespace, rest: list[str]) -> int:
    """Check a data set; the exit status is 0, for problems are what was asked for."""
    if args.workers is not None and args.workers < 1:
        raise ConfigError(f"--workers must be at least 1, got {args.workers}")
    data = make_datamodule(verb, rest)
    if not isinstance(data, ListedDataModule):
        raise ConfigError(f"{type(data).__name__} has no files to be checked one by one")
    if args.out is not None:
        folder = Path(args.out)
    elif data.index is not None:
        folder = data.index.parent
    else:
        folder = Path("checks") / data.root.absolute().name
    index = data.index or folder / "index.safetensors"
    try:
        checked = check_data(data, folder, index, args.workers or usable_cpus())
    except KeyboardInterrupt:
        print(
            f"what was read is noted in {folder / RECORDS}: repeat the command to go on",
            file=sys.stderr,
        )
        raise
    Console().print(_overview(checked))
    for file in write_report(checked, folder):
        print(f"wrote {file}")
    print(f"wrote {index}; train with it: --data.index {index}")
    return 0


def _overview(checked: CheckedData) -> Table:
    """What each split has, and what is wrong."""
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
