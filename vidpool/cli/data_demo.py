"""``vidpool data demo``: generate the demo data set."""

import argparse
from typing import Any

from vidpool.cli.arguments import add_num_workers, add_seed
from vidpool.data.datasets.demo import make_demo


def add_parser(what: Any) -> None:
    """Add ``demo`` to the subcommands of ``vidpool data``."""
    parser = what.add_parser(
        "demo",
        help="generate a data set of eight classes that only motion tells apart",
        description="Generate the demo data set: video files in UCF-101's layout, eight classes "
        "that only motion tells apart. Files that exist already are kept.",
    )
    parser.set_defaults(run=run)
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


def run(args: argparse.Namespace) -> int:
    """Generate the data set.

    Raises:
        ConfigError: An option cannot work, or the folder holds something else.
    """
    root = make_demo(args.output, args.clips_per_group, args.seed, args.num_workers)
    print(f"the demo data set is complete: {root}")
    return 0
