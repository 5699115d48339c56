"""The folder of a run, and atomic checkpoints.

A run is one call of ``fit``, ``validate``, ``test`` or ``predict``. Its folder is made when it
begins. SLURM jobs that are requeued continue in their folder.
"""

import io
import os
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any

import pytorch_lightning as pl
import torch
from lightning_fabric.plugins.io.torch_io import TorchCheckpointIO
from lightning_fabric.utilities.cloud_io import _is_local_file_protocol
from pytorch_lightning.callbacks import ModelCheckpoint
from pytorch_lightning.utilities import rank_zero_info, rank_zero_only

from vidpool.errors import CheckpointError, ConfigError
from vidpool.files import atomic_write, expand_path, unfinished_path

if sys.platform != "win32":
    import fcntl

JOB_FILE = "slurm_job"
"""File in a run's folder that names the SLURM job which made it."""

_BEGUN: set[Path] = set()
"""Folders of the runs that this process began: they are not those of a requeued job."""


class RunFolder(pl.Callback):
    """The folder of a trainer's current run: ``root/name/<verb>_<n>``.

    Checkpoints, reports and settings lie in it, whichever loggers are used. Rank 0 makes it when a
    run begins, and hands it to the other ranks in ``setup``.

    Args:
        root: Folder of all runs; ``~`` and environment variables are expanded. Defaults to
            ``runs``.
        name: Name of this and similar runs; ``last`` finds the latest checkpoint of a name.
            Defaults to ``default``.

    Raises:
        ConfigError: An environment variable in `root` is not set.

    Attributes:
        root: Folder of all runs.
        name: Name of the runs.
        path: Folder of the current run; None before the first one begins.
    """

    def __init__(self, root: str | os.PathLike[str] = "runs", name: str = "default") -> None:
        self.root = expand_path(root)
        self.name = name
        self.path: Path | None = None
        self._placed: list[ModelCheckpoint] = []

    @property
    def runs(self) -> Path:
        """The folder ``root/name``, which holds the folders of all runs of this name."""
        return self.root / self.name

    def begin(self, verb: str, is_rank_zero: bool = True) -> Path | None:
        """Begin a run: make its folder, or find that of the requeued SLURM job to continue.

        Args:
            verb: ``fit``, ``validate``, ``test`` or ``predict``.
            is_rank_zero: This process is the first of the run. The others wait for ``setup``.

        Returns:
            The checkpoint from which the requeued job resumes; None if a new run begins.

        Raises:
            ConfigError: The folder cannot be made.
        """
        requeued = find_requeued_run(self.runs, verb) if verb == "fit" else None
        self.path = None
        if requeued is not None:
            self.path = requeued[0]
            if is_rank_zero:
                keep_metrics(self.path)
        elif is_rank_zero:
            self.path = new_run_folder(self.runs, verb)
            mark_run(self.path)
        if self.path is not None:
            _BEGUN.add(self.path.absolute())
            resumes = "" if requeued is None else f"; it resumes from {requeued[1]}"
            rank_zero_info(f"this run's folder: {self.path}{resumes}")
        return None if requeued is None else requeued[1]

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:  # noqa: ARG002
        """Tell all ranks the folder; put the checkpoints of callbacks without ``dirpath`` there."""
        self.path = Path(trainer.strategy.broadcast(str(self.path)))
        _BEGUN.add(self.path.absolute())
        for callback in trainer.callbacks:  # type: ignore[attr-defined]
            if isinstance(callback, ModelCheckpoint):
                self._place_checkpoints(callback, training=stage == "fit")

    def _place_checkpoints(self, callback: ModelCheckpoint, training: bool) -> None:
        """Set the folder of a callback that was given none.

        Evaluation keeps the folder of the run before, whose checkpoints it may evaluate.
        """
        assert self.path is not None
        folder = str(self.path / "checkpoints")
        if callback.dirpath is None:
            self._placed.append(callback)
        elif not training or callback.dirpath == folder or callback not in self._placed:
            return
        else:  # the checkpoints of the run before do not compete with those of this run
            callback.best_k_models = {}
            callback.best_model_path = callback.kth_best_model_path = callback.last_model_path = ""
            callback.best_model_score = None
        callback.dirpath = folder


def run_folder(trainer: pl.Trainer) -> Path:
    """Return the folder for the files of a trainer's current run.

    That is the run's folder if :func:`vidpool.train.make_trainer` made the trainer, otherwise
    Lightning's ``log_dir`` or ``default_root_dir``.

    This is a collective operation: every rank has to call it.
    """
    return Path(trainer.log_dir or trainer.default_root_dir)


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
                    _make_folder(folder)
                    return folder
            number += 1
    except OSError as error:
        raise ConfigError(
            f"{parent}: the run's folder cannot be made here ({error.strerror}); set the "
            "root of the runs to a folder that can be written to",
            argument="root",
        ) from error


def find_last_checkpoint(parent: Path) -> Path | None:
    """Return the latest ``last.ckpt`` of the trainings in a folder; None if there is none.

    Args:
        parent: Folder of the runs' folders.
    """
    return max(
        parent.glob("fit_*/checkpoints/last.ckpt"),
        key=lambda file: file.stat().st_mtime_ns,
        default=None,
    )


def current_job() -> str | None:
    """Return the names of the cluster, job and step; None if ``srun`` did not start this process.

    A requeued job keeps its number, and its steps are counted from 0 again.
    """
    names = ("SLURM_CLUSTER_NAME", "SLURM_JOB_ID", "SLURM_STEP_ID")
    cluster, job, step = (os.environ.get(name, "") for name in names)
    return f"{cluster} {job}.{step}\n" if job and step else None


@rank_zero_only
def mark_run(folder: Path) -> None:
    """Write the current SLURM job, if any, to a run's new folder."""
    job = current_job()
    if job is not None:
        (folder / JOB_FILE).write_text(job, encoding="utf-8")


def find_requeued_run(parent: Path, verb: str) -> tuple[Path, Path] | None:
    """Return the run that the current SLURM job made before it was requeued.

    Args:
        parent: Folder of the runs' folders.
        verb: Beginning of the folders' names.

    Returns:
        The run's folder and its latest checkpoint, or None if there is no checkpoint. Lightning
        writes ``hpc_ckpt_<n>.ckpt`` when the job's time is up; ``last.ckpt`` is left if a machine
        failed.
    """
    job = current_job()
    if job is None:
        return None
    found = [
        (folder, checkpoint)
        for folder in parent.glob(f"{verb}_*")
        if folder.absolute() not in _BEGUN and _is_marked(folder, job)
        for pattern in ("hpc_ckpt_*.ckpt", "checkpoints/last.ckpt")
        for checkpoint in folder.glob(pattern)
    ]
    return max(found, key=lambda pair: pair[1].stat().st_mtime, default=None)


@rank_zero_only
def keep_metrics(folder: Path) -> None:
    """Rename ``metrics.csv``, which the logger of a resumed run would delete."""
    metrics = folder / "metrics.csv"
    if not metrics.exists():
        return
    number = 1
    while (kept := folder / f"metrics_{number}.csv").exists():
        number += 1
    metrics.rename(kept)


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


@rank_zero_only
def _make_folder(folder: Path) -> None:
    folder.mkdir(parents=True)


def _is_marked(folder: Path, job: str) -> bool:
    try:
        return (folder / JOB_FILE).read_text(encoding="utf-8") == job
    except OSError:
        return False


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
