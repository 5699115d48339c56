"""``make demo``: the whole road once, each step a command that a user could type.

What is there already is skipped, and an interrupted training is resumed.
"""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import torch
import yaml

ROOT = Path(__file__).resolve().parents[1]
DATA = Path("data/demo")
RECIPE = Path("configs/recipes/demo.yaml")
RUNS = Path("runs/demo")
CHECKPOINT = "checkpoints/last.ckpt"


def main() -> None:
    """Generate, train, test and predict; then say what was made."""
    os.chdir(ROOT)
    vidpool("data", "demo", "--out", DATA)
    checkpoint = train()
    run = checkpoint.parents[1]
    moving = test(checkpoint, "test_views")
    static = test(checkpoint, "test_one_frame", "--data.static", "true")
    held_out = DATA / (DATA / "ucfTrainTestlist/testlist01.txt").read_text().splitlines()[-1]
    prediction = run / "prediction.json"
    vidpool(
        *("predict", "--ckpt_path", checkpoint, "--output", prediction, "--overwrite", held_out)
    )
    print(
        f"""
made:
  demo data set      {DATA}
  checkpoint         {checkpoint}
  training curves    {run}/metrics.csv, or: tensorboard --logdir runs
  confusion matrix   {moving.parent}/confusion_matrix.png
  a prediction       {prediction}
top-1 on {read(moving)["videos"]} held-out videos: {read(moving)["top1"]:.1%} (chance 12.5 %)
the same network shown one frame, repeated: {read(static)["top1"]:.1%}"""
    )


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


def train() -> Path:
    """Train, or resume, or do neither where it is done; return the last checkpoint."""
    checkpoint = newest_checkpoint()
    resume: list[str | Path] = []
    if checkpoint:
        epochs = torch.load(checkpoint, map_location="cpu", weights_only=True)["epoch"] + 1
        if epochs >= yaml.safe_load(RECIPE.read_text())["trainer"]["max_epochs"]:
            print(f"\ntrained already: {checkpoint}")
            return checkpoint
        resume = ["--ckpt_path", checkpoint]
    vidpool("fit", "--config", RECIPE, *resume)
    trained = newest_checkpoint()
    if trained is None or trained == checkpoint:
        sys.exit(f"`vidpool fit` left no checkpoint in {RUNS}")
    return trained


def newest_checkpoint() -> Path | None:
    """The checkpoint that a training wrote last."""
    found = RUNS.glob(f"fit_*/{CHECKPOINT}")
    return max(found, key=lambda path: path.stat().st_mtime, default=None)


def test(checkpoint: Path, name: str, *options: str) -> Path:
    """Test a checkpoint unless that is done; the report lies in the run's own folder."""
    run = checkpoint.parents[1]
    done = sorted((run / name).glob("test_*/metrics.json"))
    if done:
        print(f"\ntested already: {done[0]}")
        return done[0]
    place = ("--run.root", run, "--run.name", name)
    vidpool("test", "--config", RECIPE, "--ckpt_path", checkpoint, *place, *options)
    return next((run / name).glob("test_*/metrics.json"))


def read(metrics: Path) -> dict[str, float]:
    """The metrics that a test left."""
    content: dict[str, float] = json.loads(metrics.read_text())
    return content


if __name__ == "__main__":
    main()
