"""``vidpool show augment``: a contact sheet of the augmentations."""

import argparse
from typing import Any

from vidpool.cli.arguments import DATA_HELP, PICTURES, add_seed, new_file
from vidpool.cli.configs import add_config, data_arguments, parse_data
from vidpool.data.schedule import ClipShape
from vidpool.data.transforms.augmentation import Augmentation
from vidpool.data.transforms.contact_sheet import augmentation_sheet
from vidpool.figures import save_figure


def add_parser(what: Any) -> None:
    """Add ``augment`` to the subcommands of ``vidpool show``."""
    parser = what.add_parser(
        "augment",
        help="draw the effect of each augmentation on a video",
        description="Draw a contact sheet: one row per augmentation, with three seeds and three "
        "frames of the clip each. With a config, its clip shape is used, and the last row shows "
        f"its own augmentation: {DATA_HELP}.",
        epilog="example: vidpool show augment video.mp4 --output sheet.png "
        "--config recipes/ucf101 --config augment/authors",
    )
    parser.set_defaults(run=run, takes_data=True)
    add = parser.add_argument
    add("video", metavar="VIDEO", help="a video file")
    add_config(add)
    add("--output", required=True, metavar="FILE.png", help="the picture; also .jpg, .pdf, .svg")
    add("--overwrite", action="store_true", help="replace it")
    add("--mix_with", metavar="VIDEO", help="for mixup and cutmix (default: the video, mirrored)")
    add_seed(add, "the first seed")
    for name, default in (("frames", 16), ("stride", 4), ("crop", 224)):
        add(f"--{name}", type=int, default=default, metavar="N", help="(default: %(default)s)")


def run(args: argparse.Namespace) -> int:
    """Draw and write the sheet.

    Raises:
        ConfigError: An option cannot work, or the file exists.
        VideoError: The video cannot be read.
    """
    out = new_file("--output", args.output, PICTURES, args.overwrite)
    shape, own, decoder = ClipShape(args.frames, args.stride, args.crop).check(), None, "auto"
    arguments = data_arguments(args)
    if arguments:
        options = parse_data("show augment", arguments).init_args
        shape = ClipShape(options.frames, options.stride, options.crop).check()
        own, decoder = Augmentation(**options.augment.as_dict()), options.decoder
    seeds = range(args.seed, args.seed + 3)
    figure = augmentation_sheet(args.video, shape, seeds, own, args.mix_with, decoder)
    save_figure(figure, out, dpi=100)
    print(f"wrote {out}")
    return 0
