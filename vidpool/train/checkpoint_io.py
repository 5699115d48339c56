"""How checkpoints are written: whole, or not at all."""

import io
import os
import shutil
import sys
from contextlib import suppress
from pathlib import Path
from typing import IO, Any

import torch
from lightning_fabric.plugins.io.torch_io import TorchCheckpointIO
from lightning_fabric.utilities.cloud_io import _is_local_file_protocol

from vidpool.errors import CheckpointError

if sys.platform != "win32":
    import fcntl


class SafeCheckpointIO(TorchCheckpointIO):
    """Writes each checkpoint beside its place, on disk to the last byte, and renames it.

    Whatever ends the process, and whenever, a checkpoint is the old one or the new one. Lightning
    writes into the system's temporary folder, which may be another disk, and copies from there.

    What a killed process left unfinished is removed by the next save in its place and by
    :func:`remove_unfinished`. Remote places (``s3://…``) are left to Lightning.
    """

    def save_checkpoint(
        self, checkpoint: dict[str, Any], path: str | os.PathLike[str], storage_options: Any = None
    ) -> None:
        """Write a checkpoint.

        Args:
            checkpoint: What is saved.
            path: The file; one that is there is replaced.
            storage_options: Not used, and an error, as in Lightning.

        Raises:
            CheckpointError: The disk is full, or the file cannot be written for another reason; a
                checkpoint that was there still is.
        """
        if storage_options is not None or not _is_local_file_protocol(path):  # type: ignore[arg-type]
            super().save_checkpoint(checkpoint, path, storage_options)  # type: ignore[arg-type]
            return
        serialised = io.BytesIO()
        torch.save(checkpoint, serialised)
        write_whole(Path(path), serialised.getbuffer())


def write_whole(path: Path, content: memoryview) -> None:
    """Write a file so that at every moment it is the old one or the new one.

    Raises:
        CheckpointError: It cannot be written; the file that was there still is.
    """
    unfinished = _unfinished(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            with unfinished.open("wb") as file:
                with suppress(OSError):  # some network file systems have no locks
                    _lock(file)
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            unfinished.replace(path)
        finally:
            unfinished.unlink(missing_ok=True)
        _sync_folder(path.parent)
    except OSError as error:
        kept = "; the one that was there is kept" if path.is_file() else ""
        raise CheckpointError(
            f"{path}: the checkpoint cannot be written: {error.strerror or error} (it takes "
            f"{_megabytes(content.nbytes)}, {_free(path.parent)} are free){kept}"
        ) from error


def remove_unfinished(path: str | os.PathLike[str]) -> None:
    """Remove what a killed process left of writing a checkpoint, unless one is writing it now."""
    unfinished = _unfinished(Path(path))
    # an error says that there is none, or that it is not ours to remove
    with suppress(OSError):
        with unfinished.open("rb") as file:
            _lock(file)
        unfinished.unlink()


def _unfinished(path: Path) -> Path:
    return path.with_name(f".{path.name}.unfinished")


def _lock(file: IO[bytes]) -> None:
    """Take a file for this process; an OSError says that another has it.

    Windows needs no lock: it does not remove files that are open.
    """
    if sys.platform != "win32":
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)


def _sync_folder(folder: Path) -> None:
    """Have the new name on disk too, where the system can."""
    if sys.platform == "win32":
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _megabytes(count: int) -> str:
    return f"{count / 1e6:.1f} MB"


def _free(folder: Path) -> str:
    while not folder.exists():
        folder = folder.parent
    return _megabytes(shutil.disk_usage(folder).free)
