"""What the demos share: vidpool's commands, shown and run, and not again where they are done."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import torch
import yaml

CHECKPOINT = "checkpoints/last.ckpt"


def vidpool(*arguments: str | Path) -> None:
    """Show a vidpool command and run it; end the demo where it fails."""
    words = [str(argument) for argument in arguments]
    print(f"\n$ vidpool {' '.join(words)}", flush=True)
    # Loader processes compete with PyTorch's threads for the cores: let waiting threads sleep.
    environment = {"OMP_WAIT_POLICY": "PASSIVE", **os.environ}
    begin = time.monotonic()
    done = subprocess.run([sys.executable, "-m", "vidpool", *words], env=environment, check=False)
    if done.returncode:
        sys.exit(f"`vidpool {words[0]}` failed with status {done.returncode}")
    print(f"({time.monotonic() - begin:.0f} s)", flush=True)


def train(recipe: Path, runs: Path, *options: str | Path) -> Path:
    """Train, or resume, or do neither where it is done.

    Args:
        recipe: The config file.
        runs: The folder of this training's runs.
        *options: Further options of `vidpool fit`.

    Returns:
        The last checkpoint.
    """
    checkpoint = newest_checkpoint(runs)
    resume: list[str | Path] = []
    if checkpoint:
        epochs = torch.load(checkpoint, map_location="cpu", weights_only=True)["epoch"] + 1
        settings = yaml.safe_load((checkpoint.parents[1] / "config.yaml").read_text())
        if epochs >= settings["trainer"]["max_epochs"]:
            print(f"\ntrained already: {checkpoint}")
            return checkpoint
        resume = ["--ckpt_path", checkpoint]
    place = ("--run.root", runs.parent, "--run.name", runs.name)
    vidpool("fit", "--config", recipe, *place, *options, *resume)
    trained = newest_checkpoint(runs)
    if trained is None or trained == checkpoint:
        sys.exit(f"`vidpool fit` left no checkpoint in {runs}")
    return trained


def newest_checkpoint(runs: Path) -> Path | None:
    """The checkpoint that a training wrote last."""
    found = runs.glob(f"fit_*/{CHECKPOINT}")
    return max(found, key=lambda path: path.stat().st_mtime, default=None)


def test(recipe: Path, checkpoint: Path, name: str, *options: str | Path) -> Path:
    """Test a checkpoint unless that is done; the report lies in the run's own folder.

    Returns:
        The file with the metrics, for :func:`read`.
    """
    run = checkpoint.parents[1]
    done = sorted((run / name).glob("test_*/metrics.json"))
    if done:
        print(f"\ntested already: {done[0]}")
        return done[0]
    place = ("--run.root", run, "--run.name", name)
    vidpool("test", "--config", recipe, "--ckpt_path", checkpoint, *place, *options)
    return next((run / name).glob("test_*/metrics.json"))


def read(metrics: Path) -> dict[str, float]:
    """The metrics that a test left."""
    content: dict[str, float] = json.loads(metrics.read_text())
    return content
