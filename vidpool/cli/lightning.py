"""Errors of Lightning and PyTorch, in words that a user can act on."""

import errno
import re
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from pytorch_lightning.utilities.exceptions import MisconfigurationException, SIGTERMException
from torch.distributed import DistError

from vidpool.errors import ConfigError, StoppedError, VidpoolError


@contextmanager
def user_errors() -> Iterator[None]:
    """Turn errors of a run into errors for the user, where the message says what to do.

    Raises:
        ConfigError: Lightning refuses the settings, or a package is missing.
        StoppedError: The run got SIGTERM.
        VidpoolError: The disk is full, another process failed, or a monitored metric is not logged.
    """
    try:
        yield
    except MisconfigurationException as error:
        raise ConfigError(f"Lightning cannot run this: {error}") from error
    except SIGTERMException as error:  # before or after the training itself
        raise StoppedError("stopped by SIGTERM", signal.SIGTERM) from error
    except OSError as error:  # of logs; checkpoints raise CheckpointError
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        raise VidpoolError(
            f"{error.filename or 'the logs'}: {error.strerror}; what was saved is kept: resume "
            "with --ckpt_path last"
        ) from error
    except RuntimeError as error:
        message = peer_failure_message(error) or unknown_monitor(error)
        if message is None:
            raise
        raise VidpoolError(message) from error
    except ImportError as error:  # of callbacks and accelerators, after they were made
        message = missing_package(error)
        if message is None:
            raise
        raise ConfigError(message) from error


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


def peer_failure_message(error: BaseException) -> str | None:
    """Return a line about the failure of another process of the training; None for other errors."""
    text = str(error)
    # PyTorch has no type of its own for errors of gloo, which connects CPUs
    if not isinstance(error, DistError) and "gloo" not in text.lower():
        return None
    # without the place in gloo's source, and without its advice
    reason = re.sub(r"^\[\S*\]\s*", "", text.strip()).partition("\n")[0].split(". ")[0]
    return (
        f"another process of this training ended, or does not answer ({reason}); resume from its "
        "last checkpoint, --ckpt_path last"
    )


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split()) or type(error).__name__
