"""``vidpool fit | validate | test``: Lightning's own command line over VideoClassifier."""

import errno
import signal
import sys
import warnings
from contextlib import suppress
from pathlib import Path
from typing import Any, TypeVar

import pytorch_lightning as pl
import torch
from jsonargparse import Namespace
from pytorch_lightning.callbacks import ModelCheckpoint, RichProgressBar, WeightAveraging
from pytorch_lightning.cli import LightningArgumentParser, LightningCLI
from pytorch_lightning.loggers import CSVLogger, TensorBoardLogger
from pytorch_lightning.plugins import CheckpointIO
from pytorch_lightning.utilities import rank_zero_info, rank_zero_only
from pytorch_lightning.utilities.exceptions import MisconfigurationException, SIGTERMException

from vidpool.cli.configs import VideoDataModule, expand_bases, read_surrogates
from vidpool.cli.lightning import (
    NetworkSummary,
    constructor_errors,
    instantiate,
    missing_package,
    silence_noise,
    unknown_monitor,
)
from vidpool.errors import CheckpointError, ConfigError, StoppedError, VidpoolError
from vidpool.files import expand_path, is_utf8
from vidpool.models.weights.loading import load_checkpoint
from vidpool.train.callbacks.last_checkpoint import LastCheckpoint
from vidpool.train.callbacks.requeue import RequeueBetweenBatches
from vidpool.train.checkpoint_io import SafeCheckpointIO, remove_unfinished
from vidpool.train.classifier import ARCHITECTURE, VideoClassifier
from vidpool.train.ranks import end_with_parent, what_was_lost
from vidpool.train.slurm import current_job, keep_metrics, left_behind, sign

CLI = TypeVar("CLI", bound="VidpoolCLI")

DESCRIPTIONS = {
    "fit": "Train a network; --ckpt_path resumes a run.",
    "validate": "Accuracy on the validation videos, one view each.",
    "test": "Accuracy on the test videos, averaged over several views each.",
}


def main(verb: str, arguments: list[str]) -> int:
    """Run one of Lightning's verbs; see :class:`VidpoolCLI`."""
    # distributed training starts its other processes with this command line
    sys.argv = [sys.argv[0], verb, *arguments]
    end_with_parent()
    silence_noise()
    try:
        _make_cli(VidpoolCLI, verb, arguments)
    except MisconfigurationException as error:
        raise ConfigError(f"Lightning cannot run this: {error}") from error
    except SIGTERMException as error:  # before or beside the training itself
        raise StoppedError("stopped by SIGTERM", signal.SIGTERM) from error
    except OSError as error:  # of logs; checkpoints tell it themselves
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        raise VidpoolError(
            f"{error.filename or 'the logs'}: {error.strerror}; what was saved is kept: resume "
            "with --ckpt_path last"
        ) from error
    except RuntimeError as error:
        told = what_was_lost(error) or unknown_monitor(error)
        if told is None:
            raise
        raise VidpoolError(told) from error
    except ImportError as error:  # of callbacks and accelerators, after they were made
        told = missing_package(error)
        if told is None:
            raise
        raise ConfigError(told) from error
    return 0


def parse_fit(arguments: list[str]) -> "ParsedFit":
    """Parse a command line of ``vidpool fit`` without running it."""
    return _make_cli(ParsedFit, "fit", arguments)


def _make_cli(cls: type[CLI], verb: str, arguments: list[str]) -> CLI:
    usage = "vidpool %s [--config FILE]... [--section.option VALUE]..."
    read_surrogates()
    return cls(
        VideoClassifier,
        VideoDataModule,
        subclass_mode_data=True,
        seed_everything_default=1,
        auto_configure_optimizers=False,
        parser_kwargs={
            name: {"usage": usage % name, "description": DESCRIPTIONS[name]}
            for name in cls.subcommands()
        },
        args=[verb, *expand_bases(arguments)],
    )


