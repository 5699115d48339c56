"""Parts of a Lightning trainer: callbacks, loggers, checkpoints; processes that end together."""

import os
import sys
import threading
import time
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import ModelCheckpoint, WeightAveraging
from pytorch_lightning.loggers import CSVLogger, Logger, TensorBoardLogger
from pytorch_lightning.plugins import CheckpointIO
from pytorch_lightning.utilities import rank_zero_info

from vidpool.errors import ConfigError
from vidpool.files import is_utf8
from vidpool.train.callbacks.console import NetworkSummary, RunProgressBar
from vidpool.train.callbacks.interruptions import LastCheckpoint, RequeueBetweenBatches
from vidpool.train.run_folder import SafeCheckpointIO, current_job


def default_callbacks(
    given: Sequence[pl.Callback] | pl.Callback | None = None,
    *,
    training: bool = True,
    progress_bar: bool = True,
    model_summary: bool = True,
    checkpointing: bool = True,
    validating: bool = True,
    save_minutes: float | None = 15.0,
) -> list[pl.Callback]:
    """Return vidpool's callbacks, after those given.

    A given progress bar, model summary or ``last.ckpt`` replaces vidpool's, and so does a given
    :class:`~pytorch_lightning.callbacks.ModelCheckpoint` the best checkpoint.

    Args:
        given: Other callbacks of the trainer.
        training: The trainer trains; otherwise it only evaluates. Defaults to True.
        progress_bar: Add a progress bar.
        model_summary: Add one line about the network's size.
        checkpointing: Keep ``best.ckpt`` and ``last.ckpt`` in training.
        validating: Training validates; without it there is no ``best.ckpt``.
        save_minutes: Minutes between two saves of ``last.ckpt`` within an epoch; 0 saves after
            every step, None only at the end of epochs. Defaults to 15.

    Raises:
        ConfigError: `save_minutes` is negative.
    """
    callbacks = _as_list(given)

    def lacks(kind: type[pl.Callback]) -> bool:
        return not any(isinstance(callback, kind) for callback in callbacks)

    if progress_bar and lacks(pl.callbacks.ProgressBar):
        callbacks.append(RunProgressBar())
    if model_summary and lacks(pl.callbacks.ModelSummary):
        callbacks.append(NetworkSummary())
    if training and current_job() is not None:
        callbacks.append(RequeueBetweenBatches())
    if training and checkpointing:
        own = [each for each in callbacks if isinstance(each, ModelCheckpoint)]
        if validating and all(isinstance(each, LastCheckpoint) for each in own):
            callbacks.append(
                ModelCheckpoint(
                    filename="best", monitor="val/top1", mode="max", enable_version_counter=False
                )
            )
        if lacks(LastCheckpoint):
            callbacks.append(LastCheckpoint(save_minutes))
    # precise batch norm needs the averaged weights in their place
    return sorted(callbacks, key=lambda each: not isinstance(each, WeightAveraging))


def default_loggers(root: str | os.PathLike[str], name: str, version: str) -> list[Logger]:
    """Return loggers for TensorBoard and ``metrics.csv``, both in ``root/name/version``.

    A folder whose name is not UTF-8 gets ``metrics.csv`` alone, with a message.
    """
    place: dict[str, Any] = {"save_dir": root, "name": name, "version": version}
    loggers: list[Logger] = [CSVLogger(**place)]
    folder = Path(root) / name / version
    if is_utf8(folder):
        loggers.insert(0, TensorBoardLogger(**place, default_hp_metric=False))
    else:
        rank_zero_info(
            f"{folder}: TensorBoard cannot write here, since the name is not UTF-8; "
            "metrics.csv contains the metrics"
        )
    # the two loggers share it
    warnings.filterwarnings("ignore", "Experiment logs directory .* exists and is not empty")
    return loggers


def with_safe_checkpoints(plugins: Any) -> list[Any]:
    """Return plugins with :class:`SafeCheckpointIO`, unless they write checkpoints themselves."""
    plugins = _as_list(plugins)
    if not any(isinstance(plugin, CheckpointIO) for plugin in plugins):
        plugins.append(SafeCheckpointIO())
    return plugins


def refuse_on_cpu(accelerator: Any, precision: Any, sync_batchnorm: bool) -> None:
    """Refuse settings that need a GPU, where Lightning would ignore them or fail in the first step.

    The arguments are those of ``pl.Trainer``.

    Raises:
        ConfigError: The trainer uses a CPU, with float16 or synchronised batch norm.
    """
    on_cpu = accelerator == "cpu" or (
        accelerator == "auto"
        and not torch.cuda.is_available()
        and not torch.backends.mps.is_available()
    )
    if on_cpu and str(precision) in ("16", "16-mixed", "16-true"):
        raise ConfigError(
            f"trainer.precision {precision} does not exist on a CPU; use bf16-mixed or 32-true"
        )
    if on_cpu and sync_batchnorm:
        raise ConfigError("trainer.sync_batchnorm needs GPUs: PyTorch has none for CPUs")


def end_with_parent() -> None:
    """End this process as soon as the one that started it is gone, unless it is the first rank.

    It may wait for that process in a collective operation, which on a GPU only fails after the time
    limit of the process group.
    """
    if os.environ.get("LOCAL_RANK", "0") != "0":
        threading.Thread(target=_watch, args=(os.getppid(),), daemon=True).start()


def _watch(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(1)
    print(f"vidpool: process {parent}, which started this one, is gone", file=sys.stderr)
    os._exit(1)


def _as_list(given: Any) -> list[Any]:
    """Return a list of what a trainer's argument may give as None, one object or several."""
    given = given or []
    return list(given) if isinstance(given, list | tuple) else [given]
