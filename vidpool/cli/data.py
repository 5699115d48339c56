"""``vidpool data``: making data sets, checking and preparing them."""

import argparse
import sys
from pathlib import Path
from typing import Any

from rich import box
from rich.table import Table

from vidpool.cli.data_options import HELP, make_datamodule
from vidpool.cli.seeds import add_seed
from vidpool.cli.subcommands import run_subcommand
from vidpool.data.datasets.demo import make_demo
from vidpool.data.listed import ListedDataModule
from vidpool.data.parallel import usable_cpus
from vidpool.data.prepare.check import PROBLEMS, CheckedData, check_data
from vidpool.data.prepare.check_report import repeat_warnings, write_report
from vidpool.data.prepare.journal import RECORDS
from vidpool.data.prepare.transcode import PrepareSettings, prepare
from vidpool.data.shards.writer import make_shards
from vidpool.errors import ConfigError
from vidpool.files import printable
from vidpool.results import wide_console

MOST_NAMED = 20  # bad files that are printed


def main(verb: str, arguments: list[str]) -> int:
    """Run ``vidpool data demo | check | prepare | shard``."""
    return run_subcommand(
        verb,
        arguments,
        (_add_demo, _add_check, _add_prepare, _add_shard),
        description="Make, check and prepare data sets.",
        epilog="example: vidpool data check --config data/hacs --workers 8; for the "
        "options of each WHAT: vidpool data WHAT --help",
    )


def _add_demo(what: Any) -> None:
    demo = what.add_parser(
        "demo",
        help="eight classes of generated videos that only motion tells apart",
        description="Generate the demo data set: real video files in UCF-101's layout, eight "
        "classes that only motion tells apart. What is there already is kept.",
    )
    demo.set_defaults(run=_demo)
    demo.add_argument("--out", required=True, metavar="DIR", help="the folder to make")
    demo.add_argument(
        "--clips-per-group",
        type=int,
        default=10,
        metavar="N",
        help="clips of each of the 8 classes in each of the 18 groups (default: %(default)s)",
    )
    add_seed(demo.add_argument)
    demo.add_argument("--workers", type=int, metavar="N", help="processes (default: one a CPU)")


def _demo(args: argparse.Namespace) -> int:
    root = make_demo(args.out, args.clips_per_group, args.seed, args.workers)
    print(f"the demo data set is complete: {root}")
    return 0


def _add_check(what: Any) -> None:
    check = what.add_parser(
        "check",
        help="what is missing, broken or too short; makes the index that training uses",
        usage="%(prog)s --config FILE [--out DIR] [--workers N] [--data.OPTION VALUE]...",
        description="Look at every file of a data set: is it there, does it decode, how many "
        "frames has it, is it in two splits or under two labels? Writes a report, a picture and an "
        "index file, which makes training start faster and know broken files beforehand. A run "
        "that was interrupted goes on where it ended; a later one reads only what is new, has "
        "changed or could not be read.",
        epilog=f"{HELP}. Example: vidpool data check --config data/hacs --workers 8",
    )
    check.set_defaults(run=_check, takes_rest=True)
    check.add_argument(
        "--out", metavar="DIR", help="the report's folder (default: that of data.index, or checks/)"
    )
    check.add_argument("--workers", type=int, metavar="N", help="processes (default: one a CPU)")


def _check(args: argparse.Namespace) -> int:
    """Check a data set; the exit status is 0, for problems are what was asked for."""
    if args.workers is not None and args.workers < 1:
        raise ConfigError(f"--workers must be at least 1, got {args.workers}")
    data = make_datamodule("data check", args.rest)
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
    wide_console().print(_overview(checked))
    for warning in repeat_warnings(checked):
        print(f"warning: {warning}")
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


