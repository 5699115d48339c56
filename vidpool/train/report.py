"""What a test leaves behind: what was tested, predictions, accuracy by class, a picture."""

import csv
import io
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure
from torch import Tensor

from vidpool.data.catalogue.table import LabelledVideo
from vidpool.figures import plain_text, save_figure
from vidpool.files import open_text, write_json

PREDICTIONS = "predictions.csv"
PREDICTION_COLUMNS = (
    "path",
    "start",
    "end",
    "label",
    "predicted",
    "probability",
    "label_probability",
    "label_rank",
)
RUN = "run.json"
MAX_LABELLED = 110  # more class names than this cannot be read beside a matrix


def write_test_report(
    folder: Path, matrix: Tensor, class_names: list[str], metrics: dict[str, float]
) -> list[Path]:
    """Write ``metrics.json``, ``per_class.csv`` and ``confusion_matrix.png``.

    Args:
        folder: Where to; it is made.
        matrix: int64 (C, C) counts of videos, rows are the true classes.
        class_names: The C names.
        metrics: What was measured over all videos.

    Returns:
        The files written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    files = [folder / name for name in ("metrics.json", "per_class.csv", "confusion_matrix.png")]
    write_json(files[0], metrics)
    with open_text(files[1], "w") as file:
        rows = csv.writer(file)
        rows.writerow(["class", "videos", "correct", "accuracy"])
        for i, name in enumerate(class_names):
            videos, correct = int(matrix[i].sum()), int(matrix[i, i])
            rows.writerow([name, videos, correct, f"{correct / videos:.4f}" if videos else ""])
    save_figure(confusion_figure(matrix, class_names), files[2], dpi=120)
    return files


def write_predictions(
    folder: Path,
    videos: Sequence[LabelledVideo] | Sequence[int],
    seen: Tensor,
    scores: Tensor,
    labels: Tensor,
    class_names: list[str],
) -> Path:
    """Write ``predictions.csv``, a row for each video.

    Its columns: the file, below the data set's folder where it lies there (``#7`` for the seventh
    video from 0 of shards, which keep no names); start and end in seconds where the video is a
    span of its file; the true class; the predicted one and its probability; the true class's
    probability, and its rank, which is 1 where the prediction is right and at most 5 where it is
    right by top-5.

    Args:
        folder: Where to; it is there.
        videos: All videos of the data set; numbers where they have no names.
        seen: int64 (V,), places of those that were tested.
        scores: (V, C) probabilities.
        labels: int64 (V,) class ids.
        class_names: The C names.

    Returns:
        The file.
    """
    root = getattr(videos, "root", "")
    true = scores.gather(1, labels[:, None])
    ranks = 1 + (scores > true).sum(dim=1)
    best, predicted = scores.max(dim=1)
    # where classes are equal one of them is predicted, and the true one then comes after it
    ranks = ranks.where((ranks > 1) | (predicted == labels), 2)
    file = folder / PREDICTIONS
    with open_text(file, "w") as text:
        rows = csv.writer(text)
        rows.writerow(PREDICTION_COLUMNS)
        columns = (seen, labels, predicted, best, true[:, 0], ranks)
        for number, label, guess, p, q, rank in zip(*map(Tensor.tolist, columns), strict=True):
            video = videos[number]
            if isinstance(video, int):
                where = [f"#{video}", "", ""]
            else:
                span = ["", ""] if video.start is None else [f"{video.start:g}", f"{video.end:g}"]
                where = [os.path.relpath(video.path, root) if root else video.path, *span]
            rows.writerow(
                [*where, class_names[label], class_names[guess], f"{p:.6g}", f"{q:.6g}", rank]
            )
    return file


def write_run(folder: Path, run: dict[str, Any]) -> Path:
    """Write ``run.json``, which says what was tested, on which data, and by which command."""
    file = folder / RUN
    write_json(file, run)
    return file


def list_bad_videos(folder: Path, epoch: int, stage: str, messages: list[str]) -> Path:
    """Add to ``bad_videos.csv`` what was wrong with videos that could not be read.

    Args:
        folder: Where it lies; it is made.
        epoch: The epoch they were met in.
        stage: ``train``, ``val`` or ``test``.
        messages: One for each clip, beginning with its file.

    Returns:
        The file.
    """
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / "bad_videos.csv"
    text = io.StringIO()
    rows = csv.writer(text)
    if not file.exists():
        rows.writerow(["epoch", "stage", "message"])
    rows.writerows([epoch, stage, message] for message in messages)
    # at one stroke, since several ranks may write
    with open_text(file, "a") as added:
        added.write(text.getvalue())
    return file


def confusion_figure(matrix: Tensor, class_names: list[str]) -> Figure:
    """Draw a confusion matrix, each row as shares of the true class's videos.

    Args:
        matrix: int64 (C, C) counts, rows are the true classes.
        class_names: The C names.
    """
    count = len(class_names)
    shares = matrix / matrix.sum(dim=1, keepdim=True).clamp_min(1)
    side = min(24.0, 4.5 + 0.28 * count)
    figure = Figure(figsize=(side, side), layout="constrained")
    axes = figure.add_subplot()
    image = axes.imshow(shares.numpy(), cmap="Blues", vmin=0, vmax=1)
    figure.colorbar(image, ax=axes, shrink=0.75, label="share of the class's videos")
    accuracy = float(matrix.trace() / matrix.sum().clamp_min(1))
    axes.set(title=f"top-1 {accuracy:.1%}", xlabel="predicted class", ylabel="true class")
    if count <= MAX_LABELLED:
        size = 9 if count <= 30 else 6
        shown = [plain_text(name) for name in class_names]
        axes.set_xticks(range(count), shown, rotation=90, fontsize=size)
        axes.set_yticks(range(count), shown, fontsize=size)
    if count <= 20:
        for row in range(count):
            for column in range(count):
                number = int(matrix[row, column])
                if number:
                    tone = "white" if shares[row, column] > 0.5 else "black"
                    axes.text(column, row, str(number), ha="center", va="center", color=tone)
    return figure
