"""Checkpoints are written atomically."""

import io
import os
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any

import torch
from lightning_fabric.plugins.io.torch_io import TorchCheckpointIO
from lightning_fabric.utilities.cloud_io import _is_local_file_protocol

from vidpool.errors import CheckpointError
from vidpool.files import atomic_write, unfinished_path

if sys.platform != "win32":
    import fcntl


class SafeCheckpointIO(TorchCheckpointIO):
    """Writes checkpoints atomically: a crash leaves either the old or the new checkpoint.

    The file is flushed to disk before it replaces the old one. Lightning's own plugin writes to the
    system's temporary folder, which may be another disk, and copies from there.

    The next save of the same checkpoint, or :func:`remove_unfinished`, removes what a killed
    process left unfinished. Lightning writes to remote places (``s3://…``).
    """

    def save_checkpoint(
        self, checkpoint: dict[str, Any], path: str | os.PathLike[str], storage_options: Any = None
    ) -> None:
        """Write a checkpoint.

        Args:
            checkpoint: The values to save.
            path: The file; an existing one is replaced.
            storage_options: Not used, and an error, as in Lightning.

        Raises:
            CheckpointError: The disk is full, or the file cannot be written for another reason; an
                existing checkpoint is kept.
        """
        if storage_options is not None or not _is_local_file_protocol(path):  # type: ignore[arg-type]
            super().save_checkpoint(checkpoint, path, storage_options)  # type: ignore[arg-type]
            return
        serialised = io.BytesIO()
        torch.save(checkpoint, serialised)
        write_checkpoint(Path(path), serialised.getbuffer())


def write_checkpoint(path: Path, content: memoryview) -> None:
    """Write the bytes of a checkpoint atomically, and flush them to disk.

    Raises:
        CheckpointError: The file cannot be written; an existing one is kept.
    """
    unfinished = unfinished_path(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with _locked(unfinished), atomic_write(path, fsync=True) as file:
            file.write_bytes(content)
    except OSError as error:
        kept = "; the one that was there is kept" if path.is_file() else ""
        raise CheckpointError(
            f"{path}: the checkpoint cannot be written: {error.strerror or error} (it takes "
            f"{_megabytes(content.nbytes)}, {_free(path.parent)} are free){kept}"
        ) from error


def remove_unfinished(path: str | os.PathLike[str]) -> None:
    """Remove a checkpoint that a killed process left unfinished, unless a process is writing it."""
    unfinished = unfinished_path(Path(path))
    # an error says that there is none, or that it is not ours to remove
    with suppress(OSError):
        with unfinished.open("rb") as file:
            _lock(file)
        unfinished.unlink()


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Make a file and lock it for this process, until it has its final name.

    Windows needs no lock: it does not remove open files.
    """
    if sys.platform == "win32":
        yield
        return
    with path.open("ab") as file:
        with suppress(OSError):  # some network file systems have no locks
            _lock(file)
        yield


def _lock(file: IO[bytes]) -> None:
    """Lock a file for this process.

    Raises:
        OSError: Another process has locked it.
    """
    if sys.platform != "win32":
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)


def _megabytes(count: int) -> str:
    return f"{count / 1e6:.1f} MB"


def _free(folder: Path) -> str:
    while not folder.exists():
        folder = folder.parent
    return _megabytes(shutil.disk_usage(folder).free)
