"""``vidpool show``: pictures of what happens inside."""

import argparse
from pathlib import Path

from vidpool.cli.data_options import HELP, parse_data
from vidpool.data.augment.contact_sheet import augmentation_sheet
from vidpool.data.augment.transforms import Augmentation
from vidpool.data.schedule import ClipShape
from vidpool.errors import ConfigError

PICTURES = (".png", ".jpg", ".pdf", ".svg")


def main(verb: str, arguments: list[str]) -> int:
    """Run ``vidpool show augment``."""
    args, rest = _parser(verb).parse_known_args(arguments)
    out = _output(args.out, args.overwrite)
    shape, own, decoder = ClipShape(args.frames, args.stride, args.crop).check(), None, "auto"
    # known here, so that its value is not taken for the video
    rest = [*(part for path in args.config for part in ("--config", path)), *rest]
    if rest:
        options = parse_data(f"{verb} {args.what}", rest).init_args
        shape = ClipShape(options.frames, options.stride, options.crop).check()
        own, decoder = Augmentation(**options.augment.as_dict()), options.decoder
    seeds = range(args.seed, args.seed + 3)
    figure = augmentation_sheet(args.video, shape, seeds, own, args.mix_with, decoder)
    figure.savefig(out, dpi=100)
    print(f"wrote {out}")
    return 0


def _parser(verb: str) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog=f"vidpool {verb}", description="Draw pictures.")
    what = parser.add_subparsers(dest="what", metavar="WHAT", required=True)
    augment = what.add_parser(
        "augment",
        help="what each augmentation does to a video",
        description="Draw a contact sheet: one row for each augmentation, three seeds in each, and "
        "of each three frames of the clip. With a config, its clip shape and, in a last row, its "
        f"own augmentation are shown: {HELP}.",
        epilog="example: vidpool show augment video.mp4 --out sheet.png "
        "--config configs/recipes/ucf101.yaml --config configs/augment/authors.yaml",
        allow_abbrev=False,
    )
    add = augment.add_argument
    add("video", metavar="VIDEO", help="a video file")
    add("--config", "-c", action="append", default=[], metavar="FILE", help="a recipe")
    add("--out", required=True, metavar="FILE.png", help="the picture; also .jpg, .pdf, .svg")
    add("--overwrite", action="store_true", help="replace it")
    add("--mix-with", metavar="VIDEO", help="for mixup and cutmix (default: the video, mirrored)")
    add("--seed", type=int, default=0, metavar="N", help="the first seed (default: %(default)s)")
    for name, default in (("frames", 16), ("stride", 4), ("crop", 224)):
        add(f"--{name}", type=int, default=default, metavar="N", help="(default: %(default)s)")
    return parser


def _output(name: str, overwrite: bool) -> Path:
    path = Path(name)
    if path.suffix not in PICTURES:
        raise ConfigError(f"--out {name} must end in {', '.join(PICTURES)}")
    if not path.parent.is_dir():
        raise ConfigError(f"{path.parent}: no such folder to write the picture to")
    if path.exists() and not overwrite:
        raise ConfigError(f"{path} exists; give --overwrite to replace it")
    return path