class VidpoolCLI(LightningCLI):
    """LightningCLI with vidpool's run folders and defaults.

    Logs, checkpoints and the settings that made them go to ``<root>/<name>/<verb>_<n>``, a new
    folder for each run. A job of SLURM that was requeued goes on in its folder, from its newest
    checkpoint.
    """

    folder: Path | None = None
    """That of a run that goes on."""

    @staticmethod
    def subcommands() -> dict[str, set[str]]:
        """Lightning's verbs but ``predict``, which vidpool does in its own way."""
        return {
            "fit": {"model", "train_dataloaders", "val_dataloaders", "datamodule"},
            "validate": {"model", "dataloaders", "datamodule"},
            "test": {"model", "dataloaders", "datamodule"},
        }

    def add_core_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """Lightning's groups of options, but model and data before the trainer's many."""
        parser.add_lightning_class_args(self._model_class, "model")
        parser.add_lightning_class_args(self._datamodule_class, "data", subclass_mode=True)
        parser.add_lightning_class_args(self.trainer_class, "trainer")

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """Name of the run."""
        parser.add_argument("--run.name", default="default", help="Name of the run's folder.")
        parser.add_argument("--run.root", default="runs", help="Where the runs' folders lie.")
        parser.add_argument(
            "--run.save_minutes",
            type=float | None,
            default=15.0,
            help="How often last.ckpt is saved within an epoch; 0 is after every step, null not.",
        )

    def _prepare_subcommand_parser(
        self, klass: type, subcommand: str, **kwargs: Any
    ) -> LightningArgumentParser:
        """Let the number of classes follow from the data; in evaluation from the checkpoint."""
        parser = super()._prepare_subcommand_parser(klass, subcommand, **kwargs)
        if subcommand == "fit":
            parser.link_arguments("data.num_classes", "model.num_classes", apply_on="instantiate")
        return parser

    def parse_arguments(self, parser: LightningArgumentParser, args: Any) -> None:
        """Parse ``args`` without Lightning's warning that ``sys.argv`` says something else."""
        self.config = parser.parse_args(args)
        settings = self.config[self.config["subcommand"]]
        for section, name in ((settings.run, "root"), (settings, "ckpt_path")):
            if section.get(name) is not None:
                section[name] = str(expand_path(section[name]))

    def before_instantiate_classes(self) -> None:
        """Have every class that the settings name report its errors to the user."""
        self.parser.add_instantiator(instantiate, object)

    def _parse_ckpt_path(self) -> None:
        """Decide what a checkpoint's own settings mean.

        Lightning lets them override the command line in silence, so that a resumed run cannot be
        given another learning rate. Here training keeps what the user said, and
        :meth:`VideoClassifier.on_load_checkpoint` refuses another network; validation and testing
        build the checkpoint's network.
        """
        settings = self.config[self.config["subcommand"]]
        if self.config["subcommand"] == "fit":
            left = left_behind(Path(settings["run"]["root"]) / settings["run"]["name"], "fit")
            if left is not None:
                self.folder, settings["ckpt_path"] = left[0], str(left[1])
        path = settings["ckpt_path"] = self._resolve_last(settings)
        if path is None:
            if self.config["subcommand"] != "fit":
                raise CheckpointError("--ckpt_path must name the checkpoint to be evaluated")
            return
        if self.config["subcommand"] == "fit":
            remove_unfinished(path)
        checkpoint = load_checkpoint(path)
        if self.config["subcommand"] == "fit" and "optimizer_states" not in checkpoint:
            raise CheckpointError(
                f"{path}: has no state of a training to go on with; start one from its weights "
                "with --model.init_from instead of --ckpt_path"
            )
        saved = checkpoint.get("hyper_parameters", {})
        if self.config["subcommand"] != "fit":
            for name in set(ARCHITECTURE) & saved.keys():
                settings["model"][name] = saved[name]

    def _resolve_last(self, settings: Namespace) -> str | None:
        """``--ckpt_path last`` is the newest ``last.ckpt`` of the runs of this name, if any."""
        path: str | None = settings.get("ckpt_path")
        if path != "last":
            return path
        runs = Path(settings.run.root) / settings.run.name
        found = max(
            runs.glob("fit_*/checkpoints/last.ckpt"),
            key=lambda file: file.stat().st_mtime_ns,
            default=None,
        )
        rank_zero_info(f"--ckpt_path last: {found or f'no run in {runs} has one yet'}")
        return None if found is None else str(found)

    def instantiate_trainer(self, **kwargs: Any) -> pl.Trainer:
        """A trainer with loggers, checkpoints and progress bar; those of a config come first."""
        trainer = self._get(self.config_init, "trainer")
        _refuse_on_cpu(trainer)
        given = trainer.callbacks or []
        callbacks: list[pl.Callback] = list(given) if isinstance(given, list) else [given]

        def lacks(kind: type[pl.Callback]) -> bool:
            return not any(isinstance(callback, kind) for callback in callbacks)

        if trainer.enable_progress_bar is not False and lacks(pl.callbacks.ProgressBar):
            callbacks.append(RunProgressBar())
        if trainer.enable_model_summary is not False and lacks(pl.callbacks.ModelSummary):
            callbacks.append(NetworkSummary())
        run = self._get(self.config, "run")
        if self.folder is None:
            folder = new_run_folder(Path(run.root) / run.name, str(self.subcommand))
            sign(folder)
        else:
            folder = self.folder
            keep_metrics(folder)
            self.save_config_kwargs["overwrite"] = True
        if self.subcommand == "fit" and current_job() is not None:
            callbacks.append(RequeueBetweenBatches())
        # where reports and the config go without a logger
        trainer.default_root_dir = trainer.default_root_dir or str(folder)
        if trainer.logger is None:
            place = {"save_dir": run.root, "name": run.name, "version": folder.name}
            trainer.logger = [CSVLogger(**place)]
            if is_utf8(folder):
                trainer.logger.insert(0, TensorBoardLogger(**place, default_hp_metric=False))
            else:
                rank_zero_info(
                    f"{folder}: TensorBoard cannot write here, since the name is not UTF-8; "
                    "metrics.csv contains the metrics"
                )
            # the two loggers share it
            warnings.filterwarnings(
                "ignore", "Experiment logs directory .* exists and is not empty"
            )
        goes_on = f"; it goes on from {self.config_init[self.subcommand].ckpt_path}"
        rank_zero_info(f"this run's folder: {folder}{goes_on if self.folder else ''}")
        if self.subcommand != "fit":
            # callbacks that only training needs
            warnings.filterwarnings("ignore", "Be aware that when using `ckpt_path`, callbacks")
            warnings.filterwarnings("ignore", "You're using the WeightAveraging callback, but load")
        # each run has its own folder, where the best is the best from there on
        warnings.filterwarnings("ignore", "The dirpath has changed from")
        if self.subcommand == "fit" and trainer.enable_checkpointing is not False:
            own = [each for each in callbacks if isinstance(each, ModelCheckpoint)]
            validates = trainer.limit_val_batches != 0  # without it there is no best one
            if validates and all(isinstance(each, LastCheckpoint) for each in own):
                callbacks.append(
                    ModelCheckpoint(
                        filename="best",
                        monitor="val/top1",
                        mode="max",
                        enable_version_counter=False,
                    )
                )
            if lacks(LastCheckpoint):
                callbacks.append(LastCheckpoint(run.save_minutes))
            trainer.plugins = _with_safe_checkpoints(trainer.plugins)
        # precise batch norm needs the averaged weights in their place
        callbacks.sort(key=lambda each: not isinstance(each, WeightAveraging))
        trainer.callbacks = callbacks
        with constructor_errors("Lightning cannot run this"):
            return super().instantiate_trainer(**kwargs)


