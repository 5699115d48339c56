"""Batch norm's statistics, recomputed before validation."""

from collections.abc import Iterable
from contextlib import AbstractContextManager, nullcontext
from itertools import islice
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import WeightAveraging
from pytorch_lightning.utilities import rank_zero_info
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from vidpool.data.datamodule import VideoDataModule
from vidpool.data.schedule import ConstantSchedule
from vidpool.errors import ConfigError


class PreciseBatchNorm(pl.Callback):
    """Recomputes the running statistics of batch norm before each validation in training.

    Running averages lag behind the weights, and mix the shapes if clips vary in shape. The
    recomputed statistics are means over training clips in the shape and batch size of ``data``,
    with the current weights (Wu and Johnson, *Rethinking "Batch" in BatchNorm*, 2021). They stay in
    the network and in the checkpoints that are saved after the validation. Frozen batch norms keep
    their statistics. With an average of the weights (EMA), the statistics are those of the average.

    Args:
        batches: Number of batches per process, at most those of an epoch. Defaults to 50.

    Raises:
        ConfigError: ``batches`` is below 1.
    """

    def __init__(self, batches: int = 50) -> None:
        if batches < 1:
            raise ConfigError(f"precise batch norm needs at least 1 batch, got {batches}")
        self.batches = batches
        self._layers: list[_BatchNorm] = []
        self._reported = False

    def on_train_batch_start(
        self,
        trainer: pl.Trainer,  # noqa: ARG002
        pl_module: pl.LightningModule,
        batch: Any,  # noqa: ARG002
        batch_idx: int,
    ) -> None:
        """Find the batch norms that are trained; in validation all of them look frozen."""
        if batch_idx == 0 or not self._layers:
            self._layers = [
                module
                for module in pl_module.modules()
                if isinstance(module, _BatchNorm)
                and module.training
                and module.running_mean is not None
            ]

    def setup(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,  # noqa: ARG002
        stage: str,
    ) -> None:
        """Check the data, and that averaged weights (EMA) are put in place before this callback.

        Raises:
            ConfigError: There is no datamodule of vidpool's, or the callback that averages comes
                after this one.
        """
        data = getattr(trainer, "datamodule", None)
        if stage == "fit" and not isinstance(data, VideoDataModule):
            raise ConfigError(
                "precise batch norm needs one of vidpool's datamodules, from which it takes "
                "further training clips: pass it as trainer.fit(classifier, datamodule=...)"
            )
        callbacks = trainer.callbacks  # type: ignore[attr-defined]
        if any(isinstance(each, WeightAveraging) for each in callbacks[callbacks.index(self) :]):
            raise ConfigError(
                "precise batch norm must come after the average of weights among the callbacks: "
                "its statistics are to be the average's"
            )

    def on_validation_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Compute the statistics, unless nothing has been trained yet."""
        if not self._layers or trainer.train_dataloader is None:
            return
        clips = self._clips(trainer)
        update_batch_norm(
            pl_module, self._layers, clips, trainer.precision_plugin.forward_context()
        )
        if trainer.world_size > 1:
            self._average_over_ranks(trainer)

    def _clips(self, trainer: pl.Trainer) -> Iterable[Tensor]:
        """Yield the first batches of the epoch, in the shape of evaluation."""
        datamodule: VideoDataModule = trainer.datamodule  # type: ignore[attr-defined]
        usual = datamodule.schedule
        datamodule.schedule = ConstantSchedule(
            datamodule.preprocessing.shape, datamodule.batch_size
        )
        try:
            loader: Any = datamodule.train_dataloader()
        finally:
            datamodule.schedule = usual
        # every batch weighs the same: the last one, which may be smaller, is left out
        plan = loader.scheduled.plan
        full = sum(step.batch_size == datamodule.batch_size for step in plan)
        count = min(self.batches, max(1, full))
        if not self._reported:
            rank_zero_info(f"precise batch norm looks at {count} batches before each validation")
            self._reported = True
        for batch in islice(loader, count):
            # the statistics are those of clips that are neither changed on the device nor mixed
            batch.pop("augment", None)
            # this normalizes the clips, in the classifier's on_after_batch_transfer
            yield trainer.strategy.batch_to_device(batch, dataloader_idx=0)["clip"]

    def _average_over_ranks(self, trainer: pl.Trainer) -> None:
        """Average the statistics over the clips of all ranks."""

        def average(tensors: list[Tensor]) -> list[Tensor]:
            joined = trainer.strategy.reduce(torch.cat(tensors), reduce_op="mean")
            assert isinstance(joined, Tensor)
            return list(joined.split([len(tensor) for tensor in tensors]))

        own: list[Any] = [(layer.running_mean, layer.running_var) for layer in self._layers]
        means = average([mean for mean, _ in own])
        variances = average(
            [
                variance + (mean - overall).square()
                for (mean, variance), overall in zip(own, means, strict=True)
            ]
        )
        for (mean, variance), new_mean, new_variance in zip(own, means, variances, strict=True):
            mean.copy_(new_mean)
            variance.copy_(new_variance)


@torch.no_grad()
def update_batch_norm(
    model: nn.Module,
    layers: Iterable[_BatchNorm],
    clips: Iterable[Tensor],
    context: AbstractContextManager[Any] | None = None,
) -> None:
    """Set running statistics to their means over batches.

    Unlike ``torch.optim.swa_utils.update_bn``, this leaves frozen layers and dropout in evaluation
    mode.

    Args:
        model: The network, in evaluation mode.
        layers: Batch norms of the network to update.
        clips: Batches of clips; each has the same weight.
        context: Context of the forward passes, such as autocasting.
    """
    layers = list(layers)
    momenta = [layer.momentum for layer in layers]
    for layer in layers:
        layer.reset_running_stats()
        layer.momentum = None  # the plain mean
        layer.train()
    try:
        with context or nullcontext():
            for batch in clips:
                model(batch)
    finally:
        for layer, momentum in zip(layers, momenta, strict=True):
            layer.momentum = momentum
            layer.eval()
