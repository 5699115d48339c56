"""``vidpool schedule``: preview the training schedule and its cost, as a table and a figure."""

from __future__ import annotations

from argparse import RawDescriptionHelpFormatter
from collections.abc import Sequence
from importlib import import_module
from typing import Any

import numpy as np
from rich import box
from rich.console import Console
from rich.table import Table
from torch import nn

from vidpool.cli.arguments import PICTURES, Parser, check_at_least, new_file
from vidpool.cli.training import ParsedFit, parse_fit
from vidpool.data.schedule import ConstantSchedule, Schedule
from vidpool.data.views import ClipShape
from vidpool.errors import ConfigError
from vidpool.figures import save_figure
from vidpool.files import atomic_write
from vidpool.models.cost import measure_cost
from vidpool.results import wide_console
from vidpool.train.callbacks.multigrid import Multigrid
from vidpool.train.checks import smallest_batches
from vidpool.train.classifier import VideoClassifier
from vidpool.train.forecast import Forecast, forecast, forecast_figure
from vidpool.train.lr_scheduler import lr_factor

CLASSES = 400  # the network's cost hardly depends on them
EXAMPLE = """\
example:
  vidpool schedule --config recipes/ucf101 \\
      --config schedule/multigrid_paper --clips 9537 --plot schedule.png

Further options are those of `vidpool fit`, such as --data.batch_size 32.
"""


def main(verb: str, arguments: list[str]) -> int:
    """Print the phases of a training and its cost; only the data set's lists are read."""
    args, further = _parser(verb).parse_known_args(arguments)
    check_at_least(args, 1, "clips", "processes")
    plot = new_file("--plot", args.plot, PICTURES, args.overwrite) if args.plot else None
    fit = parse_fit(further)
    settings = fit.settings
    progress = Console(stderr=True)
    with progress.status("going through the training"):
        recipe = _Recipe(settings)
        clips = args.clips or _count_clips(fit)
        ranks = args.processes or _processes(settings["trainer"])
        warnings = recipe.check(clips, ranks)
        classifier = VideoClassifier(**{**settings["model"], "num_classes": CLASSES})
        smallest = smallest_batches(classifier, recipe.schedule.shapes())
        training = forecast(recipe.schedule, recipe.epochs, clips, ranks, recipe.rate, smallest)
        costs = _costs(classifier.model, [*training.shapes(), recipe.shape])
    fixed = float(recipe.recipe_epochs) * clips * costs[recipe.shape]
    total = training.cost(costs.__getitem__)

    console = wide_console()
    console.print(_table(training, costs, total))
    for line in (
        f"{training.epochs} epochs of {clips} clips on {ranks} "
        f"process{'es' if ranks > 1 else ''}: {len(training.begin)} steps",
        f"{settings['model']['backbone']}: {total / 1e15:.4g} x 10^15 multiply-adds forward, about "
        f"three times as many with backward",
        f"{total / fixed:.1%} of {recipe.recipe_epochs} epochs with clips of "
        f"{_clip_text(recipe.shape)}",
        *(f"warning: {warning}" for warning in warnings),
    ):
        console.print(line, markup=False, highlight=False)
    if plot is not None:
        title = (
            f"{recipe.title}, {settings['model']['backbone']}: {training.epochs} epochs of {clips} "
            f"clips on {ranks} process{'es' if ranks > 1 else ''}, {total / fixed:.0%} of the "
            "multiply-adds of fixed clips"
        )
        with atomic_write(plot) as file:
            save_figure(forecast_figure(training, title), file, dpi=120)
        print(f"wrote {plot}")
    return 0


class _Recipe:
    """The schedule and the learning rate that follow from the settings of ``vidpool fit``."""

    def __init__(self, settings: dict[str, Any]) -> None:
        data, model = settings["data"].get("init_args") or {}, settings["model"]
        if not {"frames", "stride", "crop", "batch_size"} <= data.keys():
            raise ConfigError(
                f"{settings['data']['class_path']}: a schedule needs a datamodule with the "
                "arguments frames, stride, crop and batch_size, such as those of vidpool"
            )
        self.shape = ClipShape(data["frames"], data["stride"], data["crop"]).check()
        self.recipe_epochs = settings["trainer"]["max_epochs"]
        if self.recipe_epochs is None or self.recipe_epochs < 1:
            raise ConfigError("a schedule needs trainer.max_epochs, a number of epochs")
        multigrid = _multigrid(settings["trainer"]["callbacks"])
        self.schedule: Schedule = ConstantSchedule(self.shape, data["batch_size"])
        self.multigrid = None
        self.epochs = self.recipe_epochs
        self.title = "Clips of one shape"
        if multigrid is not None:
            self.multigrid = multigrid.schedule(
                self.shape, data["batch_size"], self.recipe_epochs, model
            )
            self.schedule = self.multigrid
            self.epochs = self.multigrid.epochs
            self.title = f"Multigrid ({multigrid.variant})"
        self._model = dict(model)
        if isinstance(model["optimizer"], dict):  # a class, with its own learning rate
            self._model["lr"] = model["optimizer"]["init_args"]["lr"]

    def check(self, clips: int, ranks: int) -> list[str]:
        """Return warnings; raise an error if a phase gets no epoch."""
        found = [] if self.multigrid is None else self.multigrid.check(clips, ranks)
        if self._model["lr_scheduler"] is not None:
            found.append("the learning rates are those of lr_schedule, which lr_scheduler replaces")
        return found

    def rate(self, epochs_done: float) -> float:
        """Return the learning rate after this many epochs of the recipe."""
        model = self._model
        return model["lr"] * lr_factor(
            epochs_done,
            model["lr_schedule"],
            self.recipe_epochs,
            model["warmup_epochs"],
            model["milestones"] or (),
            model["gamma"],
        )


