"""``vidpool data``: making data sets."""

import argparse

from vidpool.data.demo import make_demo


def main(verb: str, arguments: list[str]) -> int:
    """Run ``vidpool data demo``."""
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
    args = parser.parse_args(arguments)
    root = make_demo(args.out, args.clips_per_group, args.seed, args.workers)
    print(f"the demo data set is complete: {root}")
    return 0
