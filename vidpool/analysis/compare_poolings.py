"""``make compare``: train one network with max, average and soft pooling on a small, noisy dataset.

Each training is a `vidpool fit` that a user could type. All poolings share data and schedule, and
for each seed the initial weights and the order of clips. Differences between poolings are therefore
paired by seed. The dataset has few videos of four of the demo's classes, some of them mislabelled,
so that accuracy is far from 100 %. Accuracies are those of the last epoch on held-out videos, and
no choice depends on them. Steps that are done are skipped, and an interrupted training is resumed.
"""

import argparse
import json
import random
import shlex
import shutil
import sys
import time
from collections.abc import Sequence
from functools import partial
from importlib.resources import files
from pathlib import Path

import torch
import yaml
from torch.nn import functional as F

from vidpool.analysis.experiment_steps import run_vidpool, train_or_resume
from vidpool.analysis.pooling_comparison import (
    CLASSES,
    POOLINGS,
    ComparisonSettings,
    Pooling,
    TrainingCurve,
    read_curve,
    report,
)
from vidpool.bench.timing import Call, Times, cpu_seconds, interleave, warm_up
from vidpool.data.datasets.demo import TEST_GROUPS
from vidpool.train.classifier import VideoClassifier

RECIPE = Path(str(files("vidpool.configs"))) / "experiments" / "compare.yaml"
COMMAND = ("python", "-m", "vidpool.analysis.compare_poolings")
SPLIT = 1
SHORT_SIDE = 48  # pixels of the prepared videos, so that reading takes little time
SETTINGS = "settings.json"


def main(arguments: Sequence[str] | None = None) -> None:
    """Prepare the data, train each pooling with each seed, time training steps, and report."""
    arguments = tuple(sys.argv[1:] if arguments is None else arguments)
    options = parse(arguments)
    run_vidpool(
        "data", "demo", "--output", options.source, "--clips_per_group", options.clips_per_group
    )
    chosen = options.data / "chosen"
    choose_videos(options.source, chosen, options.videos, options.test_videos, options.noise)
    videos = options.data / "videos"
    run_vidpool("data", "prepare", chosen, videos, "--short_side", SHORT_SIDE)

    curves: dict[str, list[TrainingCurve]] = {label: [] for label in POOLINGS}
    for seed in options.seeds:
        for label, pooling in POOLINGS.items():
            folder = options.runs / f"{pooling.folder}_seed{seed}"
            swap = ("--model.pooling", pooling.name)
            swap_options = ("--model.pooling_options", json.dumps(pooling.options))
            length = ("--trainer.max_epochs", options.epochs)
            seeded = ("--seed_everything", seed)
            train_or_resume(
                RECIPE, folder, "--data.root", videos, *swap, *swap_options, *length, *seeded
            )
            curves[label].append(read_curve(folder, options.epochs))
    print("\ntiming training steps", flush=True)
    settings = ComparisonSettings(
        options.seeds, options.epochs, options.videos, options.test_videos, options.noise
    )
    steps = step_times(options.rounds)
    report(options.runs / "results.json", settings, curves, steps, shlex.join(COMMAND + arguments))


def parse(arguments: Sequence[str]) -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(
        prog=" ".join(COMMAND),
        description="Train one network with max, average and soft pooling on few, partly "
        "mislabelled videos, with several seeds each, and compare.",
        epilog=f"example: {' '.join(COMMAND)} --seeds 1 2 3; completed trainings are kept, "
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
    """Copy a few videos of the demo dataset into class folders, some of them into wrong ones.

    The name of a file keeps its true class. Held-out videos have correct labels, and backgrounds
    and objects that no training video shows.

    Args:
        source: Folder of the demo dataset.
        chosen: Folder to create, with ``train`` and ``val``. An existing one is kept if its
            settings are the same.
        videos: Number of training videos per class.
        test_videos: Number of held-out videos per class.
        noise: Share of the training videos of each class that get the label of another class,
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
        candidates = sorted((source / name).iterdir())
        draw.shuffle(candidates)
        held_out = [file for file in candidates if group_of(file) in TEST_GROUPS[SPLIT]]
        training = [file for file in candidates if group_of(file) not in TEST_GROUPS[SPLIT]]
        if len(training) < videos or len(held_out) < test_videos:
            sys.exit(
                f"{source / name} has {len(training)} videos to train and {len(held_out)} to test "
                f"with: fewer than --videos {videos} or --test_videos {test_videos}"
            )
        others = [other for other in CLASSES if other != name]
        wrong = round(noise * videos)
        for i, file in enumerate(training[:videos]):
            copy(file, part / "train" / (draw.choice(others) if i < wrong else name))
        for file in held_out[:test_videos]:
            copy(file, part / "val" / name)
    (part / SETTINGS).write_text(json.dumps(settings))
    part.rename(chosen)


def copy(file: Path, folder: Path) -> None:
    """Copy a file into a folder, which is created if it does not exist."""
    folder.mkdir(parents=True, exist_ok=True)
    shutil.copy(file, folder)


def group_of(path: Path) -> int:
    """Return the group XX of a video ``v_Class_gXX_cYY``."""
    return int(path.stem[-6:-4])


def step_times(rounds: int) -> dict[str, Times]:
    """Return the CPU time of a training step of each pooling, interleaved, on one thread.

    CPU time is hardly affected by other processes. Clips are not read from files.

    Args:
        rounds: Number of steps of each pooling.
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
            F.cross_entropy(module(clips), labels).backward()
            optimizer.step()
            optimizer.zero_grad()

        return step

    torch.set_num_threads(1)
    calls = {label: step_of(pooling) for label, pooling in POOLINGS.items()}
    warm_up(calls)
    return interleave(calls, partial(cpu_seconds, clock=time.process_time), rounds)


if __name__ == "__main__":
    main()