def _multigrid(callbacks: Any) -> Multigrid | None:
    """Return the multigrid callback among a trainer's; None if there is none."""
    if not callbacks:
        return None
    for callback in callbacks if isinstance(callbacks, list) else [callbacks]:
        module, _, name = callback["class_path"].rpartition(".")
        cls = getattr(import_module(module), name)
        if issubclass(cls, Multigrid):
            return cls(**callback.get("init_args") or {})
    return None


def _count_clips(fit: ParsedFit) -> int:
    """Return the number of training clips of an epoch, by the data set's lists."""
    loader: Any = fit.datamodule().train_dataloader()
    return loader.scheduled.total


def _processes(trainer: dict[str, Any]) -> int:
    """Return the number of processes in the trainer's settings; automatic ones count as one."""
    devices = trainer["devices"]
    if isinstance(devices, str) and "," in devices:
        devices = devices.split(",")
    if isinstance(devices, Sequence) and not isinstance(devices, str):
        count = len([device for device in devices if device != ""])
    else:
        text = str(devices)
        count = int(text) if text.isdecimal() else 1
    return max(1, count) * trainer["num_nodes"]


def _costs(network: nn.Module, shapes: Sequence[ClipShape]) -> dict[ClipShape, int]:
    """Return the forward multiply-adds of convolutions and linear layers by clip shape."""
    sizes = {(shape.frames, shape.crop, shape.crop) for shape in shapes}
    counts = {size: measure_cost(network, size).conv_linear for size in sizes}
    return {shape: counts[shape.frames, shape.crop, shape.crop] for shape in shapes}


def _table(training: Forecast, costs: dict[ClipShape, int], total: float) -> Table:
    """Return a table with one row per phase, and in it one line per clip shape."""
    table = Table(
        box=box.SIMPLE_HEAD,
        caption="clip: frames (temporal stride) x crop; batch: clips over all processes; share: of "
        "all clips of the training, and of its multiply-adds.",
        caption_justify="left",
    )
    table.add_column("phase")
    for name in ("epochs", "clip", "batch", "rate", "steps", "share of\nclips", "share of\ncost"):
        table.add_column(name, justify="right", no_wrap=True)
    all_clips = training.batch.sum()
    for number, name in enumerate(training.phases):
        own = training.phase == number
        epochs = training.begin[own].astype(int)
        span = f"{epochs.min() + 1}" + (f" to {epochs.max() + 1}" if np.ptp(epochs) else "")
        lines = []
        for shape in training.shapes(own):
            where = own & training.has(shape)
            clips = training.batch[where]
            rates = training.rate[where]
            lines.append(
                (
                    _clip_text(shape),
                    f"{clips.max()}",
                    " to ".join(f"{rate:.3g}" for rate in dict.fromkeys([rates[0], rates[-1]])),
                    f"{where.sum()}",
                    f"{clips.sum() / all_clips:.1%}",
                    f"{clips.sum() * costs[shape] / total:.1%}",
                )
            )
        table.add_row(name, span, *("\n".join(column) for column in zip(*lines, strict=True)))
    return table


def _clip_text(shape: ClipShape) -> str:
    return f"{shape.frames} ({shape.stride}) x {shape.crop}²"


def _parser(verb: str) -> Parser:
    parser = Parser(
        prog=f"vidpool {verb}",
        usage=f"vidpool {verb} --config FILE [--config FILE]... [options]",
        description="Show the phases of a training, its clips, batches, learning rate and cost.",
        epilog=EXAMPLE,
        formatter_class=RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("--plot", metavar="FILE", help=f"draw the schedule to FILE: {', '.join(PICTURES)}")
    add("--overwrite", action="store_true", help="replace this file")
    add(
        "--clips",
        type=int,
        metavar="N",
        help="training clips of an epoch; by default those of the data set, which must be there",
    )
    add(
        "--processes",
        type=int,
        metavar="N",
        help="by default trainer.devices (one if that is auto) times trainer.num_nodes",
    )
    return parser
