"""``make compare``: max, average and soft pooling in one network, on one small and noisy data set.

Each training is a `vidpool fit` that a user could type. All poolings share data, schedule and, for
each seed, the initial weights and the order of clips; so differences between them are paired by
seed. The videos are few, of four of the demo's classes, and partly mislabelled, so that accuracy is
far from 100 %. The figures are those of the last epoch on held-out videos; nothing is chosen by
them. What is there already is skipped, and an interrupted training is resumed.
"""

import argparse
import csv
import json
import math
import os
import random
import shlex
import shutil
import sys
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
import yaml
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from rich import box
from rich.table import Table
from scipy import stats
from steps import train, vidpool
from torch.nn import functional

from vidpool.bench.machine import describe
from vidpool.bench.timing import Call, Times, cpu_seconds, interleave, warm_up
from vidpool.colours import BLUE, GREEN, GREY, ORANGE
from vidpool.data.datasets.demo import TEST_GROUPS
from vidpool.results import provenance, wide_console, write_results
from vidpool.train.classifier import VideoClassifier

ROOT = Path(__file__).resolve().parents[1]
RECIPE = ROOT / "configs/experiments/compare.yaml"
CLASSES = ("MoveDown", "MoveLeft", "MoveRight", "MoveUp")
SPLIT = 1
CONFIDENCE = 0.95
SHORT_SIDE = 48  # pixels to which the videos are prepared, so that reading takes little time
SETTINGS = "settings.json"


class Pooling(NamedTuple):
    """A pooling that is compared."""

    folder: str
    """What its runs' folders begin with."""
    name: str
    """For `swap_pooling`, like its options."""
    options: dict[str, str]
    colour: str


POOLINGS = {
    "max": Pooling("max", "max", {}, BLUE),
    "average": Pooling("avg", "avg", {}, GREY),
    "soft, exact gradient": Pooling("soft_exact", "soft", {"gradient": "exact"}, ORANGE),
    "soft, paper's gradient": Pooling("soft_paper", "soft", {"gradient": "paper"}, GREEN),
}
"""By what they are called in tables."""
BASELINE = "max"


class Run(NamedTuple):
    """What one training left, one entry an epoch."""

    accuracy: list[float]
    """Top-1 on the held-out videos, in [0, 1]."""
    train_loss: list[float]


class Interval(NamedTuple):
    """A mean over seeds, and how far its confidence interval reaches to either side."""

    mean: float
    half_width: float


def main(arguments: Sequence[str] | None = None) -> None:
    """Make the data, train every pooling with every seed, time a step, and say what came out."""
    arguments = sys.argv[1:] if arguments is None else arguments
    options = parse(arguments)
    os.chdir(ROOT)
    vidpool(
        "data", "demo", "--output", options.source, "--clips_per_group", options.clips_per_group
    )
    chosen = options.data / "chosen"
    choose_videos(options.source, chosen, options.videos, options.test_videos, options.noise)
    videos = options.data / "videos"
    vidpool("data", "prepare", chosen, videos, "--short_side", SHORT_SIDE)

    runs: dict[str, list[Run]] = {label: [] for label in POOLINGS}
    for seed in options.seeds:
        for label, pooling in POOLINGS.items():
            folder = options.runs / f"{pooling.folder}_seed{seed}"
            swap = ("--model.pooling", pooling.name)
            swap += ("--model.pooling_options", json.dumps(pooling.options))
            length = ("--trainer.max_epochs", options.epochs)
            train(RECIPE, folder, "--data.root", videos, *swap, *length, "--seed_everything", seed)
            runs[label].append(read_run(folder, options.epochs))
    print("\ntiming training steps", flush=True)
    report(options, runs, step_times(options.rounds), shlex.join(["compare.py", *arguments]))


