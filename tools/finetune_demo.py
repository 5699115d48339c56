"""``make finetune-demo``: what fine-tuning is worth, each step a command that a user could type.

A network is pre-trained on four of the demo's classes, which lie as HACS does, then fine-tuned on
few videos of the four others, which lie as UCF-101 does; beside it one is trained on these from
scratch, for as many epochs. No background or object of the test videos is in any training video.
What is there already is skipped, and an interrupted training is resumed.
"""

import argparse
import json
import os
import random
import shutil
import statistics
from collections.abc import Sequence
from pathlib import Path

from matplotlib.figure import Figure

from vidpool.analysis.compare_poolings import group_of
from vidpool.analysis.experiment_steps import (
    evaluate,
    read_metrics,
    run_vidpool,
    train_or_resume,
)
from vidpool.data.datasets.demo import CLASSES, TEST_GROUPS

ROOT = Path(__file__).resolve().parents[1]
RECIPES = ROOT / "configs/experiments"
PRETRAINED_ON = ("CircleAnticlockwise", "CircleClockwise", "Grow", "Shrink")
FINE_TUNED_ON = tuple(name for name in CLASSES if name not in PRETRAINED_ON)
SPLIT = 1
WAYS = ("from scratch", "fine-tuned")
HACS_HEADER = "classname,youtube_id,subset,start,end,label"
HACS_SECONDS = 2.0  # the length of HACS's clips


def main(arguments: Sequence[str] | None = None) -> None:
    """Generate, pre-train, fine-tune and train from scratch; then say what came out."""
    options = parse(arguments)
    os.chdir(ROOT)
    source = options.source
    run_vidpool("data", "demo", "--output", source, "--clips_per_group", options.clips_per_group)
    annotations = write_hacs(source, options.data)
    lists = write_ucf101(source, options.data / "ucfTrainTestlist", options.videos)

    recipe = RECIPES / "finetune_demo_pretrain.yaml"
    data = ("--data.root", annotations.parent / "hacs", "--data.annotations", annotations)
    length = ("--trainer.max_epochs", options.pretrain_epochs)
    every = ("--trainer.check_val_every_n_epoch", options.pretrain_epochs)
    pretrained = train_or_resume(recipe, options.runs / "pretrain", *data, *length, *every)

    recipe = RECIPES / "finetune_demo.yaml"
    data = ("--data.root", source, "--data.lists", lists)
    length = ("--trainer.max_epochs", options.epochs)
    every = ("--trainer.check_val_every_n_epoch", options.epochs)
    accuracies: dict[str, list[float]] = {way: [] for way in WAYS}
    videos = 0
    for seed in options.seeds:
        for way, start in zip(WAYS, ((), ("--model.init_from", pretrained)), strict=True):
            runs = options.runs / f"{way.replace(' ', '_')}_seed{seed}"
            seeded = ("--seed_everything", seed)
            checkpoint = train_or_resume(recipe, runs, *data, *length, *every, *seeded, *start)
            metrics = read_metrics(evaluate(recipe, checkpoint, "test", *data))
            accuracies[way].append(metrics["top1"])
            videos = int(metrics["videos"])
    report(options, accuracies, videos)


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])

    def add(name: str, default: object, text: str) -> None:
        parser.add_argument(name, type=type(default), default=default, help=f"{text} ({default})")

    add("--source", Path("data/demo"), "the demo data set, made where it is not there")
    add("--clips_per_group", 10, "clips of each class and background in it")
    add("--data", Path("data/finetune_demo"), "where the two layouts are made")
    add("--runs", Path("runs/finetune_demo"), "where runs and results go")
    add("--videos", 24, "training videos of each class to fine-tune on")
    add("--pretrain_epochs", 12, "epochs of pre-training")
    add("--epochs", 6, "epochs of fine-tuning, and of training from scratch")
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3], help="(1 2 3)")
    options = parser.parse_args(arguments)
    for name in ("source", "data", "runs"):  # relative to the repository, as those of the recipes
        setattr(options, name, getattr(options, name).expanduser())
    return options


