"""``vidpool data``: making data sets and preparing them."""

import argparse
import sys

from vidpool.data.demo import make_demo
from vidpool.data.prepare import PrepareSettings, prepare

MOST_NAMED = 20  # failures that are printed; the log has all


def main(verb: str, arguments: list[str]) -> int:
    """Run ``vidpool data demo | prepare``."""
    parser = argparse.ArgumentParser(prog=f"vidpool {verb}", description="Make data sets.")
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
    preparing = what.add_parser(
        "prepare",
        help="small videos that are fast to read, of any tree of videos",
        description="Make of a tree of videos the same tree of h264 files with many key frames, "
        "scaled, turned upright and without sound. What is there already is kept, so that the "
        "command can be interrupted and repeated. Videos that cannot be read are listed at the "
        "end and in prepare_failures.csv, and make the exit status 1.",
        epilog="example: vidpool data prepare data/hacs_full data/hacs --num-workers 16; on a "
        "cluster: sbatch --array=0-63 tools/prepare.sbatch data/hacs_full data/hacs",
    )
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
    add("--num-workers", type=int, metavar="N", help="processes (default: one a CPU)")
    add(
        "--shard", type=_shard, default=(0, 1), metavar="I/N", help="the part I, from 0, of N parts"
    )

    args = parser.parse_args(arguments)
    if args.what == "prepare":
        return _prepare(args)
    root = make_demo(args.out, args.clips_per_group, args.seed, args.workers)
    print(f"the demo data set is complete: {root}")
    return 0


def _prepare(args: argparse.Namespace) -> int:
    settings = PrepareSettings(args.short_side, args.fps)
    report = prepare(args.source, args.target, settings, args.num_workers, args.shard)
    print(f"{args.target}: {report.made} videos prepared, {report.kept} were there already")
    if not report.failures:
        return 0
    print(f"{len(report.failures)} could not be prepared, see {report.log}:", file=sys.stderr)
    for name, reason in report.failures[:MOST_NAMED]:
        print(printable(f"  {name}: {reason}"), file=sys.stderr)
    if len(report.failures) > MOST_NAMED:
        print(f"  … and {len(report.failures) - MOST_NAMED} more", file=sys.stderr)
    return 1


def _shard(text: str) -> tuple[int, int]:
    part, _, parts = text.partition("/")
    if not (part.isdecimal() and parts.isdecimal()):
        raise argparse.ArgumentTypeError(f"{text!r} is not of the form I/N, such as 0/8")
    return int(part), int(parts)


def printable(text: str) -> str:
    """The text with what a terminal cannot show, such as names not in UTF-8, spelled out."""
    return text.encode("utf-8", errors="backslashreplace").decode("utf-8")