def parse(arguments: Sequence[str]) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        description="Train one network with max, average and soft pooling on few, partly "
        "mislabelled videos, with several seeds each, and compare.",
        epilog="example: python tools/compare.py --seeds 1 2 3; what is trained already is kept, "
        "and two such commands with different seeds may run side by side",
    )

    def add(name: str, default: object, text: str) -> None:
        parser.add_argument(name, type=type(default), default=default, help=f"{text} ({default})")

    add("--source", Path("data/demo"), "the demo data set, made where it is not there")
    add("--clips_per_group", 10, "clips of each class and background in it")
    add("--data", Path("data/compare"), "where the videos for the comparison are made")
    add("--runs", Path("runs/compare"), "where runs and results go")
    add("--videos", 64, "training videos of each class")
    add("--test_videos", 40, "held-out videos of each class")
    add("--noise", 0.2, "share of the training videos that get a wrong label")
    add("--epochs", 36, "epochs")
    add("--rounds", 30, "how often a training step of each pooling is timed")
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3, 4, 5], help="(1 2 3 4 5)")
    options = parser.parse_args(arguments)
    if len(options.seeds) < 2 or len(set(options.seeds)) < len(options.seeds):
        parser.error("--seeds: a confidence interval needs two different seeds or more")
    if not 0 <= options.noise < 1:
        parser.error(f"--noise {options.noise} must lie within [0, 1)")
    for name in ("videos", "test_videos", "epochs", "rounds"):
        if getattr(options, name) < 1:
            parser.error(f"--{name} must be at least 1")
    return options


def choose_videos(source: Path, chosen: Path, videos: int, test_videos: int, noise: float) -> None:
    """Copy few videos of the demo data set into class folders, some of them into wrong ones.

    A file's name keeps saying what it shows. Held-out videos have backgrounds and objects of their
    own, and right labels.

    Args:
        source: The demo data set.
        chosen: The folder to be made, with `train` and `val`; one of the same settings is kept.
        videos: Training videos of each class.
        test_videos: Held-out videos of each class.
        noise: The share of the training videos of each class that get the label of another class,
            drawn at random.
    """
    settings = {"videos": videos, "test_videos": test_videos, "noise": noise}
    if chosen.exists():
        if json.loads((chosen / SETTINGS).read_text()) != settings:
            sys.exit(f"{chosen} holds videos of other settings; give another --data and --runs")
        return
    part = chosen.with_name(f"{chosen.name}.part")
    shutil.rmtree(part, ignore_errors=True)
    for number, name in enumerate(CLASSES):
        draw = random.Random(number)
        files = sorted((source / name).iterdir())
        draw.shuffle(files)
        held_out = [file for file in files if group_of(file) in TEST_GROUPS[SPLIT]]
        training = [file for file in files if group_of(file) not in TEST_GROUPS[SPLIT]]
        if len(training) < videos or len(held_out) < test_videos:
            sys.exit(
                f"{source / name} has {len(training)} videos to train and {len(held_out)} to test "
                f"with: fewer than --videos {videos} or --test_videos {test_videos}"
            )
        others = [other for other in CLASSES if other != name]
        wrong = round(noise * videos)
        for place, file in enumerate(training[:videos]):
            copy(file, part / "train" / (draw.choice(others) if place < wrong else name))
        for file in held_out[:test_videos]:
            copy(file, part / "val" / name)
    (part / SETTINGS).write_text(json.dumps(settings))
    part.rename(chosen)


def copy(file: Path, folder: Path) -> None:
    """Copy a file into a folder, which is made."""
    folder.mkdir(parents=True, exist_ok=True)
    shutil.copy(file, folder)


def group_of(path: Path) -> int:
    """The group of ``v_Class_gXX_cYY``."""
    return int(path.stem[-6:-4])


