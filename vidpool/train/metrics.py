"""Metrics over videos, whose views are averaged first; checks of the metrics that are monitored."""

from collections.abc import Iterable
from difflib import get_close_matches
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.utilities import rank_zero_warn
from torch import Tensor
from torchmetrics import Metric, MetricCollection
from torchmetrics.classification import MulticlassAccuracy
from torchmetrics.functional.classification import (
    multiclass_accuracy,
    multiclass_confusion_matrix,
)
from torchmetrics.utilities import dim_zero_cat

TOP_K = (1, 5)


class _Scores(Metric):
    """Scores averaged over the views of each video.

    Subclasses compute mean scores (V, num_classes), labels (V,) and numbers (V,) of the videos.
    """

    full_state_update = False

    def mean_scores(self) -> tuple[Tensor, Tensor]:
        """Return mean scores (V, num_classes) and labels (V,) of the videos seen."""
        # torchmetrics squeezes the label of a single video
        scores, labels, _ = self.compute()
        return scores, labels.reshape(-1)

    def seen(self) -> Tensor:
        """Return the numbers in the dataset of the videos in :meth:`mean_scores`, int64 (V,)."""
        return self.compute()[2].reshape(-1)


class VideoScores(_Scores):
    """Averages softmax scores over the views of each video.

    The states are sums: the views of a video may be in different batches and on different ranks.
    Clips that only fill up a batch are left out.

    Args:
        num_videos: Videos in the data set.
        num_classes: Classes of the scores.
        precision: Dtype of the averages. Defaults to float32.
    """

    scores: Tensor
    views: Tensor
    labels: Tensor

    def __init__(
        self,
        num_videos: int,
        num_classes: int,
        precision: torch.dtype = torch.float32,
        **options: Any,
    ) -> None:
        super().__init__(**options)
        zeros = torch.zeros(num_videos, num_classes, dtype=precision)
        self.add_state("scores", zeros, dist_reduce_fx="sum")
        self.add_state("views", torch.zeros(num_videos, dtype=torch.long), dist_reduce_fx="sum")
        self.add_state(
            "labels", torch.full((num_videos,), -1, dtype=torch.long), dist_reduce_fx="max"
        )

    def update(self, logits: Tensor, label: Tensor, video: Tensor, counted: Tensor) -> None:
        """Add views.

        Args:
            logits: (N, num_classes), of any float dtype.
            label: int64 (N,).
            video: int64 (N,), the video's place in the data set.
            counted: bool (N,), False for views to be left out.
        """
        video = video[counted]
        scores = logits[counted].softmax(dim=1, dtype=self.scores.dtype)
        self.scores.index_add_(0, video, scores)
        self.views.index_add_(0, video, torch.ones_like(video))
        self.labels[video] = label[counted]

    def compute(self) -> tuple[Tensor, Tensor, Tensor]:
        """Return mean scores (V, num_classes), labels (V,) and numbers (V,) of the videos seen."""
        (seen,) = self.views.nonzero(as_tuple=True)
        return self.scores[seen] / self.views[seen, None], self.labels[seen], seen


