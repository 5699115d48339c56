"""The trainer that ``vidpool fit`` uses, as a Python function, and its parts."""

import os
import sys
import threading
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import ModelCheckpoint, WeightAveraging
from pytorch_lightning.plugins import CheckpointIO
from pytorch_lightning.utilities import rank_zero_info

from vidpool.errors import CheckpointError, ConfigError
from vidpool.train.callbacks.console import (
    NetworkSummary,
    RunProgressBar,
    silence_checkpoint_warnings,
    silence_noise,
)
from vidpool.train.callbacks.interruptions import LastCheckpoint, RequeueBetweenBatches
from vidpool.train.loggers import RunLogger, default_loggers
from vidpool.train.run_folder import (
    RunFolder,
    SafeCheckpointIO,
    current_job,
    find_last_checkpoint,
    remove_unfinished,
)


def make_trainer(
    root: str | os.PathLike[str] = "runs",
    name: str = "default",
    *,
    save_minutes: float | None = 15.0,
    **trainer_arguments: Any,
) -> pl.Trainer:
    """Return a Lightning trainer with everything that ``vidpool fit`` gives.

    Each call of ``fit``, ``validate``, ``test`` or ``predict`` is a run with its own folder,
    ``root/name/<verb>_<n>``, which is made when the run begins. It holds the run's checkpoints and
    reports, and the logs of TensorBoard and ``metrics.csv`` unless other loggers are given.

    - ``best.ckpt`` and ``last.ckpt`` are written atomically. ``ckpt_path="last"`` resumes from the
      latest ``last.ckpt`` of all runs of this name, and starts a new training if there is none.
    - SIGTERM and Ctrl-C save ``last.ckpt`` after the current step. A requeued SLURM job continues
      in its folder.
    - If one process of a distributed training ends, the others end too.

    Args:
        root: Folder of all runs; ``~`` and environment variables are expanded. Defaults to
            ``runs``.
        name: Name of this and similar runs. Defaults to ``default``.
        save_minutes: Minutes between two saves of ``last.ckpt`` within an epoch; 0 saves after
            every step, None only at the end of epochs. Defaults to 15.
        **trainer_arguments: Arguments of ``pl.Trainer``. ``callbacks`` are added to those of
            :func:`default_callbacks`, ``logger`` replaces vidpool's loggers.

    Returns:
        The trainer, whose ``log_dir`` is the folder of the current run.

    Raises:
        ConfigError: `save_minutes` is negative, the trainer uses a CPU with float16 or synchronised
            batch norm, or an environment variable in `root` is not set.

    Examples:
        >>> from vidpool.train import make_trainer
        >>> trainer = make_trainer("runs", name="ucf", max_epochs=50, accelerator="cpu")
        >>> trainer.max_epochs
        50
        >>> [type(logger).__name__ for logger in trainer.loggers]
        ['RunTensorBoardLogger', 'RunCSVLogger']
    """
    silence_noise()
    arguments = dict(trainer_arguments)
    refuse_on_cpu(
        arguments.get("accelerator") or "auto",
        arguments.get("precision"),
        bool(arguments.get("sync_batchnorm")),
    )

    def enabled(argument: str) -> bool:
        return not arguments.get("barebones") and arguments.get(argument) is not False

    run = RunFolder(root, name)
    if enabled("logger") and arguments.get("logger") in (None, True):
        arguments["logger"] = default_loggers(run)
    checkpointing = enabled("enable_checkpointing")
    callbacks = default_callbacks(
        arguments.get("callbacks"),
        progress_bar=enabled("enable_progress_bar"),
        model_summary=enabled("enable_model_summary"),
        checkpointing=checkpointing,
        validating=arguments.get("limit_val_batches") != 0,
        save_minutes=save_minutes,
    )
    arguments["callbacks"] = [run, *callbacks]
    if checkpointing:
        arguments["plugins"] = with_safe_checkpoints(arguments.get("plugins"))
    trainer = Trainer(**arguments)
    trainer.run_folder = run
    trainer.has_own_root_dir = arguments.get("default_root_dir") is not None
    return trainer