def read_run(folder: Path, epochs: int) -> Run:
    """Read the metrics of a training, which may have been interrupted and resumed.

    Args:
        folder: That of its runs.
        epochs: How many there must be.
    """
    accuracy: dict[int, float] = {}
    loss: dict[int, float] = {}
    files = folder.glob("fit_*/metrics.csv")
    for file in sorted(files, key=lambda file: file.stat().st_mtime):
        with file.open(newline="", encoding="utf-8") as text:
            for row in csv.DictReader(text):
                for column, values in (("val/top1", accuracy), ("train/loss", loss)):
                    if row.get(column):
                        values[int(row["epoch"])] = float(row[column])
    wanted = list(range(epochs))
    if sorted(accuracy) != wanted or sorted(loss) != wanted:
        sys.exit(
            f"{folder} is of {len(accuracy)} epochs instead of {epochs}; give another --runs or "
            "remove it"
        )
    return Run([accuracy[epoch] for epoch in wanted], [loss[epoch] for epoch in wanted])


def interval(values: Sequence[float]) -> Interval:
    """The mean and Student's confidence interval.

    Args:
        values: One a seed, two or more.
    """
    quantile = stats.t.ppf((1 + CONFIDENCE) / 2, len(values) - 1)
    error = float(np.std(values, ddof=1)) / math.sqrt(len(values))
    return Interval(float(np.mean(values)), float(quantile) * error)


def step_times(rounds: int) -> dict[str, Times]:
    """CPU time of a training step of each pooling, on one thread, in turn in this process.

    Other processes disturb it little; reading clips is left out.

    Args:
        rounds: How often each is timed.
    """
    recipe = yaml.safe_load(RECIPE.read_text())
    settings, data = recipe["model"], recipe["data"]["init_args"]
    clips = torch.randn(data["batch_size"], 3, data["frames"], data["crop"], data["crop"])
    labels = torch.randint(len(CLASSES), (len(clips),))

    def step_of(pooling: Pooling) -> Call:
        swap = {"pooling": pooling.name, "pooling_options": pooling.options}
        module = VideoClassifier(**{**settings, **swap, "num_classes": len(CLASSES)})
        optimizer = torch.optim.AdamW(module.parameters(), lr=settings["lr"])

        def step() -> None:
            functional.cross_entropy(module(clips), labels).backward()
            optimizer.step()
            optimizer.zero_grad()

        return step

    torch.set_num_threads(1)
    calls = {label: step_of(pooling) for label, pooling in POOLINGS.items()}
    warm_up(calls)
    return interleave(calls, partial(cpu_seconds, clock=time.process_time), rounds)


def report(
    options: argparse.Namespace,
    runs: dict[str, list[Run]],
    steps: dict[str, Times],
    command: str,
) -> None:
    """Print what came out, and write it as JSON and as a picture."""
    content = {
        "settings": {
            name: getattr(options, name)
            for name in ("seeds", "epochs", "videos", "test_videos", "noise")
        },
        "confidence": CONFIDENCE,
        "poolings": {
            label: {
                "top1": interval(last(own))._asdict(),
                "top1_minus_max": interval(minus(own, runs[BASELINE]))._asdict(),
                "top1_mean_over_epochs": interval([np.mean(r.accuracy) for r in own])._asdict(),
                "step_seconds": steps[label].as_dict(),
                "runs": [run._asdict() for run in own],
            }
            for label, own in runs.items()
        },
    }
    about = {**provenance(command), **describe("cpu"), "seed": options.seeds}
    table = Table(
        box=box.SIMPLE_HEAD,
        title=f"top-1 on {options.test_videos * len(CLASSES)} held-out videos after "
        f"{options.epochs} epochs, {len(options.seeds)} seeds (chance "
        f"{100 / len(CLASSES):.1f} %)",
        caption=f"± {CONFIDENCE:.0%} confidence intervals over seeds; differences are paired by "
        "seed. Step: CPU time of a training step on one thread, median; reading is left out.",
    )
    columns = ("pooling", "top-1, %", "minus max", "mean over epochs, %", "step, ms", "of max's")
    for column in columns:
        table.add_column(column, justify="left" if column == "pooling" else "right", no_wrap=True)
    for label, own in runs.items():
        median = steps[label].median
        table.add_row(
            label,
            percent(interval(last(own))),
            "" if label == BASELINE else percent(interval(minus(own, runs[BASELINE])), "+"),
            percent(interval([float(np.mean(run.accuracy)) for run in own])),
            f"{1e3 * median:.0f}",
            f"{median / steps[BASELINE].median:.2f}",
        )
    wide_console().print(table)
    for path in write_results(options.runs / "results.json", about, content, chart(runs, steps)):
        print(f"wrote {path}")


