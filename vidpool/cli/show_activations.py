"""``vidpool show activations``: inputs that maximize activations of a network. Figure S2."""

import argparse
from dataclasses import asdict
from typing import Any

from rich import box
from rich.progress import Progress
from rich.table import Table
from rich.text import Text

from vidpool.analysis.activations import (
    KERNELS,
    Excitation,
    Settings,
    Target,
    activation_sheet,
    activation_video,
    excite,
    noise,
    target_by_examples,
    targets_by_weight,
)
from vidpool.analysis.examples import choose_videos
from vidpool.analysis.layers import find_layers
from vidpool.cli.arguments import (
    DATA_HELP,
    add_checkpoint,
    add_device,
    add_seed,
    check_at_least,
    class_index,
    new_file,
)
from vidpool.cli.configs import add_config, data_arguments, make_datamodule
from vidpool.data.datasets.demo import write_video
from vidpool.data.parallel import counting_bar
from vidpool.data.views import Preprocessing
from vidpool.files import printable
from vidpool.inference.loading import load_classifier
from vidpool.results import provenance, wide_console, write_results
from vidpool.train.classifier import VideoClassifier

CLASSES = 4  # as the figure has
QUICK = 200  # iterations
PAPER = Settings()


def add_parser(what: Any) -> None:
    """Add ``activations`` to the subcommands of ``vidpool show``."""
    parser = what.add_parser(
        "activations",
        help="draw inputs that maximize activations of a network (Figure S2)",
        description="Activation maximization: optimize noise to maximize the activation of ten "
        "kernels of a class in the network's last stage, as for Figure S2 of the SoftPool paper. "
        "With a config, these kernels have the highest mean activation over examples of the "
        "class, as in the paper; without one, they raise the class's score most. The defaults are "
        "faster than the paper's settings: the checkpoint's own size, fewer iterations, and "
        "smoothed and shifted gradients, which make shapes instead of noise. "
        f"Writes FILE.png, FILE.json and, for clips, FILE.mp4. Takes {DATA_HELP}.",
        epilog="example: vidpool show activations runs/demo/fit_0/checkpoints/last.ckpt "
        "--class Grow --class Shrink --config data/demo --output activations.png",
    )
    parser.set_defaults(run=run, takes_data=True)
    add = parser.add_argument
    add_checkpoint(add)
    add_device(add)
    add_config(add)
    add("--output", default="activations.png", metavar="FILE.png", help="(default: %(default)s)")
    add("--overwrite", action="store_true", help="replace these files")
    add(
        "--class",
        dest="names",
        action="append",
        metavar="NAME",
        help=f"a class; may be repeated (default: the first {CLASSES} classes)",
    )
    add("--layer", metavar="NAME", help="(default: the network's last stage)")
    add(
        "--paper",
        action="store_true",
        help=f"the settings of section S2: {PAPER.iterations:,} iterations at {PAPER.side}x"
        f"{PAPER.side} pixels, no smoothing, no shifts",
    )
    add("--iterations", type=int, metavar="N", help=f"(default: {QUICK})")
    add("--side", type=int, metavar="PIXELS", help="(default: the checkpoint's crop)")
    add("--lr", type=float, default=PAPER.lr, help="the first rate (default: %(default)s)")
    add("--last_lr", type=float, default=PAPER.last_lr, help="(default: %(default)s)")
    add("--weight_decay", type=float, default=PAPER.weight_decay, help="(default: %(default)s)")
    add("--blur", type=float, metavar="PIXELS", help="smoothing of gradients (default: 1)")
    add("--shift", type=int, metavar="PIXELS", help="(default: a sixteenth of the side)")
    add("--examples", type=int, default=16, metavar="N", help="of a class (default: %(default)s)")
    add("--split", choices=["train", "val", "test"], default="val", help="(default: %(default)s)")
    add_seed(add)
    add("--fps", type=int, default=8, metavar="N", help="of the video (default: %(default)s)")


