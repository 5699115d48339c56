"""The steps of the classifier: loss in training, scores of videos in evaluation, prediction."""

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F
from torchmetrics import MeanMetric

from vidpool.errors import ConfigError
from vidpool.train import checks, metrics
from vidpool.train.batches import label_of
from vidpool.train.normalization import NormalizingModule


class ClassifierSteps(NormalizingModule):
    """Training, validation, test and prediction steps of a module whose forward returns logits.

    Batches are dicts with ``clip`` and ``label``, or ``(clip, label)`` pairs. Loaders of vidpool
    add further entries, see :class:`vidpool.data.dataset.Batch`. Clips of batches without ``video``
    count as one video each.
    """

    def _make_metrics(self, num_classes: int) -> None:
        self.train_loss = MeanMetric()
        self.train_accuracies = metrics.training_accuracies(num_classes)
        # mean scores, labels and metrics of the tested videos
        self.test_results: tuple[Tensor, Tensor, dict[str, float]] | None = None

    @property
    def logged_metrics(self) -> list[str]:
        """Names of the metrics that training and validation log."""
        train = ["loss", *(str(name).removeprefix("train/") for name in self.train_accuracies)]
        both = [f"{stage}/{name}" for stage in ("val", "train") for name in [*train, "bad_clips"]]
        return [*both, "train/loss_step", "lr"]

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        """Return the cross-entropy of augmented clips.

        Accuracies of mixed clips are of the main class.

        Raises:
            ConfigError: The batch is too small for batch norm; the message says why.
        """
        batch = self.prepare(batch)
        label = label_of(batch)
        with checks.explain_single_values(self, batch, batch_idx):
            logits = self(batch["clip"])
        target = batch.get("target", label)
        loss = F.cross_entropy(logits, target, label_smoothing=self.hparams["label_smoothing"])
        size = len(label)
        self.log("train/loss_step", loss, prog_bar=True, batch_size=size)
        self.train_loss.update(loss.detach(), size)
        epoch: dict[str, Any] = {"on_step": False, "on_epoch": True, "batch_size": size}
        self.log("train/loss", self.train_loss, **epoch)
        self.train_accuracies.update(logits, label)
        self.log_dict(self.train_accuracies, **epoch)
        return loss

    def on_validation_epoch_start(self) -> None:
        """Make empty scores of all videos; describe the data, unless a checkpoint did."""
        self._describe_data(known=self.description is not None)
        self.scores = self._empty_scores(self.trainer.val_dataloaders)

    def validation_step(self, batch: Any, batch_idx: int, dataloader_idx: int = 0) -> None:  # noqa: ARG002
        """Add a batch of views to the scores of their videos."""
        self._add_scores(batch)

    def on_validation_epoch_end(self) -> None:
        """Log loss and accuracy over videos."""
        self._log_scores("val")

    def on_test_epoch_start(self) -> None:
        """Make empty scores of all videos; describe the data, unless a checkpoint did."""
        self._describe_data(known=self.description is not None)
        self.scores = self._empty_scores(self.trainer.test_dataloaders)

    def test_step(self, batch: Any, batch_idx: int, dataloader_idx: int = 0) -> None:  # noqa: ARG002
        """Add a batch of views to the scores of their videos."""
        self._add_scores(batch)

    def on_test_epoch_end(self) -> None:
        """Log loss and accuracy over videos; :class:`TestReport` writes them."""
        self.test_results = self._log_scores("test")

    def predict_step(self, batch: Any, *_: Any) -> Tensor | dict[str, Tensor]:
        """Return the probabilities of a batch of views.

        Returns:
            (N, num_classes), or a dict of ``video``, int64 (N,), and ``probabilities`` if the batch
            names its videos. Clips that only fill up the batch are left out.
        """
        batch = self.prepare(batch)
        logits = self(batch["clip"])
        dtype = torch.promote_types(logits.dtype, torch.float32)
        probabilities = logits.softmax(dim=1, dtype=dtype)
        counted = batch.get("counted")
        if counted is not None:
            probabilities = probabilities[counted]
        if "video" not in batch:
            return probabilities
        video = batch["video"] if counted is None else batch["video"][counted]
        return {"video": video, "probabilities": probabilities}

    def _empty_scores(self, loader: Any) -> metrics.VideoScores | metrics.ClipScores:
        loaders = list(loader.values()) if isinstance(loader, dict) else loader
        if isinstance(loaders, (list, tuple)):
            if len(loaders) != 1:
                raise ConfigError(
                    f"validation and testing take one data loader, got {len(loaders)}: call "
                    "trainer.validate or trainer.test for each"
                )
            loader = loaders[0]
        self.use_normalization_of(loader)
        dataset = getattr(loader, "dataset", None)
        # float32, but for Lightning's 64-true
        precision = torch.promote_types(next(self.parameters()).dtype, torch.float32)
        videos = getattr(dataset, "videos", None)
        if videos is None:
            return metrics.ClipScores(self.hparams["num_classes"], precision).to(self.device)
        scores = metrics.VideoScores(len(videos), self.hparams["num_classes"], precision)
        return scores.to(self.device)

    def _add_scores(self, batch: Any) -> None:
        batch = self.prepare(batch)
        label = label_of(batch)
        counted = batch.get("counted")
        if counted is None:
            counted = torch.ones_like(label, dtype=torch.bool)
        if "video" not in batch and isinstance(self.scores, metrics.VideoScores):
            raise ConfigError(
                "the dataset has videos, but its batches have no 'video', the place of each clip's "
                "video among them, int64 (N,)"
            )
        self.scores.update(self(batch["clip"]), label, batch.get("video"), counted)

    def _log_scores(self, stage: str) -> tuple[Tensor, Tensor, dict[str, float]]:
        """Log the metrics of the videos seen; return their mean scores, labels and metrics."""
        scores, labels = self.scores.mean_scores()
        loss = metrics.negative_log_likelihood(scores, labels)
        values = {"loss": loss, **metrics.accuracies(scores, labels)}
        for name, value in values.items():
            # every rank has the same value, computed from the scores of all
            self.log(f"{stage}/{name}", value, prog_bar=name == "top1", sync_dist=True)
        return scores, labels, {name: float(value) for name, value in values.items()}
