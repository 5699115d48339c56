"""A model that keeps the batches that Lightning gives it, and a trainer for it."""

import warnings

import pytorch_lightning as pl
import torch
from torch import nn


class Watched(pl.LightningModule):
    """Records the training batches, epoch by epoch, in `seen`."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(()))
        self.seen = {}

    def training_step(self, batch):
        self.seen.setdefault(self.current_epoch, []).append(batch)
        return self.weight * 1.0

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), 0.1)


def watch(data, folder, **options):
    """Train a `Watched` for three epochs on a loader or datamodule; return it and its trainer."""
    model = Watched()
    trainer = pl.Trainer(
        max_epochs=3,
        accelerator="cpu",
        devices=1,
        default_root_dir=folder,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        **options,
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # few workers, many cores
        trainer.fit(model, data)
    return model, trainer
