"""``vidpool import``: convert third-party checkpoints."""

import sys
from pathlib import Path
from typing import Any, TextIO

import yaml

from vidpool.cli.arguments import Parser, add_checkpoint
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
    check_output(args.output, args.overwrite, SUFFIXES)
    names = _class_names(Path(args.classes)) if args.classes else None
    chosen = {name: getattr(args, name) for name in (*PREPROCESSING, "mean", "std")}
    try:
        imported = import_checkpoint(
            args.ckpt_path,
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
    _print_changes(report)
    save(imported.classifier, args.output, overwrite=args.overwrite)
    if args.output.endswith(".ckpt"):
        description = imported.classifier.description or {}
        fields = (f"{k} {_short(v)}" for k, v in description["preprocessing"].items())
        print(f"preprocessing ({imported.origin}): {', '.join(fields)}")
        if imported.origin == "of the SRTG authors" and not args.bgr:
            print("the SRTG authors' networks were trained on frames in BGR order: see --bgr")
        if not imported.named:
            print("the classes are called by their numbers: --classes FILE gives them names")
    print(f"wrote {args.output}")
    return 0


def _parser(verb: str) -> Parser:
    parser = Parser(
        prog=f"vidpool {verb}",
        description="Convert a third-party checkpoint to one of vidpool's: the SRTG authors' .pth, "
        "I3D's rgb_imagenet.pt, PyTorchVideo's and torchvision's files, Lightning checkpoints, "
        "plain state dicts, safetensors. Weights that do not fit are listed.",
    )
    add = parser.add_argument
    add_checkpoint(add, "the third-party file")
    add("--model", required=True, metavar="NAME", help="its network; `vidpool models` lists them")
    add(
        "--output",
        required=True,
        metavar="FILE",
        help=f"{', '.join(SUFFIXES)}; all but .ckpt hold only weights",
    )
    add("--overwrite", action="store_true", help="replace the output file")
    add("--classes", metavar="FILE", help="names of the classes, one per line")
    add("--num_classes", type=int, help="(default: as many as the checkpoint's classifier has)")
    add("--width", type=int, help="channels of the first stage (default: the network's own)")
    add("--pooling", help="pooling method it was trained with instead of its own, such as soft")
    add(
        "--pooling_option",
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help="argument of swap_pooling, such as gradient=paper; may be repeated",
    )
    add("--bgr", action="store_true", help="it was trained on frames in BGR order")
    add("--inflate", action="store_true", help="repeat the kernels of an image network along T")
    add(
        "--partial",
        action="store_true",
        help="load the weights that fit and keep the initial ones otherwise",
    )
    group = parser.add_argument_group(
        "preprocessing", "Input of the network; defaults to what is usual for the source."
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
    """Return the lines of a file.

    Raises:
        ConfigError: The file cannot be read, has an empty line, or a name twice.
    """
    try:
        names = [line.strip() for line in path.read_text(encoding="utf-8").splitlines()]
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: the classes cannot be read ({error})") from error
    duplicate = next((name for i, name in enumerate(names) if name in names[:i]), None)
    if not names or "" in names or duplicate:
        problem = (
            f"{duplicate!r} is there twice" if duplicate else "there is an empty line, or none"
        )
        raise ConfigError(f"{path}: must hold the name of a class on each line, but {problem}")
    return names


def _options(pairs: list[str]) -> dict[str, Any]:
    """Parse pairs NAME=VALUE, with values as in a config.

    Raises:
        ConfigError: A pair has another form.
    """
    options = {}
    for pair in pairs:
        name, equals, value = pair.partition("=")
        if not name or not equals:
            raise ConfigError(f"--pooling_option {pair} must be NAME=VALUE, like gradient=paper")
        try:
            options[name] = yaml.safe_load(value)
        except yaml.YAMLError as error:
            raise ConfigError(f"--pooling_option {pair}: {value!r} is no value") from error
    return options


def _print_report(report: Report, file: TextIO) -> None:
    """Print how many weights matched or did not, and their first keys."""
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


def _print_changes(report: Report) -> None:
    """Print how the loaded weights were changed, and which weights were not loaded."""
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
