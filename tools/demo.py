"""``make demo``: vidpool end to end, each step a command that a user could type.

Steps that are done are skipped, and an interrupted training is resumed.
"""

import os
from pathlib import Path

from vidpool.analysis.experiment_steps import (
    evaluate,
    read_metrics,
    run_vidpool,
    train_or_resume,
)

ROOT = Path(__file__).resolve().parents[1]
DATA = Path("data/demo")
RECIPE = Path("configs/recipes/demo.yaml")
RUNS = Path("runs/demo")


def main() -> None:
    """Generate, train, test and predict; then list the results."""
    os.chdir(ROOT)
    run_vidpool("data", "demo", "--output", DATA)
    checkpoint = train_or_resume(RECIPE, RUNS)
    run = checkpoint.parents[1]
    moving = evaluate(RECIPE, checkpoint, "test_views")
    static = evaluate(RECIPE, checkpoint, "test_one_frame", "--data.static", "true")
    held_out = DATA / (DATA / "ucfTrainTestlist/testlist01.txt").read_text().splitlines()[-1]
    prediction = run / "prediction.json"
    clips, frames = read_metrics(moving), read_metrics(static)
    run_vidpool("predict", checkpoint, "--output", prediction, "--overwrite", held_out)
    print(
        f"""
made:
  demo data set      {DATA}
  checkpoint         {checkpoint}
  training curves    {run}/metrics.csv, or: tensorboard --logdir runs
  confusion matrix   {moving.parent}/confusion_matrix.png
  a prediction       {prediction}
top-1 on {clips["videos"]} held-out videos: {clips["top1"]:.1%} (chance 12.5 %)
the same network shown one frame, repeated: {frames["top1"]:.1%}"""
    )


if __name__ == "__main__":
    main()
