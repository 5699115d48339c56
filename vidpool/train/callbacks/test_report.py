"""Report of a test: settings, predictions, accuracy by class, confusion matrix."""

import csv
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
from matplotlib.figure import Figure
from torch import Tensor

from vidpool.data.catalogue.table import LabelledVideo
from vidpool.figures import plain_text, save_figure
from vidpool.files import open_text, write_json
from vidpool.results import provenance
from vidpool.train.metrics import confusion_matrix
from vidpool.train.network import ARCHITECTURE
from vidpool.train.run_folder import run_folder

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
MAX_LABELLED = 110  # more class names than this cannot be read next to a matrix


class TestReport(pl.Callback):
    """Writes the report of a test into the run's folder.

    The files are ``metrics.json``, ``per_class.csv``, ``confusion_matrix.png``, ``predictions.csv``
    and ``run.json``. :class:`~vidpool.train.classifier.VideoClassifier` adds this callback to its
    trainer.
    """

    __test__ = False  # pytest takes it for a test otherwise

    def on_test_end(self, trainer: pl.Trainer, pl_module: Any) -> None:
        """Write the files, on rank zero."""
        folder = run_folder(trainer)  # a collective operation: every rank takes part
        if not trainer.is_global_zero:
            return
        scores, labels, metrics = pl_module.test_results
        names = pl_module.description["class_names"] if pl_module.description else None
        names = names or [str(i) for i in range(pl_module.hparams["num_classes"])]
        matrix = confusion_matrix(scores, labels).cpu()
        write_test_report(folder, matrix, names, {**metrics, "videos": len(labels)})
        loader: Any = trainer.test_dataloaders
        if isinstance(loader, (list, tuple)):
            loader = loader[0]
        seen = pl_module.scores.seen()
        # loaders of the user's own do not name their videos
        unnamed = range(int(seen.max()) + 1 if len(seen) else 0)
        videos = getattr(getattr(loader, "dataset", None), "videos", unnamed)
        write_predictions(folder, videos, seen, scores, labels, names)
        write_run(folder, _describe_run(trainer, pl_module))


def write_test_report(
    folder: Path, matrix: Tensor, class_names: list[str], metrics: dict[str, float]
) -> list[Path]:
    """Write ``metrics.json``, ``per_class.csv`` and ``confusion_matrix.png``.

    Args:
        folder: Folder of the files; it is made.
        matrix: Counts of videos, int64 (C, C); rows are the true classes.
        class_names: The C names.
        metrics: Metrics over all videos.

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
    """Write ``predictions.csv``, with a row for each video.

    The columns are the file, relative to the data set's folder (``#7`` for video 7, counted from 0,
    of shards, which keep no names); start and end in seconds if the video is a span of its file;
    the true class; the predicted class and its probability; the probability of the true class and
    its rank. The rank is 1 if the prediction is right, and at most 5 if it is right by top-5.

    Args:
        folder: Existing folder of the file.
        videos: All videos of the data set; numbers if they have no names.
        seen: Places of the tested videos in `videos`, int64 (V,).
        scores: Probabilities (V, C).
        labels: Class ids, int64 (V,).
        class_names: The C names.

    Returns:
        The file.
    """
    root = getattr(videos, "root", "")
    true = scores.gather(1, labels[:, None])
    ranks = 1 + (scores > true).sum(dim=1)
    best, predicted = scores.max(dim=1)
    # of classes with equal scores one is predicted; the true one then comes after it
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
    """Write ``run.json``: the tested network, its checkpoint, the data and the command."""
    file = folder / RUN
    write_json(file, run)
    return file


def confusion_figure(matrix: Tensor, class_names: list[str]) -> Figure:
    """Draw a confusion matrix; each row shows shares of the true class's videos.

    Args:
        matrix: Counts of videos, int64 (C, C); rows are the true classes.
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


def _describe_run(trainer: pl.Trainer, pl_module: Any) -> dict[str, Any]:
    """Return the content of ``run.json``."""
    seed = os.environ.get("PL_GLOBAL_SEED")
    data = getattr(trainer, "datamodule", None)
    root = getattr(data, "root", getattr(data, "folder", None))
    return {
        **provenance(seed=None if seed is None else int(seed)),
        "checkpoint": None if trainer.ckpt_path is None else str(trainer.ckpt_path),
        "network": {name: pl_module.hparams[name] for name in ARCHITECTURE},
        "data": {
            "datamodule": type(data).__name__,
            "root": None if root is None else str(root),
            "preprocessing": (pl_module.description or {}).get("preprocessing"),
            "static": getattr(data, "static", False),
        },
    }
