"""Metrics over videos: the scores of a video's views are averaged before they are counted."""

from typing import Any

import torch
from torch import Tensor
from torchmetrics import Metric
from torchmetrics.functional.classification import (
    multiclass_accuracy,
    multiclass_confusion_matrix,
)

TOP_K = (1, 5)


class VideoScores(Metric):
    """Averages softmax scores over each video's views, wherever the views were computed.

    The states are sums, so that views of a video on different ranks and in different batches
    come together, and clips that only fill up a batch are left out.

    Args:
        num_videos: Videos in the data set.
        num_classes: Classes of the scores.
        precision: Dtype to average them in.
    """

    full_state_update = False
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
        """Mean scores (V, num_classes), labels (V,) and numbers (V,) of the videos seen."""
        (seen,) = self.views.nonzero(as_tuple=True)
        return self.scores[seen] / self.views[seen, None], self.labels[seen], seen

    def mean_scores(self) -> tuple[Tensor, Tensor]:
        """Scores and labels of :meth:`compute`; torchmetrics squeezes a single video's label."""
        scores, labels, _ = self.compute()
        return scores, labels.reshape(-1)

    def seen(self) -> Tensor:
        """int64 (V,): the places in the data set of the videos that :meth:`mean_scores` is of."""
        return self.compute()[2].reshape(-1)


def accuracies(scores: Tensor, labels: Tensor) -> dict[str, Tensor]:
    """``top1`` and, where there are more than five classes, ``top5``; over videos, in [0, 1].

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


def confusion_matrix(scores: Tensor, labels: Tensor) -> Tensor:
    """int64 (num_classes, num_classes); rows are the true classes, columns the predicted ones."""
    return multiclass_confusion_matrix(scores, labels, scores.shape[1])
