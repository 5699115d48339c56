"""``make demo``: the whole road once, each step a command that a user could type.

What is there already is skipped, and an interrupted training is resumed.
"""

import os
from pathlib import Path

from steps import read, test, train, vidpool

ROOT = Path(__file__).resolve().parents[1]
DATA = Path("data/demo")
RECIPE = Path("configs/recipes/demo.yaml")
RUNS = Path("runs/demo")


def main() -> None:
    """Generate, train, test and predict; then say what was made."""
    os.chdir(ROOT)
    vidpool("data", "demo", "--output", DATA)
    checkpoint = train(RECIPE, RUNS)
    run = checkpoint.parents[1]
    moving = test(RECIPE, checkpoint, "test_views")
    static = test(RECIPE, checkpoint, "test_one_frame", "--data.static", "true")
    held_out = DATA / (DATA / "ucfTrainTestlist/testlist01.txt").read_text().splitlines()[-1]
    prediction = run / "prediction.json"
    vidpool(*("predict", checkpoint, "--output", prediction, "--overwrite", held_out))
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


if __name__ == "__main__":
    main()