class Trainer(pl.Trainer):
    """Lightning's trainer with a folder for each run; :func:`make_trainer` makes it.

    Checkpoints are loaded with ``weights_only=True``, so that a file can run no code. Pass False
    for a checkpoint of someone you trust with objects of other libraries.

    Attributes:
        run_folder: The folder of the current run.
        has_own_root_dir: ``default_root_dir`` was given; otherwise it is the run's folder.
    """

    run_folder: RunFolder | None = None
    has_own_root_dir = True

    @property
    def log_dir(self) -> str | None:
        """The folder of the current run; None before the first. Every rank has to ask for it."""
        path = None if self.run_folder is None else self.run_folder.path
        return self.strategy.broadcast(None if path is None else str(path))

    @property
    def default_root_dir(self) -> str:
        """The folder of checkpoints that are saved because a SLURM job's time is up."""
        if self.run_folder is None or self.has_own_root_dir:
            return super().default_root_dir
        return str(self.run_folder.path or self.run_folder.runs)

    def fit(
        self,
        model: pl.LightningModule,
        train_dataloaders: Any = None,
        val_dataloaders: Any = None,
        datamodule: pl.LightningDataModule | None = None,
        ckpt_path: str | os.PathLike[str] | None = None,
        weights_only: bool | None = True,
    ) -> None:
        """Train in a new folder; the arguments are those of ``pl.Trainer.fit``."""
        with self._begin_run("fit", ckpt_path) as path:
            super().fit(model, train_dataloaders, val_dataloaders, datamodule, path, weights_only)

    def validate(
        self,
        model: pl.LightningModule | None = None,
        dataloaders: Any = None,
        ckpt_path: str | os.PathLike[str] | None = None,
        verbose: bool = True,
        datamodule: pl.LightningDataModule | None = None,
        weights_only: bool | None = True,
    ) -> Any:
        """Validate in a new folder; the arguments are those of ``pl.Trainer.validate``."""
        with self._begin_run("validate", ckpt_path) as path:
            return super().validate(model, dataloaders, path, verbose, datamodule, weights_only)

    def test(
        self,
        model: pl.LightningModule | None = None,
        dataloaders: Any = None,
        ckpt_path: str | os.PathLike[str] | None = None,
        verbose: bool = True,
        datamodule: pl.LightningDataModule | None = None,
        weights_only: bool | None = True,
    ) -> Any:
        """Test in a new folder; the arguments are those of ``pl.Trainer.test``."""
        with self._begin_run("test", ckpt_path) as path:
            return super().test(model, dataloaders, path, verbose, datamodule, weights_only)

    def predict(
        self,
        model: pl.LightningModule | None = None,
        dataloaders: Any = None,
        datamodule: pl.LightningDataModule | None = None,
        return_predictions: bool | None = None,
        ckpt_path: str | os.PathLike[str] | None = None,
        weights_only: bool | None = True,
    ) -> Any:
        """Predict; the arguments are those of ``pl.Trainer.predict``."""
        with self._begin_run("predict", ckpt_path) as path:
            return super().predict(
                model, dataloaders, datamodule, return_predictions, path, weights_only
            )

    @contextmanager
    def _begin_run(self, verb: str, ckpt_path: Any) -> Iterator[Any]:
        """Begin a run, and return the checkpoint that it starts from.

        Raises:
            CheckpointError: There is no last checkpoint to evaluate.
            ConfigError: The run's folder cannot be made.
        """
        run = self.run_folder
        assert run is not None
        if ckpt_path == "last":
            ckpt_path = find_last_checkpoint(run.runs)
            rank_zero_info(f"ckpt_path last: {ckpt_path or f'no run in {run.runs} has one yet'}")
            if ckpt_path is None and verb != "fit":
                raise CheckpointError(
                    f"{run.runs}: no run here has a last.ckpt; give the path of a checkpoint",
                    argument="ckpt_path",
                )
        ckpt_path = run.begin(verb, self.is_global_zero) or ckpt_path
        if verb == "fit" and ckpt_path is not None:
            remove_unfinished(ckpt_path)
        self.loggers = [
            logger.for_next_run() if isinstance(logger, RunLogger) else logger
            for logger in self.loggers
        ]
        with end_with_parent(), warnings.catch_warnings():
            silence_checkpoint_warnings(training=verb == "fit")
            yield None if ckpt_path is None else str(ckpt_path)


