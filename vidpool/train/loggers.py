"""Loggers that write to the folder of a trainer's current run."""

import warnings
from pathlib import Path
from typing import Any

from pytorch_lightning.loggers import CSVLogger, Logger, TensorBoardLogger
from pytorch_lightning.utilities import rank_zero_info

from vidpool.errors import ConfigError
from vidpool.files import is_utf8
from vidpool.train.run_folder import RunFolder


class RunLogger(Logger):
    """A logger that writes to the folder of a trainer's current run.

    Args:
        run_folder: The folder of the trainer's runs.
    """

    def __init__(self, run_folder: RunFolder, **options: Any) -> None:
        super().__init__(run_folder.root, run_folder.name, "", **options)  # type: ignore[call-arg]
        self._run_folder = run_folder

    @property
    def version(self) -> str:
        """The name of the run's folder; empty before the first run."""
        return "" if self._run_folder.path is None else self._run_folder.path.name

    @property
    def root_dir(self) -> str:
        """The folder of the folders of runs."""
        return str(Path(self.log_dir).parent)

    @property
    def log_dir(self) -> str:
        """The run's folder.

        Raises:
            ConfigError: No run has begun.
        """
        if self._run_folder.path is None:
            raise ConfigError(
                f"{self._run_folder.runs}: a run's folder is made when fit, validate, test or "
                "predict begins, so the logger cannot write yet"
            )
        return str(self._run_folder.path)

    def for_next_run(self) -> "RunLogger":
        """Return a logger for a run that begins: this one, unless it has been used."""
        used = self._experiment is not None  # type: ignore[attr-defined]
        return type(self)(self._run_folder) if used else self


class RunTensorBoardLogger(RunLogger, TensorBoardLogger):
    """Logs to TensorBoard, in the folder of the current run."""

    def __init__(self, run_folder: RunFolder) -> None:
        super().__init__(run_folder, default_hp_metric=False)


class RunCSVLogger(RunLogger, CSVLogger):
    """Logs to ``metrics.csv``, in the folder of the current run."""


def default_loggers(run_folder: RunFolder) -> list[Logger]:
    """Return loggers for TensorBoard and ``metrics.csv``, both in the folder of the current run.

    A folder whose name is not UTF-8 gets ``metrics.csv`` alone, with a message.
    """
    # the two loggers share it
    warnings.filterwarnings("ignore", "Experiment logs directory .* exists and is not empty")
    if is_utf8(run_folder.runs):
        return [RunTensorBoardLogger(run_folder), RunCSVLogger(run_folder)]
    rank_zero_info(
        f"{run_folder.runs}: TensorBoard cannot write here, since the name is not UTF-8; "
        "metrics.csv contains the metrics"
    )
    return [RunCSVLogger(run_folder)]
