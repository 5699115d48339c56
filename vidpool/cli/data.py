"""``vidpool data``: generate, check, prepare and shard data sets.

Each function imports what it needs, so that a subcommand and its help wait for nothing else.
"""

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vidpool.cli.arguments import DATA_HELP, add_num_workers, add_seed, check_at_least
from vidpool.errors import ConfigError
from vidpool.files import printable

if TYPE_CHECKING:
    from rich.table import Table

    from vidpool.data.prepare.check import CheckedData

MAX_NAMED = 20  # bad files that are printed


def add_demo(what: Any) -> None:
    """Add the parser of ``vidpool data demo``."""
    parser = what.add_parser(
        "demo",
        help="generate a data set of eight classes that only motion tells apart",
        description="Generate the demo data set: video files in UCF-101's layout, eight classes "
        "that only motion tells apart. Files that exist already are kept.",
    )
    parser.set_defaults(run=run_demo)
    add = parser.add_argument
    add("--output", required=True, metavar="DIR", help="the folder to make")
    add(
        "--clips_per_group",
        type=int,
        default=10,
        metavar="N",
        help="clips of each of the 8 classes in each of the 18 groups (default: %(default)s)",
    )
    add_seed(add)
    add_num_workers(add)


def run_demo(args: argparse.Namespace) -> int:
    """Generate the data set.

    Raises:
        ConfigError: An option cannot work, or the folder holds something else.
    """
    from vidpool.data.datasets.demo import make_demo

    root = make_demo(args.output, args.clips_per_group, args.seed, args.num_workers)
    print(f"the demo data set is complete: {root}")
    return 0


def add_check(what: Any) -> None:
    """Add the parser of ``vidpool data check``."""
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
    parser.set_defaults(run=run_check, takes_data=True)
    parser.add_argument(
        "--output",
        metavar="DIR",
        help="the report's folder (default: that of data.index, or checks/)",
    )
    add_num_workers(parser.add_argument)


def run_check(args: argparse.Namespace) -> int:
    """Check a data set; the exit status is 0 even if problems are found.

    Raises:
        ConfigError: An option cannot work.
        DataError: The data are not where the settings say, or the folder is another data set's.
    """
    from vidpool.cli.configs import make_datamodule
    from vidpool.data.listed import ListedDataModule
    from vidpool.data.parallel import usable_cpus
    from vidpool.data.prepare.check import check_data
    from vidpool.data.prepare.check_report import repeat_warnings, write_report
    from vidpool.data.prepare.journal import RECORDS
    from vidpool.results import wide_console

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


def _overview(checked: "CheckedData") -> "Table":
    """Return a table of the videos and problems of each split."""
    from rich import box
    from rich.table import Table

    from vidpool.data.prepare.check import PROBLEMS

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


def add_prepare(what: Any) -> None:
    """Add the parser of ``vidpool data prepare``."""
    from vidpool.data.prepare.transcode import PrepareSettings

    parser = what.add_parser(
        "prepare",
        help="transcode a tree of videos so that they are fast to read",
        description="Transcode a tree of videos into the same tree of H.264 files with many key "
        "frames, scaled, upright and without sound. Files that exist already are kept, so the "
        "command can be interrupted and repeated. Videos that cannot be read are listed at the end "
        "and in prepare_failures.csv, and the exit status is then 1. The same goes for videos that "
        "were cut short; their readable part is prepared.",
        epilog="example: vidpool data prepare data/hacs_full data/hacs --num_workers 16; on a "
        "cluster: sbatch --array=0-63 tools/prepare.sbatch data/hacs_full data/hacs",
    )
    parser.set_defaults(run=run_prepare)
    add = parser.add_argument
    add("source", metavar="SRC", help="the folder with the videos")
    add("target", metavar="DST", help="the folder to make")
    add(
        "--short_side",
        type=int,
        default=PrepareSettings.short_side,
        metavar="N",
        help="pixels of the shorter side; smaller videos keep their size (default: %(default)s)",
    )
    add(
        "--fps", type=float, metavar="N", help="constant frame rate (default: all frames, as timed)"
    )
    add(
        "--gop",
        type=int,
        default=PrepareSettings.gop,
        metavar="N",
        help="frames from one key frame to the next (default: %(default)s, every frame is "
        "one; 12 makes files half as large and slower to read)",
    )
    add_num_workers(add)
    add(
        "--shard",
        type=_part,
        default=(0, 1),
        metavar="I/N",
        help="only part I, from 0, of N parts",
    )