def write_hacs(source: Path, root: Path) -> Path:
    """Lay the classes for pre-training out as HACS's untrimmed videos; return the annotations."""
    rows = [HACS_HEADER]
    for label in PRETRAINED_ON:
        for path in sorted((source / label).iterdir()):
            group = group_of(path)
            number = PRETRAINED_ON.index(label)
            video = f"demo{number}g{group:02d}{path.stem[-3:]}"  # 11 characters, as YouTube's ids
            copy = root / "hacs" / label / f"v_{video}{path.suffix}"
            if not copy.is_file():
                copy.parent.mkdir(parents=True, exist_ok=True)
                part = copy.with_name(f".{copy.name}")
                shutil.copy(path, part)
                part.replace(copy)
            subset = "validation" if group in TEST_GROUPS[SPLIT] else "training"
            rows.append(f"{label},{video},{subset},0.0,{HACS_SECONDS},1")
    annotations = root / "HACS_clips_v1.1.1.csv"
    annotations.write_text("\n".join(rows) + "\n")
    return annotations


def write_ucf101(source: Path, lists: Path, videos: int) -> Path:
    """Write UCF-101's lists of the classes to fine-tune on, whose files lie as UCF-101's already.

    Args:
        source: The demo data set.
        lists: The folder to be made.
        videos: Training videos of each class, from all groups alike.
    """
    lists.mkdir(parents=True, exist_ok=True)
    index = "".join(f"{number} {name}\n" for number, name in enumerate(FINE_TUNED_ON, start=1))
    (lists / "classInd.txt").write_text(index)
    train_lines, test_lines = [], []
    for number, name in enumerate(FINE_TUNED_ON, start=1):
        training = []
        for path in sorted((source / name).iterdir()):
            if group_of(path) in TEST_GROUPS[SPLIT]:
                test_lines.append(f"{name}/{path.name}\n")
            else:
                training.append(path.name)
        random.Random(number).shuffle(training)
        train_lines += [f"{name}/{file} {number}\n" for file in sorted(training[:videos])]
    (lists / f"trainlist{SPLIT:02d}.txt").write_text("".join(train_lines))
    (lists / f"testlist{SPLIT:02d}.txt").write_text("".join(test_lines))
    return lists


def report(options: argparse.Namespace, accuracies: dict[str, list[float]], videos: int) -> None:
    """Print and draw the accuracies, and write them as JSON."""
    margins = [tuned - scratch for scratch, tuned in zip(*accuracies.values(), strict=True)]
    content = {
        "test_videos": videos,
        "training_videos_per_class": options.videos,
        "pretrain_epochs": options.pretrain_epochs,
        "epochs": options.epochs,
        "seeds": options.seeds,
        "top1": accuracies,
        "margin": margins,
    }
    results = options.runs / "results.json"
    results.write_text(json.dumps(content, indent=2) + "\n")
    picture = options.runs / "results.png"
    chart(options, accuracies).savefig(picture, dpi=150)
    print(f"\ntop-1 on {videos} held-out videos of four classes (chance 25 %)")
    print(f"{'seed':>6}{WAYS[0]:>16}{WAYS[1]:>16}{'margin':>10}")
    columns = (*accuracies.values(), margins)
    for seed, *row in zip(options.seeds, *columns, strict=True):
        print(f"{seed:>6}{row[0]:>16.1%}{row[1]:>16.1%}{row[2]:>10.1%}")
    means = [statistics.mean(column) for column in columns]
    print(f"{'mean':>6}{means[0]:>16.1%}{means[1]:>16.1%}{means[2]:>10.1%}")
    print(f"{results}, {picture}")


def chart(options: argparse.Namespace, accuracies: dict[str, list[float]]) -> Figure:
    """Draw a line from scratch to fine-tuned for each seed."""
    figure = Figure(figsize=(4.5, 4), layout="constrained")
    axes = figure.subplots()
    for seed, *pair in zip(options.seeds, *accuracies.values(), strict=True):
        axes.plot(WAYS, [100 * value for value in pair], "o-", label=f"seed {seed}")
    axes.axhline(25, color="grey", linestyle=":", label="chance")
    axes.set(ylim=(0, 100), ylabel="top-1, %", xlim=(-0.3, 1.3))
    axes.set_title(f"after {options.epochs} epochs, {options.videos} videos of each class")
    axes.legend()
    return figure


if __name__ == "__main__":
    main()