def _add_prepare(what: Any) -> None:
    preparing = what.add_parser(
        "prepare",
        help="small videos that are fast to read, of any tree of videos",
        description="Make of a tree of videos the same tree of h264 files with many key frames, "
        "scaled, turned upright and without sound. What is there already is kept, so that the "
        "command can be interrupted and repeated. Videos that cannot be read are listed at the "
        "end and in prepare_failures.csv, and make the exit status 1; so are those that were cut "
        "short, of which what is there is prepared.",
        epilog="example: vidpool data prepare data/hacs_full data/hacs --num-workers 16; on a "
        "cluster: sbatch --array=0-63 tools/prepare.sbatch data/hacs_full data/hacs",
    )
    preparing.set_defaults(run=_prepare)
    add = preparing.add_argument
    add("source", metavar="SRC", help="the folder with the videos")
    add("target", metavar="DST", help="the folder to make")
    add(
        "--short-side",
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
        help="frames from one key frame to the next (default: %(default)s, every frame is one; 12 "
        "makes files half as large and slower to read)",
    )
    add("--num-workers", type=int, metavar="N", help="processes (default: one a CPU)")
    add("--shard", type=_part, default=(0, 1), metavar="I/N", help="the part I, from 0, of N parts")


def _prepare(args: argparse.Namespace) -> int:
    settings = PrepareSettings(args.short_side, args.fps, args.gop)
    report = prepare(args.source, args.target, settings, args.num_workers, args.shard)
    print(f"{args.target}: {report.made} videos prepared, {report.kept} were there already")
    failures = [f"{name}: {reason}" for name, reason in report.failures]
    cut_short = [f"{name}: {reason}" for name, reason in report.cut_short]
    failed = _tell(f"could not be prepared, see {report.log}", failures)
    return _tell(f"prepared up to where they were cut, see {report.log}", cut_short) or failed


def _add_shard(what: Any) -> None:
    shard = what.add_parser(
        "shard",
        help="webdataset tar shards of a data set, for clusters",
        usage="%(prog)s --config FILE --out DIR [--size MIB] [--num-workers N] "
        "[--data.OPTION VALUE]...",
        description="Write all splits of a data set as tar files that are read from one end to the "
        "other; training videos are shuffled. Train on them with the datamodule "
        "ShardDataModule. A run that was interrupted can be repeated. Videos "
        "that cannot be read are left out and listed, and make the exit status 1.",
        epilog=f"{HELP}. Example: vidpool data shard --config data/hacs --out "
        "data/hacs_shards --num-workers 16",
    )
    shard.set_defaults(run=_shard, takes_rest=True)
    add = shard.add_argument
    add("--out", required=True, metavar="DIR", help="the folder to make")
    add("--size", type=float, default=512, metavar="MIB", help="of a shard (default: %(default)s)")
    add_seed(add, "of the order")
    add("--num-workers", type=int, metavar="N", help="processes (default: one a CPU)")


def _shard(args: argparse.Namespace) -> int:
    data = make_datamodule("data shard", args.rest)
    if not isinstance(data, ListedDataModule):
        raise ConfigError(f"{type(data).__name__} has no files to be put into shards")
    report = make_shards(data, args.out, args.size, args.seed, args.num_workers)
    print(f"{args.out}: {report.made} shards written, {report.kept} were there already")
    print(", ".join(f"{split}: {count:,} videos" for split, count in report.videos.items()))
    return _tell("cannot be read and are left out", report.bad)


def _tell(what: str, bad: list[str]) -> int:
    """Print some of the bad files; return the exit status."""
    if bad:
        print(f"{len(bad)} {what}:", file=sys.stderr)
    for text in bad[:MOST_NAMED]:
        print(f"  {printable(text)}", file=sys.stderr)
    if len(bad) > MOST_NAMED:
        print(f"  … and {len(bad) - MOST_NAMED} more", file=sys.stderr)
    return 1 if bad else 0


def _part(text: str) -> tuple[int, int]:
    part, _, parts = text.partition("/")
    if not (part.isdecimal() and parts.isdecimal()):
        raise argparse.ArgumentTypeError(f"{text!r} is not of the form I/N, such as 0/8")
    return int(part), int(parts)