def run_prepare(args: argparse.Namespace) -> int:
    """Transcode the videos; the exit status is 1 if one could not be read to its end.

    Raises:
        ConfigError: An option cannot work.
        DataError: There are no videos.
    """
    from vidpool.data.prepare.transcode import PrepareSettings, prepare

    settings = PrepareSettings(args.short_side, args.fps, args.gop)
    report = prepare(args.source, args.target, settings, args.num_workers, args.shard)
    print(f"{args.target}: {report.made} videos prepared, {report.kept} were there already")
    failures = [f"{name}: {reason}" for name, reason in report.failures]
    cut_short = [f"{name}: {reason}" for name, reason in report.cut_short]
    failed = _print_bad_files(f"could not be prepared, see {report.log}", failures)
    cut = _print_bad_files(f"prepared up to where they were cut, see {report.log}", cut_short)
    return cut or failed


def _print_bad_files(what: str, bad: list[str]) -> int:
    """Print the first of the bad files and how many there are; return the exit status."""
    if bad:
        print(f"{len(bad)} {what}:", file=sys.stderr)
    for text in bad[:MAX_NAMED]:
        print(f"  {printable(text)}", file=sys.stderr)
    if len(bad) > MAX_NAMED:
        print(f"  … and {len(bad) - MAX_NAMED} more", file=sys.stderr)
    return 1 if bad else 0


def _part(text: str) -> tuple[int, int]:
    part, _, parts = text.partition("/")
    if not (part.isdecimal() and parts.isdecimal()):
        raise argparse.ArgumentTypeError(f"{text!r} is not of the form I/N, such as 0/8")
    return int(part), int(parts)


def add_shard(what: Any) -> None:
    """Add the parser of ``vidpool data shard``."""
    parser = what.add_parser(
        "shard",
        help="write webdataset tar shards of a data set, for clusters",
        usage="%(prog)s --config FILE --output DIR [--size MIB] [--num_workers N] "
        "[--data.OPTION VALUE]...",
        description="Write all splits of a data set as tar files that are read sequentially; "
        "training videos are shuffled. Train on them with the datamodule ShardDataModule. An "
        "interrupted run can be repeated. Videos that cannot be read are left out and listed, and "
        "the exit status is then 1.",
        epilog=f"{DATA_HELP}. Example: vidpool data shard --config data/hacs --output "
        "data/hacs_shards --num_workers 16",
    )
    parser.set_defaults(run=run_shard, takes_data=True)
    add = parser.add_argument
    add("--output", required=True, metavar="DIR", help="the folder to make")
    add("--size", type=float, default=512, metavar="MIB", help="of a shard (default: %(default)s)")
    add_seed(add, "of the shuffled order")
    add_num_workers(add)


def run_shard(args: argparse.Namespace) -> int:
    """Write the shards; the exit status is 1 if a video could not be read.

    Raises:
        ConfigError: An option cannot work.
        DataError: The data are not where the settings say.
    """
    from vidpool.cli.configs import make_datamodule
    from vidpool.data.listed import ListedDataModule
    from vidpool.data.shards.writer import make_shards

    data = make_datamodule("data shard", args.rest)
    if not isinstance(data, ListedDataModule):
        raise ConfigError(f"{type(data).__name__} has no files to be put into shards")
    report = make_shards(data, args.output, args.size, args.seed, args.num_workers)
    print(f"{args.output}: {report.made} shards written, {report.kept} were there already")
    print(", ".join(f"{split}: {count:,} videos" for split, count in report.videos.items()))
    return _print_bad_files("cannot be read and are left out", report.bad)