def run(args: argparse.Namespace) -> int:
    """Excite and draw.

    Raises:
        CheckpointError: The checkpoint cannot be used.
        ConfigError: An option cannot work; a file would be overwritten.
        DataError: The data are not where the config says.
    """
    out = new_file("--output", args.output, [".png"], args.overwrite, [".json", ".mp4"])
    check_at_least(args, 1, "examples", "fps")
    classifier, class_names, preprocessing = load_classifier(args.ckpt_path, args.device)
    classifier.requires_grad_(False)  # only the input needs gradients
    settings = _settings(args, preprocessing.crop)
    names = args.names or class_names[:CLASSES]
    labels = [class_index(name, class_names, args.ckpt_path) for name in names]
    start = noise(1, preprocessing.frames, settings.side, settings.seed).to(classifier.device)
    (layer,) = find_layers(classifier, start, args.layer)
    by_examples = bool(data_arguments(args))
    with counting_bar() as progress:
        if by_examples:
            targets = _targets(args, classifier, layer, names, labels, preprocessing, progress)
        else:
            targets = targets_by_weight(classifier, layer, labels, start)
        task = progress.add_task(f"exciting {layer}", total=settings.iterations)
        excited = excite(
            classifier,
            preprocessing,
            layer,
            targets,
            settings,
            lambda done: progress.advance(task, done),
        )
    _print(targets, excited, class_names)
    title = (
        f"{args.ckpt_path}\n{KERNELS} kernels of {layer}, {settings.iterations} iterations at "
        f"{settings.side}x{settings.side}"
    )
    content = {
        "checkpoint": args.ckpt_path,
        "layer": layer,
        "kernels by": "examples" if by_examples else "weights",
        "settings": asdict(settings),
        "classes": [
            {
                "class": class_names[target.label],
                "kernels": target.kernels,
                "activation before": made.before,
                "activation after": made.after,
                "probability": made.probability,
            }
            for target, made in zip(targets, excited, strict=True)
        ],
    }
    figure = activation_sheet(targets, excited, class_names, title)
    about = provenance(args.command, args.seed)
    written = write_results(out.with_suffix(".json"), about, content, figure)
    if preprocessing.frames > 1:
        write_video(out.with_suffix(".mp4"), activation_video(targets, excited), args.fps)
        written.append(out.with_suffix(".mp4"))
    for path in written:
        print(f"wrote {path}")
    return 0


def _settings(args: argparse.Namespace, crop: int) -> Settings:
    """Return the paper's settings or the quick ones, overridden by the options.

    Raises:
        ConfigError: A value cannot work.
    """
    side = args.side
    if side is None:
        side = PAPER.side if args.paper else crop
    chosen: dict[str, Any] = {"iterations": QUICK, "blur": 1.0, "shift": side // 16}
    if args.paper:
        chosen = {name: getattr(PAPER, name) for name in chosen}
    chosen |= {name: getattr(args, name) for name in chosen if getattr(args, name) is not None}
    return Settings(
        side=side,
        lr=args.lr,
        last_lr=args.last_lr,
        weight_decay=args.weight_decay,
        seed=args.seed,
        **chosen,
    )


def _targets(
    args: argparse.Namespace,
    classifier: VideoClassifier,
    layer: str,
    names: list[str],
    labels: list[int],
    preprocessing: Preprocessing,
    progress: Progress,
) -> list[Target]:
    """Return the targets by examples of the data in the config."""
    datamodule = make_datamodule("show activations", data_arguments(args))
    there = [class_index(name, datamodule.class_names, "the data set") for name in names]
    tables = [choose_videos(datamodule, args.split, [i], args.examples, args.seed) for i in there]
    task = progress.add_task("activations of examples", total=sum(map(len, tables)))
    return [
        target_by_examples(
            classifier,
            layer,
            label,
            preprocessing,
            datamodule,
            table,
            lambda done: progress.advance(task, done),
        )
        for label, table in zip(labels, tables, strict=True)
    ]


def _print(targets: list[Target], excited: list[Excitation], class_names: list[str]) -> None:
    table = Table(box=box.SIMPLE_HEAD)
    table.add_column("class", overflow="fold")
    table.add_column("kernels", overflow="fold")
    for name in ("activation\nbefore", "activation\nafter", "probability\nof the class"):
        table.add_column(name, justify="right")
    for target, made in zip(targets, excited, strict=True):
        table.add_row(
            Text(printable(class_names[target.label])),
            " ".join(map(str, target.kernels)),
            f"{made.before:.3g}",
            f"{made.after:.3g}",
            f"{made.probability:.1%}",
        )
    wide_console().print(table)
