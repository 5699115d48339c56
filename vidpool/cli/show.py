"""``vidpool show``: pictures of what happens inside."""

import argparse
from typing import Any

from vidpool.cli import show_activations, show_embedding, show_pooling, show_saliency
from vidpool.cli.data_options import HELP, parse_data
from vidpool.cli.output import PICTURES, new_file
from vidpool.cli.seeds import add_seed
from vidpool.cli.subcommands import run_subcommand
from vidpool.data.transforms.augmentation import Augmentation
from vidpool.data.transforms.contact_sheet import augmentation_sheet
from vidpool.data.views import ClipShape
from vidpool.figures import save_figure


def main(verb: str, arguments: list[str]) -> int:
    """Run ``vidpool show WHAT``."""
    modules = (show_activations, show_embedding, show_pooling, show_saliency)
    parts = [_add_augment, *(module.add_parser for module in modules)]
    return run_subcommand(verb, arguments, parts, "Draw pictures.")


def _add_augment(what: Any) -> None:
    augment = what.add_parser(
        "augment",
        help="what each augmentation does to a video",
        description="Draw a contact sheet: one row for each augmentation, three seeds in each, and "
        "of each three frames of the clip. With a config, its clip shape and, in a last row, its "
        f"own augmentation are shown: {HELP}.",
        epilog="example: vidpool show augment video.mp4 --out sheet.png "
        "--config recipes/ucf101 --config augment/authors",
        allow_abbrev=False,
    )
    augment.set_defaults(run=_augment, takes_rest=True)
    add = augment.add_argument
    add("video", metavar="VIDEO", help="a video file")
    add("--config", "-c", action="append", default=[], metavar="FILE", help="a recipe")
    add("--out", required=True, metavar="FILE.png", help="the picture; also .jpg, .pdf, .svg")
    add("--overwrite", action="store_true", help="replace it")
    add("--mix-with", metavar="VIDEO", help="for mixup and cutmix (default: the video, mirrored)")
    add_seed(add, "the first seed")
    for name, default in (("frames", 16), ("stride", 4), ("crop", 224)):
        add(f"--{name}", type=int, default=default, metavar="N", help="(default: %(default)s)")


def _augment(args: argparse.Namespace) -> int:
    out = new_file("--out", args.out, PICTURES, args.overwrite)
    shape, own, decoder = ClipShape(args.frames, args.stride, args.crop).check(), None, "auto"
    # known here, so that its value is not taken for the video
    rest = [*(part for path in args.config for part in ("--config", path)), *args.rest]
    if rest:
        options = parse_data("show augment", rest).init_args
        shape = ClipShape(options.frames, options.stride, options.crop).check()
        own, decoder = Augmentation(**options.augment.as_dict()), options.decoder
    seeds = range(args.seed, args.seed + 3)
    figure = augmentation_sheet(args.video, shape, seeds, own, args.mix_with, decoder)
    save_figure(figure, out, dpi=100)
    print(f"wrote {out}")
    return 0
