"""Lightning's errors and messages, in words that a user can act on."""

import logging
import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytorch_lightning as pl
from pytorch_lightning.callbacks import ModelSummary
from pytorch_lightning.utilities import rank_zero_info

from vidpool.errors import ConfigError, VidpoolError

# Beginnings of messages that advertise packages, or tell what the user did not choose.
_NOISE = (
    "💡 Tip:",
    "TPU available: False",
    "Trainer already configured with model summary callbacks",
    "Restoring states from the checkpoint path",  # the line after it names the checkpoint again
)


def instantiate(class_type: type, *args: Any, **kwargs: Any) -> Any:
    """Make an object that the settings name, such as a logger or a callback.

    Raises:
        ConfigError: The class is not vidpool's, and refuses its arguments or lacks a package.
    """
    if class_type.__module__.partition(".")[0] == "vidpool":
        return class_type(*args, **kwargs)
    with constructor_errors(class_type.__name__):
        return class_type(*args, **kwargs)


@contextmanager
def constructor_errors(subject: str) -> Iterator[None]:
    """Turn the errors of a constructor that is not vidpool's into errors for the user.

    Args:
        subject: What the message begins with, such as the name of the class.

    Raises:
        ConfigError: The constructor raised; the message gives the reason.
    """
    try:
        yield
    except VidpoolError:
        raise
    except Exception as error:
        raise ConfigError(f"{subject}: {missing_package(error) or _one_line(error)}") from error


def missing_package(error: BaseException) -> str | None:
    """Return a line that names the missing package and how to install it.

    Args:
        error: What was raised.

    Returns:
        None if the error does not tell of a package that can be installed.
    """
    if not isinstance(error, ImportError):
        return None
    text = _one_line(error)
    # Lightning checks for its optional packages, and its messages end with the command
    command = re.search(r"pip install (?:-U )?('[^']+'|[^\s`]+)", text)
    if command is not None:
        reason = re.split(r"\s*HINT:|\s*Install it by", text)[0].rstrip(". ")
        return f"{reason}; install it with: pip install {command[1]}"
    if error.name is None or error.name.partition(".")[0] == "vidpool":
        return None
    if not isinstance(error, ModuleNotFoundError):
        return None
    package = error.name.partition(".")[0]
    return f"the package {package} is not installed; install it with: pip install {package}"


def unknown_monitor(error: RuntimeError) -> str | None:
    """Return a line about a metric that `EarlyStopping` did not find; None for other errors."""
    # Lightning has no error class of its own for this
    if not str(error).startswith("Early stopping conditioned on metric"):
        return None
    return _one_line(error)


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split()) or type(error).__name__


class NetworkSummary(ModelSummary):
    """Print the size of the network in one line.

    Lightning's table has a row for each metric, and FLOPs that are 0 because it does not run the
    network.
    """

    def on_fit_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:  # noqa: ARG002
        """Print the line."""
        sizes = [(p.numel(), p.requires_grad) for p in pl_module.parameters()]
        total = sum(size for size, _ in sizes)
        trained = sum(size for size, trains in sizes if trains)
        share = "all trained" if trained == total else f"{_millions(trained)} of them trained"
        name = pl_module.hparams.get("backbone", type(pl_module).__name__)
        rank_zero_info(f"network: {name}, {_millions(total)} parameters, {share}")


def _millions(count: int) -> str:
    return f"{count / 1e6:.3g} million" if count >= 1e5 else f"{count:,}"


def silence_noise() -> None:
    """Hide messages of Lightning that say nothing about the user's training."""
    # Lightning and PyTorch disagree here; there is nothing that a user could change
    warnings.filterwarnings(
        "ignore", r"`isinstance\(treespec, LeafSpec\)`", module="pytorch_lightning.utilities"
    )
    logger = logging.getLogger("pytorch_lightning.utilities.rank_zero")
    if _says_something not in logger.filters:
        logger.addFilter(_says_something)


def _says_something(record: logging.LogRecord) -> bool:
    return not record.getMessage().removeprefix("[rank: 0] ").startswith(_NOISE)