class ClipScores(_Scores):
    """Averages softmax scores like :class:`VideoScores` without knowing the number of videos.

    Args:
        num_classes: Classes of the scores.
        precision: Dtype of the averages. Defaults to float32.
    """

    scores: Any
    labels: Any
    videos: Any

    def __init__(
        self, num_classes: int, precision: torch.dtype = torch.float32, **options: Any
    ) -> None:
        super().__init__(**options)
        self.num_classes = num_classes
        self.precision = precision
        for name in ("scores", "labels", "videos"):
            self.add_state(name, [], dist_reduce_fx="cat")

    def update(self, logits: Tensor, label: Tensor, video: Tensor | None, counted: Tensor) -> None:
        """Add views, see :meth:`VideoScores.update`; without `video`, each is a video by itself."""
        self.scores.append(logits[counted].softmax(dim=1, dtype=self.precision))
        self.labels.append(label[counted])
        self.videos.append((torch.full_like(label, -1) if video is None else video)[counted])

    def compute(self) -> tuple[Tensor, Tensor, Tensor]:
        """Return mean scores (V, num_classes), labels (V,) and numbers (V,) of the videos seen."""
        if not len(self.scores):
            none = torch.zeros(0, dtype=torch.long, device=self.device)
            empty = torch.zeros(0, self.num_classes, dtype=self.precision, device=self.device)
            return empty, none, none
        scores, labels, videos = map(dim_zero_cat, (self.scores, self.labels, self.videos))
        if bool((videos < 0).any()):
            return scores, labels, torch.arange(len(labels), device=labels.device)
        seen, place, views = videos.unique(return_inverse=True, return_counts=True)
        sums = scores.new_zeros(len(seen), self.num_classes).index_add_(0, place, scores)
        of_video = labels.new_zeros(len(seen)).index_put_((place,), labels)
        return sums / views[:, None], of_video, seen


def accuracies(scores: Tensor, labels: Tensor) -> dict[str, Tensor]:
    """Return ``top1`` and, with more than five classes, ``top5`` over videos, in [0, 1].

    Args:
        scores: (V, num_classes).
        labels: int64 (V,).
    """
    num_classes = scores.shape[1]
    return {
        f"top{k}": multiclass_accuracy(scores, labels, num_classes, average="micro", top_k=k)
        for k in TOP_K
        if k == 1 or k < num_classes
    }


def training_accuracies(num_classes: int) -> MetricCollection:
    """Return the metrics ``train/top1`` and, with more than five classes, ``train/top5``."""
    return MetricCollection(
        {
            f"top{k}": MulticlassAccuracy(num_classes, top_k=k, average="micro")
            for k in TOP_K
            if k == 1 or k < num_classes
        },
        prefix="train/",
    )


def negative_log_likelihood(scores: Tensor, labels: Tensor) -> Tensor:
    """Return the mean negative log-likelihood of the true classes.

    Args:
        scores: Probabilities (V, num_classes).
        labels: Class ids, int64 (V,).
    """
    likelihood = scores.gather(1, labels[:, None]).clamp_min(torch.finfo(scores.dtype).tiny)
    return -likelihood.log().mean()


def confusion_matrix(scores: Tensor, labels: Tensor) -> Tensor:
    """Return counts, int64 (num_classes, num_classes): true classes by predicted classes."""
    return multiclass_confusion_matrix(scores, labels, scores.shape[1])


def warn_of_unknown_monitors(trainer: pl.Trainer, logged: Iterable[str]) -> list[str]:
    """Warn about callbacks and schedulers that monitor a metric that is not logged.

    Lightning only notices at the first check, after a whole epoch. This is a warning and no error
    because a callback may log metrics of its own.

    Args:
        trainer: The trainer, set up for training.
        logged: Names of the metrics that the module logs.

    Returns:
        The unknown metrics.
    """
    logged = list(logged)
    watching = [
        (type(callback).__name__, getattr(callback, "monitor", None))
        for callback in trainer.callbacks  # type: ignore[attr-defined]
    ]
    watching += [
        (type(config.scheduler).__name__, config.monitor)
        for config in trainer.lr_scheduler_configs
        if config.reduce_on_plateau
    ]
    unknown = [
        (name, metric)
        for name, metric in watching
        if isinstance(metric, str) and metric not in logged
    ]
    for name, metric in unknown:
        near = get_close_matches(metric.replace("_", "/"), logged, n=1, cutoff=0.7)
        hint = f", did you mean {near[0]!r}?" if near else ";"
        rank_zero_warn(
            f"{name} monitors {metric!r}, which vidpool does not log{hint} The training fails at "
            f"the first check unless another callback logs it. Logged are: {', '.join(logged)}"
        )
    return [metric for _, metric in unknown]