def percent(value: Interval, sign: str = "") -> str:
    """``61.3 ± 2.5``."""
    return f"{100 * value.mean:{sign}.1f} ± {100 * value.half_width:.1f}"


def last(runs: Sequence[Run]) -> list[float]:
    """Top-1 after the last epoch, one a seed."""
    return [run.accuracy[-1] for run in runs]


def minus(runs: Sequence[Run], others: Sequence[Run]) -> list[float]:
    """Differences in top-1 after the last epoch, seed by seed."""
    return [one - other for one, other in zip(last(runs), last(others), strict=True)]


def chart(runs: dict[str, list[Run]], steps: dict[str, Times]) -> Figure:
    """Draw accuracy and loss by epoch, with bands, and accuracy at the end and a step's time."""
    figure = Figure(figsize=(12, 8), layout="constrained")
    (accuracy, loss), (end, step) = figure.subplots(2, 2)
    for place, (label, own) in enumerate(runs.items()):
        colour = POOLINGS[label].colour
        curve(accuracy, [[100 * value for value in run.accuracy] for run in own], colour, label)
        curve(loss, [run.train_loss for run in own], colour, label)
        values = [100 * value for value in last(own)]
        mean, half_width = interval(values)
        end.plot(values, [place + 0.2] * len(values), "o", color=colour, alpha=0.5)
        end.errorbar(mean, place, xerr=half_width, fmt="D", color=colour, capsize=4)
        lower, upper = steps[label].quartiles
        step.barh(place, 1e3 * steps[label].median, 0.6, color=colour)
        step.plot([1e3 * lower, 1e3 * upper], [place, place], color="black", linewidth=1)
    accuracy.axhline(100 / len(CLASSES), color="black", linestyle=":", linewidth=1, label="chance")
    accuracy.set(title="held-out videos", xlabel="epoch", ylabel="top-1, %")
    accuracy.set_ylim(0, 100)  # bands of few seeds are wider
    loss.set(title="training clips", xlabel="epoch", ylabel="cross-entropy")
    end.set(title="after the last epoch: each seed, and the mean", xlabel="top-1, %")
    end.set_xlim(0, 100)
    losses = [value for own in runs.values() for run in own for value in run.train_loss]
    loss.set_ylim(0, 1.1 * max(losses))
    step.set(title="a training step: median and quartiles", xlabel="CPU time, ms")
    for axes in (end, step):
        axes.set_yticks(range(len(runs)), list(runs))
        axes.set_ylim(len(runs) - 0.5, -0.5)  # the first on top
    for axes in (accuracy, loss, end, step):
        axes.grid(alpha=0.3)
        axes.set_axisbelow(True)
    handles, labels = accuracy.get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=len(labels))
    seeds = len(next(iter(runs.values())))
    figure.suptitle(f"{seeds} seeds each; bands and bars: {CONFIDENCE:.0%} confidence of the mean")
    return figure


def curve(axes: Axes, values: Sequence[Sequence[float]], colour: str, label: str) -> None:
    """Draw the mean over seeds by epoch, and its confidence as a band.

    Args:
        axes: Where to.
        values: Of each seed, one an epoch.
        colour: Of line and band.
        label: For the legend.
    """
    means = [interval(of_epoch) for of_epoch in zip(*values, strict=True)]
    epochs = range(1, len(means) + 1)
    axes.plot(epochs, [mean for mean, _ in means], "o-", markersize=3, color=colour, label=label)
    lower, upper = [mean - half for mean, half in means], [mean + half for mean, half in means]
    axes.fill_between(epochs, lower, upper, color=colour, alpha=0.15, linewidth=0)


if __name__ == "__main__":
    main()