def default_callbacks(
    given: Sequence[pl.Callback] | pl.Callback | None = None,
    *,
    progress_bar: bool = True,
    model_summary: bool = True,
    checkpointing: bool = True,
    validating: bool = True,
    save_minutes: float | None = 15.0,
) -> list[pl.Callback]:
    """Return the callbacks of :func:`make_trainer`, for a trainer that you build yourself.

    They are a progress bar, one line about the network's size, ``best.ckpt``, ``last.ckpt``, and
    the requeueing of SLURM jobs. A given progress bar, model summary or
    :class:`~vidpool.train.callbacks.interruptions.LastCheckpoint` replaces that of vidpool. A given
    :class:`~pytorch_lightning.callbacks.ModelCheckpoint` replaces ``best.ckpt``.

    Args:
        given: Other callbacks of the trainer, which come first. Defaults to None.
        progress_bar: Add a progress bar. Defaults to True.
        model_summary: Add one line about the network's size. Defaults to True.
        checkpointing: Keep ``best.ckpt`` and ``last.ckpt`` in training. Defaults to True.
        validating: Training validates; without it there is no ``best.ckpt``. Defaults to True.
        save_minutes: Minutes between two saves of ``last.ckpt`` within an epoch; 0 saves after
            every step, None only at the end of epochs. Defaults to 15.

    Returns:
        The callbacks, in the order that they need.

    Raises:
        ConfigError: `save_minutes` is negative.

    Examples:
        >>> import pytorch_lightning as pl
        >>> from vidpool.train import default_callbacks
        >>> callbacks = default_callbacks([pl.callbacks.LearningRateMonitor()], save_minutes=5)
        >>> for callback in callbacks:
        ...     print(type(callback).__name__)
        LearningRateMonitor
        RunProgressBar
        NetworkSummary
        ModelCheckpoint
        LastCheckpoint
        >>> trainer = pl.Trainer(callbacks=callbacks, logger=False, accelerator="cpu")
    """
    callbacks = _as_list(given)

    def lacks(kind: type[pl.Callback]) -> bool:
        return not any(isinstance(callback, kind) for callback in callbacks)

    if progress_bar and lacks(pl.callbacks.ProgressBar):
        callbacks.append(RunProgressBar())
    if model_summary and lacks(pl.callbacks.ModelSummary):
        callbacks.append(NetworkSummary())
    if current_job() is not None:
        callbacks.append(RequeueBetweenBatches())
    if checkpointing:
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
            f"precision {precision} does not exist on a CPU; use bf16-mixed or 32-true",
            argument="precision",
        )
    if on_cpu and sync_batchnorm:
        raise ConfigError(
            "sync_batchnorm needs GPUs: PyTorch has none for CPUs", argument="sync_batchnorm"
        )


@contextmanager
def end_with_parent() -> Iterator[None]:
    """End this process as soon as the one that started it is gone, unless it is the first rank.

    It may wait for that process in a collective operation, which on a GPU only fails after the time
    limit of the process group. What a process does after its training is not cut short.
    """
    done = threading.Event()
    if os.environ.get("LOCAL_RANK", "0") != "0":
        threading.Thread(target=_watch, args=(os.getppid(), done), daemon=True).start()
    try:
        yield
    finally:
        done.set()


def _watch(parent: int, done: threading.Event) -> None:
    while os.getppid() == parent:
        if done.wait(1):
            return
    print(f"vidpool: process {parent}, which started this one, is gone", file=sys.stderr)
    os._exit(1)


def _as_list(given: Any) -> list[Any]:
    """Return a list of what a trainer's argument may give as None, one object or several."""
    given = given or []
    return list(given) if isinstance(given, list | tuple) else [given]
