"""``vidpool data prepare``: transcode videos so that they are fast to read."""

import argparse
import sys
from typing import Any

from vidpool.cli.arguments import add_num_workers
from vidpool.data.prepare.transcode import PrepareSettings, prepare
from vidpool.files import printable

MAX_NAMED = 20  # bad files that are printed


def add_parser(what: Any) -> None:
    """Add ``prepare`` to the subcommands of ``vidpool data``."""
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
    parser.set_defaults(run=run)
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


def run(args: argparse.Namespace) -> int:
    """Transcode the videos; the exit status is 1 if one could not be read to its end.

    Raises:
        ConfigError: An option cannot work.
        DataError: There are no videos.
    """
    settings = PrepareSettings(args.short_side, args.fps, args.gop)
    report = prepare(args.source, args.target, settings, args.num_workers, args.shard)
    print(f"{args.target}: {report.made} videos prepared, {report.kept} were there already")
    failures = [f"{name}: {reason}" for name, reason in report.failures]
    cut_short = [f"{name}: {reason}" for name, reason in report.cut_short]
    failed = print_bad_files(f"could not be prepared, see {report.log}", failures)
    cut = print_bad_files(f"prepared up to where they were cut, see {report.log}", cut_short)
    return cut or failed


def print_bad_files(what: str, bad: list[str]) -> int:
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
