"""``vidpool import``: checkpoints of other projects, made checkpoints of vidpool's."""

import argparse
import sys
from pathlib import Path
from typing import Any, TextIO

import yaml

from vidpool.errors import ConfigError
from vidpool.files import check_output
from vidpool.models.weights import MismatchError, Report
from vidpool.train.importing import SUFFIXES, import_checkpoint, save

PREPROCESSING = {
    "frames": "frames of a clip",
    "stride": "temporal stride, in frames of the video",
    "short_side": "pixels to which the shorter side is scaled",
    "crop": "side of the square cut out of it, pixels",
    "clips": "clips of a video",
    "crops": "crops of a clip, 1 or 3",
}
SHOWN = 4  # keys of each kind that are listed


def main(verb: str, arguments: list[str]) -> int:
    """Run ``vidpool import``."""
    args = _parser(verb).parse_args(arguments)
    check_output(args.out, args.overwrite, SUFFIXES)
    names = _class_names(Path(args.classes)) if args.classes else None
    chosen = {name: getattr(args, name) for name in (*PREPROCESSING, "mean", "std")}
    try:
        imported = import_checkpoint(
            args.checkpoint,
            args.model,
            num_classes=args.num_classes,
            width=args.width,
            pooling=args.pooling,
            pooling_options=_options(args.pooling_option) or None,
            class_names=names,
            preprocessing={name: value for name, value in chosen.items() if value is not None},
            bgr=args.bgr,
            inflate=args.inflate,
            partial=args.partial,
        )
    except MismatchError as error:
        _print_report(error.report, sys.stderr)
        raise
    report = imported.report
    _print_report(report, sys.stdout)
    _print_taken(report)
    save(imported.classifier, args.out, overwrite=args.overwrite)
    if args.out.endswith(".ckpt"):
        description = imported.classifier.description or {}
        fields = (f"{k} {_short(v)}" for k, v in description["preprocessing"].items())
        print(f"preprocessing ({imported.origin}): {', '.join(fields)}")
        if imported.origin == "of the SRTG authors" and not args.bgr:
            print("the SRTG authors' networks were trained on frames in BGR order: see --bgr")
        if not imported.named:
            print("the classes are called by their numbers: --classes FILE gives them names")
    print(f"wrote {args.out}")
    return 0


def _parser(verb: str) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog=f"vidpool {verb}",
        description="Make a checkpoint that vidpool's commands take of one that others made: the "
        "SRTG authors' .pth, I3D's rgb_imagenet.pt, PyTorchVideo's and torchvision's files, "
        "Lightning checkpoints, plain state dicts, safetensors. What does not fit is listed.",
    )
    add = parser.add_argument
    add("checkpoint", metavar="CKPT", help="the file that others made")
    add("--model", required=True, metavar="NAME", help="its network; `vidpool models` lists them")
    add(
        "--out",
        required=True,
        metavar="FILE",
        help=f"{', '.join(SUFFIXES)}; all but .ckpt hold weights alone",
    )
    add("--overwrite", action="store_true", help="replace the output file")
    add("--classes", metavar="FILE", help="names of the classes, one a line")
    add("--num_classes", type=int, help="(default: as many as the checkpoint's classifier has)")
    add("--width", type=int, help="channels of the first stage (default: the network's own)")
    add("--pooling", help="what it was trained with in place of its own pooling, like soft")
    add(
        "--pooling_option",
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help="for swap_pooling, like gradient=paper; may be repeated",
    )
    add("--bgr", action="store_true", help="it was trained on frames in the order blue, green, red")
    add("--inflate", action="store_true", help="repeat the kernels of an image network along T")
    add("--partial", action="store_true", help="take what fits; the rest stays fresh")
    group = parser.add_argument_group(
        "preprocessing", "What the network is to be given; by default what is usual for the source."
    )
    for name, what in PREPROCESSING.items():
        group.add_argument(f"--{name}", type=int, metavar="N", help=what)
    for name in ("mean", "std"):
        group.add_argument(
            f"--{name}",
            type=float,
            nargs=3,
            metavar=("R", "G", "B"),
            help="of pixels in [0, 1], in this order even with --bgr",
        )
    return parser


def _class_names(path: Path) -> list[str]:
    """The lines of a file.

    Raises:
        ConfigError: It cannot be read, has an empty line, or a name twice.
    """
    try:
        names = [line.strip() for line in path.read_text(encoding="utf-8").splitlines()]
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: the classes cannot be read ({error})") from error
    twice = next((name for i, name in enumerate(names) if name in names[:i]), None)
    if not names or "" in names or twice:
        what = f"{twice!r} stands there twice" if twice else "there is an empty line, or none"
        raise ConfigError(f"{path}: must hold the name of a class on each line, but {what}")
    return names


def _options(pairs: list[str]) -> dict[str, Any]:
    """Pairs NAME=VALUE with values as in a config.

    Raises:
        ConfigError: One is no such pair.
    """
    options = {}
    for pair in pairs:
        name, sign, value = pair.partition("=")
        if not name or not sign:
            raise ConfigError(f"--pooling_option {pair} must be NAME=VALUE, like gradient=paper")
        try:
            options[name] = yaml.safe_load(value)
        except yaml.YAMLError as error:
            raise ConfigError(f"--pooling_option {pair}: {value!r} is no value") from error
    return options


def _print_report(report: Report, file: TextIO) -> None:
    """Counts and first keys of what became of the weights."""
    different = [f"{key} {there} for {here}" for key, there, here in report.shape_mismatches]
    for name, keys in {
        "matched": list(report.matched),
        "missing": list(report.missing),
        "unexpected": list(report.unexpected),
        "other shape": different,
    }.items():
        shown = ", ".join(keys[:SHOWN]) + (", ..." if len(keys) > SHOWN else "")
        print(f"{name:<12} {len(keys):>5}  {shown}".rstrip(), file=file)
    if report.prefix:
        print(f"removed the prefix {report.prefix}", file=file)
    if report.other_entries:
        print(f"left out, since they are no weights: {', '.join(report.other_entries)}", file=file)


def _print_taken(report: Report) -> None:
    """What was done to the weights that were taken, and what stays as it was made."""
    if report.inflated:
        print(f"inflated {len(report.inflated)} kernels along T")
    if report.swapped:
        print(f"swapped the input channels of {', '.join(report.swapped)}")
    fresh = len(report.fresh) - len(report.fresh_classifier)
    if fresh:
        print(f"{fresh} weights of the backbone stay as they were made")
    if report.fresh_classifier:
        print(f"the classifier starts fresh ({', '.join(report.fresh_classifier)})")


def _short(value: Any) -> str:
    return "/".join(f"{v:.4g}" for v in value) if isinstance(value, list) else str(value)
