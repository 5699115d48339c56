"""Jobs of SLURM that were requeued: each goes on in the folder of its run."""

import os
from pathlib import Path

from pytorch_lightning.utilities import rank_zero_only

JOB_FILE = "slurm_job"  # in a run's folder: which job made it


def current_job() -> str | None:
    """The cluster's, the job's and the step's name, or None where ``srun`` did not start this.

    A job that is requeued keeps its number, and its steps are counted from 0 again.
    """
    names = ("SLURM_CLUSTER_NAME", "SLURM_JOB_ID", "SLURM_STEP_ID")
    cluster, job, step = (os.environ.get(name, "") for name in names)
    return f"{cluster} {job}.{step}\n" if job and step else None


@rank_zero_only
def sign(folder: Path) -> None:
    """Note in a run's new folder which job made it."""
    job = current_job()
    if job is not None:
        (folder / JOB_FILE).write_text(job, encoding="utf-8")


def left_behind(parent: Path, verb: str) -> tuple[Path, Path] | None:
    """What this job left before it was requeued.

    Args:
        parent: Where the runs' folders lie.
        verb: What their names begin with.

    Returns:
        The run's folder and its newest checkpoint: Lightning's ``hpc_ckpt_<n>.ckpt`` of when the
        time was up, or ``last.ckpt`` where a machine failed. None if there is no checkpoint.
    """
    job = current_job()
    if job is None:
        return None
    found = [
        (folder, checkpoint)
        for folder in parent.glob(f"{verb}_*")
        if _made_by(job, folder)
        for pattern in ("hpc_ckpt_*.ckpt", "checkpoints/last.ckpt")
        for checkpoint in folder.glob(pattern)
    ]
    return max(found, key=lambda pair: pair[1].stat().st_mtime, default=None)


@rank_zero_only
def keep_metrics(folder: Path) -> None:
    """Rename ``metrics.csv``, which the logger of a run that goes on would delete."""
    metrics = folder / "metrics.csv"
    if not metrics.exists():
        return
    number = 1
    while (kept := folder / f"metrics_{number}.csv").exists():
        number += 1
    metrics.rename(kept)


def _made_by(job: str, folder: Path) -> bool:
    try:
        return (folder / JOB_FILE).read_text(encoding="utf-8") == job
    except OSError:
        return False
