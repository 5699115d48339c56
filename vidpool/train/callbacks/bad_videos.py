"""Accounting of the clips that could not be read."""

import csv
import io
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
from pytorch_lightning.utilities import rank_zero_warn

from vidpool.data.datamodule import VideoDataModule
from vidpool.errors import DataError
from vidpool.files import open_text
from vidpool.train.run_folder import run_folder

BAD_VIDEOS = "bad_videos.csv"
STAGES = ("train", "val", "test")


class BadVideos(pl.Callback):
    """Counts, logs and lists the clips that could not be read.

    Logs ``train/bad_clips``, ``val/bad_clips`` and ``test/bad_clips``: the number of clips in an
    epoch, over all ranks. At the end of an epoch with bad clips it warns and adds them to
    ``bad_videos.csv`` in the run's folder.

    :class:`~vidpool.train.classifier.VideoClassifier` adds this callback to its trainer. Batches
    that are not from vidpool's loaders are not counted.
    """

    def __init__(self) -> None:
        # of the current epoch of each stage on this rank
        self._requested = dict.fromkeys(STAGES, 0)
        self._messages: dict[str, list[str]] = {stage: [] for stage in STAGES}

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:  # noqa: ARG002
        """Start to count."""
        self._reset_bad_clip_counts("train")

    def on_validation_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:  # noqa: ARG002
        """Start to count."""
        self._reset_bad_clip_counts("val")

    def on_test_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:  # noqa: ARG002
        """Start to count."""
        self._reset_bad_clip_counts("test")

    def on_train_batch_end(
        self,
        trainer: pl.Trainer,  # noqa: ARG002
        pl_module: pl.LightningModule,
        outputs: Any,  # noqa: ARG002
        batch: Any,
        batch_idx: int,  # noqa: ARG002
    ) -> None:
        """Count and log the batch's bad clips."""
        self._log_bad_clips("train", pl_module, batch)

    def on_validation_batch_end(
        self,
        trainer: pl.Trainer,  # noqa: ARG002
        pl_module: pl.LightningModule,
        outputs: Any,  # noqa: ARG002
        batch: Any,
        *_: Any,
    ) -> None:
        """Count and log the batch's bad clips."""
        self._log_bad_clips("val", pl_module, batch)

    def on_test_batch_end(
        self,
        trainer: pl.Trainer,  # noqa: ARG002
        pl_module: pl.LightningModule,
        outputs: Any,  # noqa: ARG002
        batch: Any,
        *_: Any,
    ) -> None:
        """Count and log the batch's bad clips."""
        self._log_bad_clips("test", pl_module, batch)

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:  # noqa: ARG002
        """Report the bad clips of the epoch.

        Raises:
            DataError: Their share is larger than the datamodule's ``max_bad_share``.
        """
        self._report_bad_clips("train", trainer)

    def on_validation_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:  # noqa: ARG002
        """Report the bad clips of the epoch.

        Raises:
            DataError: Their share is larger than the datamodule's ``max_bad_share``.
        """
        self._report_bad_clips("val", trainer)

    def on_test_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:  # noqa: ARG002
        """Report the bad clips of the epoch.

        Raises:
            DataError: Their share is larger than the datamodule's ``max_bad_share``.
        """
        self._report_bad_clips("test", trainer)

    def _reset_bad_clip_counts(self, stage: str) -> None:
        self._requested[stage] = 0
        self._messages[stage] = []

    def _log_bad_clips(self, stage: str, pl_module: pl.LightningModule, batch: Any) -> None:
        if not isinstance(batch, dict) or "requested" not in batch:
            return
        self._requested[stage] += batch["requested"]
        self._messages[stage] += batch["bad"]
        pl_module.log(
            f"{stage}/bad_clips",
            float(len(batch["bad"])),
            on_step=False,
            on_epoch=True,
            reduce_fx="sum",
            sync_dist=True,
            batch_size=len(batch["label"]),
        )

    def _report_bad_clips(self, stage: str, trainer: pl.Trainer) -> None:
        count = int(trainer.callback_metrics.get(f"{stage}/bad_clips", 0))
        if not count:
            return
        folder = run_folder(trainer)  # a collective operation: every rank takes part
        messages = self._messages[stage]
        file = list_bad_videos(folder, trainer.current_epoch, stage, messages)
        first = f", such as {messages[0]}" if messages else ""
        total = self._requested[stage] * trainer.world_size  # every rank gets the same number
        report = (
            f"epoch {trainer.current_epoch}, {stage}: {count} of {total} clips could not be "
            f"read{first}; {file} lists them"
        )
        datamodule = getattr(trainer, "datamodule", None)
        if isinstance(datamodule, VideoDataModule) and count > datamodule.max_bad_share * total:
            raise DataError(
                f"{report}. That is more than max_bad_share ({datamodule.max_bad_share:g}) allows: "
                "look at the data (`vidpool data check`) or set it higher",
                argument="max_bad_share",
            )
        rank_zero_warn(report)


def list_bad_videos(folder: Path, epoch: int, stage: str, messages: list[str]) -> Path:
    """Append the reasons why videos could not be read to ``bad_videos.csv``.

    Args:
        folder: Folder of the file; it is made.
        epoch: Epoch in which the videos were read.
        stage: ``train``, ``val`` or ``test``.
        messages: One message per clip, beginning with its file.

    Returns:
        The file.
    """
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / BAD_VIDEOS
    text = io.StringIO()
    rows = csv.writer(text)
    if not file.exists():
        rows.writerow(["epoch", "stage", "message"])
    rows.writerows([epoch, stage, message] for message in messages)
    # in a single write, since several ranks may append
    with open_text(file, "a") as added:
        added.write(text.getvalue())
    return file