class ParsedFit(VidpoolCLI):
    """What a command line of ``vidpool fit`` amounts to; nothing is run."""

    @staticmethod
    def subcommands() -> dict[str, set[str]]:
        """No other verb, so that parsing is quick."""
        return {"fit": VidpoolCLI.subcommands()["fit"]}

    @property
    def settings(self) -> dict[str, Any]:
        """All settings, by section."""
        return self.config["fit"].as_dict()

    def datamodule(self) -> VideoDataModule:
        """The datamodule that the settings describe."""
        parser = LightningArgumentParser()
        parser.add_lightning_class_args(VideoDataModule, "data", subclass_mode=True)
        return parser.instantiate_classes(Namespace(data=self.config["fit"]["data"])).data

    def _set_seed(self) -> None:
        """Not needed."""

    def instantiate_classes(self) -> None:
        """Nothing is made."""

    def _run_subcommand(self, subcommand: str) -> None:
        """Nothing is run."""


class RunProgressBar(RichProgressBar):
    """Lightning's rich bar without the run's number, of which it shows the last letters."""

    def __init__(self) -> None:
        # rich would wrap the bar at 80 columns in a pipe or file
        super().__init__(console_kwargs={} if sys.stdout.isatty() else {"width": 120})

    def get_metrics(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule
    ) -> dict[str, int | str | float | dict[str, float]]:
        """What stands at the end of the bar."""
        metrics = super().get_metrics(trainer, pl_module)
        metrics.pop("v_num", None)
        return metrics


@rank_zero_only
def _make(folder: Path) -> None:
    folder.mkdir(parents=True)


def new_run_folder(parent: Path, verb: str) -> Path:
    """Make ``parent/verb_0``, or the first of ``verb_1``, … that does not exist.

    Raises:
        ConfigError: The folder cannot be made.
    """
    number = 0
    try:
        while True:
            folder = parent / f"{verb}_{number}"
            if not folder.exists():
                with suppress(FileExistsError):  # another run was faster
                    _make(folder)
                    return folder
            number += 1
    except OSError as error:
        raise ConfigError(
            f"{parent}: the run's folder cannot be made here ({error.strerror}); set run.root to a "
            "folder that can be written to"
        ) from error


def _with_safe_checkpoints(plugins: Any) -> list[Any]:
    """Add vidpool's way of writing checkpoints, unless the plugins bring their own."""
    given = plugins or []
    plugins = list(given) if isinstance(given, list) else [given]
    if not any(isinstance(plugin, CheckpointIO) for plugin in plugins):
        plugins.append(SafeCheckpointIO())
    return plugins


def _refuse_on_cpu(trainer: Any) -> None:
    """Refuse what needs a GPU, where Lightning would do something else or fail in the first step.

    Raises:
        ConfigError: float16 or synchronised batch norm was asked for on a CPU.
    """
    on_cpu = trainer.accelerator == "cpu" or (
        trainer.accelerator == "auto"
        and not torch.cuda.is_available()
        and not torch.backends.mps.is_available()
    )
    if on_cpu and str(trainer.precision) in ("16", "16-mixed", "16-true"):
        raise ConfigError(
            f"trainer.precision {trainer.precision} does not exist on a CPU; use bf16-mixed or "
            "32-true"
        )
    if on_cpu and trainer.sync_batchnorm:
        raise ConfigError("trainer.sync_batchnorm needs GPUs: PyTorch has none for CPUs")
