"""Steps of an experiment: vidpool's commands, printed and run, and skipped if they are done."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import torch
import yaml

CHECKPOINT = "checkpoints/last.ckpt"


def run_vidpool(*arguments: object) -> None:
    """Print a vidpool command and run it in a process of its own; exit if it fails.

    Args:
        *arguments: Words of the command line, converted to strings.
    """
    words = [str(argument) for argument in arguments]
    print(f"\n$ vidpool {' '.join(words)}", flush=True)
    # loader processes compete with PyTorch's threads for the cores, so waiting threads sleep
    environment = {"OMP_WAIT_POLICY": "PASSIVE", **os.environ}
    started = time.monotonic()
    done = subprocess.run([sys.executable, "-m", "vidpool", *words], env=environment, check=False)
    if done.returncode:
        sys.exit(f"`vidpool {words[0]}` failed with status {done.returncode}")
    print(f"({time.monotonic() - started:.0f} s)", flush=True)


def train_or_resume(recipe: Path, runs: Path, *options: object) -> Path:
    """Train a network, resume an interrupted training, or return if it is complete.

    Args:
        recipe: Config file.
        runs: Folder of the runs of this training.
        *options: Further options of `vidpool fit`.

    Returns:
        The latest checkpoint.
    """
    checkpoint = latest_checkpoint(runs)
    resume: list[object] = []
    if checkpoint:
        epochs = torch.load(checkpoint, map_location="cpu", weights_only=True)["epoch"] + 1
        settings = yaml.safe_load((checkpoint.parents[1] / "config.yaml").read_text())
        if epochs >= settings["trainer"]["max_epochs"]:
            print(f"\ntrained already: {checkpoint}")
            return checkpoint
        resume = ["--ckpt_path", checkpoint]
    place = ("--run.root", runs.parent, "--run.name", runs.name)
    run_vidpool("fit", "--config", recipe, *place, *options, *resume)
    trained = latest_checkpoint(runs)
    if trained is None or trained == checkpoint:
        sys.exit(f"`vidpool fit` left no checkpoint in {runs}")
    return trained


def latest_checkpoint(runs: Path) -> Path | None:
    """Return the checkpoint that a training wrote last, or None if there is none."""
    found = runs.glob(f"fit_*/{CHECKPOINT}")
    return max(found, key=lambda path: path.stat().st_mtime, default=None)


def evaluate(recipe: Path, checkpoint: Path, name: str, *options: object) -> Path:
    """Test a checkpoint, unless its run already contains a report of that name.

    Args:
        recipe: Config file.
        checkpoint: Checkpoint of a run; the report is written to the folder of this run.
        name: Name of the report.
        *options: Further options of `vidpool test`.

    Returns:
        File with the metrics, for :func:`read_metrics`.
    """
    run = checkpoint.parents[1]
    done = sorted((run / name).glob("test_*/metrics.json"))
    if done:
        print(f"\ntested already: {done[0]}")
        return done[0]
    place = ("--run.root", run, "--run.name", name)
    run_vidpool("test", "--config", recipe, "--ckpt_path", checkpoint, *place, *options)
    return next((run / name).glob("test_*/metrics.json"))


def read_metrics(metrics: Path) -> dict[str, float]:
    """Return the metrics in a file that :func:`evaluate` returned."""
    content: dict[str, float] = json.loads(metrics.read_text())
    return content
