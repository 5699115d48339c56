"""The part of the classifier that knows its data: description, mean and standard deviation."""

from collections.abc import Sequence
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.utilities import rank_zero_warn
from torch import Tensor

from vidpool.data.datamodule import MEAN, STD, VideoDataModule
from vidpool.errors import ConfigError
from vidpool.train import batches


def count_classes(data: Any) -> int | None:
    """Return the number of classes of a datamodule; None if it does not tell.

    Args:
        data: A datamodule, with ``num_classes`` or ``class_names``.
    """
    count = getattr(data, "num_classes", None)
    if count is None:
        names = getattr(data, "class_names", None)
        return None if names is None else len(names)
    return int(count)


class NormalizingModule(pl.LightningModule):
    """A module that normalizes the uint8 clips that it is given.

    Mean and standard deviation are plain values and not buffers, which Lightning's ``bf16-true``
    would round.

    Args:
        mean: Mean of each channel, in [0, 1]; None until the data or a checkpoint give it.
        std: Standard deviation of each channel, in [0, 1]; likewise.

    Raises:
        ConfigError: Only one of the two is given, or a value cannot work.
    """

    mean: tuple[float, ...]
    std: tuple[float, ...]

    def __init__(self, mean: Sequence[float] | None = None, std: Sequence[float] | None = None):
        super().__init__()
        if (mean is None) != (std is None):
            given, missing = ("std", "mean") if mean is None else ("mean", "std")
            raise ConfigError(f"{given} is given without {missing}", argument=missing)
        self.mean, self.std = MEAN, STD
        self._normalization_source: str | None = None
        self._float_clips_checked = False
        self._description: dict[str, Any] | None = None
        if mean is not None and std is not None:
            if len(mean) != len(std) or not min(std) > 0:
                raise ConfigError(
                    "mean and std need a value for each channel, and std positive ones, got "
                    f"mean={tuple(mean)}, std={tuple(std)}",
                    argument="std",
                )
            self.use_normalization(mean, std, "the classifier")

    @property
    def description(self) -> dict[str, Any] | None:
        """Class names and preprocessing, saved in checkpoints; None if they are unknown."""
        return self._description

    @description.setter
    def description(self, description: dict[str, Any] | None) -> None:
        preprocessing = (description or {}).get("preprocessing")
        if preprocessing:
            self.use_normalization(preprocessing["mean"], preprocessing["std"], "the checkpoint")
        self._description = description

    def use_normalization(self, mean: Sequence[float], std: Sequence[float], source: str) -> None:
        """Normalize with these values from now on.

        Args:
            mean: Mean of each channel, in [0, 1].
            std: Standard deviation of each channel, in [0, 1].
            source: Origin of the values, for messages.

        Raises:
            ConfigError: Other values are known already.
        """
        new = tuple(map(float, mean)), tuple(map(float, std))
        if self._normalization_source is not None and new != (self.mean, self.std):
            raise ConfigError(
                f"mean and std are {self.mean} and {self.std} in {self._normalization_source}, and "
                f"{new[0]} and {new[1]} in {source}: clips have to be normalized as in training. "
                "Give the data the mean and std of the classifier",
                argument="mean",
            )
        self.mean, self.std = new
        self._normalization_source = self._normalization_source or source

    def use_normalization_of(self, loader: Any) -> None:
        """Normalize with mean and std of a loader's dataset, if it has any.

        Raises:
            ConfigError: Other values are known already.
        """
        preprocessing = getattr(getattr(loader, "dataset", None), "preprocessing", None)
        if preprocessing is not None:
            self.use_normalization(preprocessing.mean, preprocessing.std, "the data")

    def _describe_data(self, known: bool = False) -> None:
        """Take class names and normalization from the data of the trainer."""
        data = getattr(self.trainer, "datamodule", None)
        classes = None if known or data is None else count_classes(data)
        if classes is not None and classes != self.hparams["num_classes"]:
            raise ConfigError(
                f"num_classes of the classifier is {self.hparams['num_classes']}, but "
                f"{type(data).__name__} has num_classes {classes}",
                argument="num_classes",
            )
        if isinstance(data, VideoDataModule) and not known:
            preprocessing = data.preprocessing
            self.use_normalization(preprocessing.mean, preprocessing.std, "the data")
            self.description = data.describe()

    def _datamodule(self) -> VideoDataModule | None:
        datamodule = getattr(self.trainer, "datamodule", None)
        return datamodule if isinstance(datamodule, VideoDataModule) else None

    def on_after_batch_transfer(self, batch: Any, dataloader_idx: int) -> Any:  # noqa: ARG002
        """Change clips on the device if their augmentation says so, normalize and mix them.

        Clips alone stay a tensor: `to_onnx` passes its example input through this method.
        """
        if isinstance(batch, Tensor):
            return batches.normalize_clips(batch, self.mean, self.std)
        return self.prepare(batch)

    def prepare(self, batch: Any) -> dict[str, Any]:
        """Return a batch whose clips are ready for the network, see :func:`batches.prepare`."""
        batch = batches.as_dict(batch)
        self._check_floats(batch["clip"])
        return batches.prepare(batch, self.mean, self.std, self.hparams["num_classes"])

    def normalize(self, clip: Tensor) -> Tensor:
        """Return uint8 clips normalized in float32; floating-point clips count as normalized."""
        self._check_floats(clip)
        return batches.normalize_clips(clip, self.mean, self.std)

    def _check_floats(self, clip: Tensor) -> None:
        """Warn once if the first clips look as if they were only scaled to [0, 1]."""
        if self._float_clips_checked or torch.compiler.is_compiling() or torch.jit.is_tracing():
            return
        # clips that this module normalized come back as floats
        self._float_clips_checked = True
        if clip.is_floating_point() and clip.numel() and not clip.is_meta:
            low, high = clip.detach().aminmax()
            if float(low) >= 0 and float(high) <= 1 and float(low) < float(high):
                rank_zero_warn(
                    "all values of the floating-point clips lie in [0, 1]: they are taken as "
                    "normalized. Give uint8 clips, or subtract the mean and divide by the std "
                    f"first (mean={self.mean}, std={self.std})"
                )
