"""Folders of runs: made, found to resume, and kept for SLURM jobs that are requeued."""

import os
from contextlib import suppress
from pathlib import Path

from pytorch_lightning.utilities import rank_zero_only

from vidpool.errors import ConfigError

JOB_FILE = "slurm_job"
"""File in a run's folder that names the SLURM job which made it."""


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
        if _is_marked(folder, job)
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


@rank_zero_only
def _make(folder: Path) -> None:
    folder.mkdir(parents=True)


def _is_marked(folder: Path, job: str) -> bool:
    try:
        return (folder / JOB_FILE).read_text(encoding="utf-8") == job
    except OSError:
        return False
