"""``vidpool data shard``: write a data set as tar shards."""

import argparse
from typing import Any

from vidpool.cli.arguments import add_num_workers, add_seed
from vidpool.cli.configs import DATA_HELP, make_datamodule
from vidpool.cli.data_prepare import print_bad_files
from vidpool.data.listed import ListedDataModule
from vidpool.data.shards.writer import make_shards
from vidpool.errors import ConfigError


def add_parser(what: Any) -> None:
    """Add ``shard`` to the subcommands of ``vidpool data``."""
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
    parser.set_defaults(run=run, takes_data=True)
    add = parser.add_argument
    add("--output", required=True, metavar="DIR", help="the folder to make")
    add("--size", type=float, default=512, metavar="MIB", help="of a shard (default: %(default)s)")
    add_seed(add, "of the shuffled order")
    add_num_workers(add)


def run(args: argparse.Namespace) -> int:
    """Write the shards; the exit status is 1 if a video could not be read.

    Raises:
        ConfigError: An option cannot work.
        DataError: The data are not where the settings say.
    """
    data = make_datamodule("data shard", args.rest)
    if not isinstance(data, ListedDataModule):
        raise ConfigError(f"{type(data).__name__} has no files to be put into shards")
    report = make_shards(data, args.output, args.size, args.seed, args.num_workers)
    print(f"{args.output}: {report.made} shards written, {report.kept} were there already")
    print(", ".join(f"{split}: {count:,} videos" for split, count in report.videos.items()))
    return print_bad_files("cannot be read and are left out", report.bad)
