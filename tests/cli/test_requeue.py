"""A job of SLURM whose time is up, without SLURM: its variables, its signal, its commands."""

import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
import yaml
from forked import FORK, redirect_output
from tables import read_csv

from vidpool.cli import main
from vidpool.train.run_folder import find_requeued_run, keep_metrics, mark_run

TOOLS = Path(__file__).parents[2] / "tools"
CONFIGS = Path(__file__).parents[2] / "configs"
STEPS = 30  # of an epoch; the processes ask each other every ten
FOREVER = 180  # seconds that something may take on a busy machine


@pytest.fixture
def long(recipe, tmp_path):
    """A recipe whose epochs are long enough to be interrupted."""
    config = yaml.safe_load(recipe.read_text())
    root = Path(config["data"]["init_args"]["root"])
    lists = tmp_path / "lists"
    lists.mkdir()
    for file in (root / "ucfTrainTestlist").iterdir():
        text = file.read_text()
        (lists / file.name).write_text(text * 20 if file.name.startswith("train") else text)
    config["data"]["init_args"] |= {"lists": str(lists), "frames": 2, "num_workers": 1}
    config["trainer"] |= {"max_epochs": 2, "limit_train_batches": STEPS}
    config["trainer"] |= {"strategy": "ddp", "plugins": _slurm_plugins()}
    path = tmp_path / "long.yaml"
    path.write_text(yaml.safe_dump(config))
    return path


def _slurm_plugins():
    return yaml.safe_load((CONFIGS / "trainer/slurm.yaml").read_text())["trainer"]["plugins"]


def _job(config, processes, number, *options):
    """Start the processes of a job as srun would; they are a process group of forks."""
    with socket.socket() as free:
        free.bind(("", 0))
        port = free.getsockname()[1]
    variables = {
        "SLURM_JOB_ID": str(number),
        "SLURM_STEP_ID": "0",
        "SLURM_JOB_NAME": "vidpool",
        "SLURM_NTASKS": str(processes),
        "SLURM_NTASKS_PER_NODE": str(processes),
        "SLURM_NNODES": "1",
        "SLURM_NODEID": "0",
        "SLURM_NODELIST": "localhost",
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
        "OMP_NUM_THREADS": "1",
        "PATH": f"{Path('bin').absolute()}:{os.environ['PATH']}",
    }
    command = ["fit", "--config", str(config), "--trainer.devices", str(processes), *options]
    group = 0
    job = []
    for rank in range(processes):
        place = {"SLURM_PROCID": str(rank), "SLURM_LOCALID": str(rank)}
        arguments = (command, variables | place, f"rank{rank}.log", group)
        process = FORK.Process(target=_run_rank, args=arguments)
        process.start()
        group = group or process.pid
        job.append(process)
    return job


def _run_rank(command, variables, log, group):
    os.setpgid(0, group)
    for name in ("LOCAL_RANK", "NODE_RANK", "PL_GLOBAL_SEED"):
        os.environ.pop(name, None)
    os.environ.update(variables)
    redirect_output(log)
    sys.path.insert(0, str(Path.cwd()))  # as `python -m vidpool` has it
    sys.exit(main(command))


def _wait_for(path, job):
    end = time.monotonic() + FOREVER
    while not path.exists():
        assert all(process.is_alive() for process in job), Path("rank0.log").read_text()
        assert time.monotonic() < end, f"no {path}: {Path('rank0.log').read_text()}"
        time.sleep(0.05)


def _finish(job):
    for process in job:
        process.join(FOREVER)
        assert process.exitcode == 0, Path("rank0.log").read_text()


def _kill(job):
    os.killpg(job[0].pid, signal.SIGKILL)
    for process in job:
        process.join(FOREVER)


def _fake_scontrol():
    script = Path("bin/scontrol")
    script.parent.mkdir()
    script.write_text('#!/bin/sh\necho "$@" >> scontrol.log\n')
    script.chmod(0o755)


@pytest.mark.parametrize("processes", [1, pytest.param(2, marks=pytest.mark.slow)])
def test_a_requeued_job_goes_on_in_its_folder(long, processes):
    _fake_scontrol()
    folder = Path("runs/tiny/fit_0")
    job = _job(long, processes, 4711)
    try:
        _wait_for(folder / "checkpoints/last.ckpt", job)  # so the first epoch is over
        # SLURM signals all processes of a step, those of the loaders too
        os.killpg(job[0].pid, signal.SIGUSR1)
        _wait_for(Path("scontrol.log"), job)
    finally:
        _kill(job)
    # once, by one process
    assert Path("scontrol.log").read_text() == "requeue 4711\n"
    stopped = torch.load(folder / "hpc_ckpt_1.ckpt", weights_only=True)
    assert STEPS < stopped["global_step"] < 2 * STEPS

    _finish(_job(long, processes, 4711))
    assert sorted(path.name for path in Path("runs/tiny").iterdir()) == ["fit_0"]
    assert "fit_0; it resumes from runs/tiny/fit_0/hpc_ckpt_1.ckpt" in Path("rank0.log").read_text()
    _finish(_job(long, processes, 4712, "--run.name", "whole"))
    whole, resumed = (
        torch.load(f"runs/{name}/fit_0/checkpoints/last.ckpt", weights_only=True)
        for name in ("whole", "tiny")
    )
    assert whole["global_step"] == resumed["global_step"] == 2 * STEPS
    for key, value in whole["state_dict"].items():
        if processes == 1 or "running" not in key:
            assert torch.equal(value, resumed["state_dict"][key]), key
    # what was logged before is kept
    before, after = (
        [int(row["step"]) for row in read_csv(folder / name) if row["train/loss_step"]]
        for name in ("metrics_1.csv", "metrics.csv")
    )
    assert before[0] == 0
    assert after == list(range(stopped["global_step"], 2 * STEPS))
    # but for the row of the step at which the checkpoint was saved
    assert before[-1] >= after[0] - 2


@pytest.mark.slow
def test_a_signal_during_validation(long):
    _fake_scontrol()
    # 12 videos, one by one: two occasions to ask
    options = ["--data.eval_batch_size", "1", "--trainer.max_epochs", "1"]
    options += ["--trainer.limit_train_batches", "3"]
    config = yaml.safe_load(long.read_text())
    callback = {"class_path": "signalled.DuringValidation"}
    config["trainer"]["callbacks"] = [callback]
    signalled = Path("signalled.yaml")
    signalled.write_text(yaml.safe_dump(config))
    Path("signalled.py").write_text(
        "import os, signal\n"
        "from pytorch_lightning import Callback\n"
        "class DuringValidation(Callback):\n"
        "    def on_validation_batch_start(self, trainer, *_):\n"
        "        if not trainer.sanity_checking:\n"
        "            os.kill(os.getpid(), signal.SIGUSR1)\n"
    )
    _finish(_job(signalled, 1, 4711, *options))
    requeued = Path("scontrol.log").read_text().splitlines()
    assert requeued == ["requeue 4711"] * 2
    saved = torch.load("runs/tiny/fit_0/hpc_ckpt_1.ckpt", weights_only=True)
    assert saved["global_step"] == 3
    Path("runs/tiny/fit_0/checkpoints/last.ckpt").unlink()
    # and goes on from there to the end of training
    _finish(_job(long, 1, 4711, *options))
    resumed = torch.load("runs/tiny/fit_0/checkpoints/last.ckpt", weights_only=True)
    assert resumed["global_step"] == 3


def test_the_newest_checkpoint_of_this_job_counts(tmp_path, monkeypatch):
    monkeypatch.setenv("SLURM_CLUSTER_NAME", "cluster")
    monkeypatch.setenv("SLURM_JOB_ID", "1")
    monkeypatch.setenv("SLURM_STEP_ID", "0")

    def left(number, job, *checkpoints):
        folder = tmp_path / f"fit_{number}"
        (folder / "checkpoints").mkdir(parents=True)
        monkeypatch.setenv("SLURM_JOB_ID", job)
        mark_run(folder)
        monkeypatch.setenv("SLURM_JOB_ID", "1")
        for name, age in checkpoints:
            (folder / name).touch()
            os.utime(folder / name, (0, 1000 - age))
        return folder

    assert find_requeued_run(tmp_path / "none", "fit") is None
    left(0, "2", ("hpc_ckpt_1.ckpt", 0))
    left(1, "1")
    (tmp_path / "fit_9").mkdir()  # of nobody
    assert find_requeued_run(tmp_path, "fit") is None
    mine = left(2, "1", ("hpc_ckpt_1.ckpt", 30), ("hpc_ckpt_2.ckpt", 10))
    assert find_requeued_run(tmp_path, "fit") == (mine, mine / "hpc_ckpt_2.ckpt")
    # a machine failed after another epoch
    last = mine / "checkpoints/last.ckpt"
    last.touch()
    assert find_requeued_run(tmp_path, "fit") == (mine, last)
    assert find_requeued_run(tmp_path, "test") is None
    monkeypatch.setenv("SLURM_STEP_ID", "1")
    assert find_requeued_run(tmp_path, "fit") is None
    monkeypatch.delenv("SLURM_STEP_ID")
    assert find_requeued_run(tmp_path, "fit") is None


def test_metrics_are_kept_by_number(tmp_path):
    keep_metrics(tmp_path)
    for text in "ab":
        (tmp_path / "metrics.csv").write_text(text)
        keep_metrics(tmp_path)
    found = {path.name: path.read_text() for path in tmp_path.iterdir()}
    assert found == {"metrics_1.csv": "a", "metrics_2.csv": "b"}


def test_the_batch_file_starts_a_process_for_each_gpu(tmp_path):
    script = tmp_path / "bin/srun"
    script.parent.mkdir()
    script.write_text('#!/bin/sh\necho "$@"\n')
    script.chmod(0o755)
    environment = {"PATH": f"{script.parent}:{os.environ['PATH']}"}
    command = ["bash", str(TOOLS / "train.sbatch")]
    refused = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert refused.returncode == 2
    assert "usage: sbatch" in refused.stderr
    environment |= {"SLURM_JOB_ID": "1", "SLURM_NNODES": "2", "SLURM_NTASKS_PER_NODE": "4"}
    command += ["--config", "my recipe.yaml", "--data.batch_size", "8"]
    started = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    assert started.stdout.strip() == (
        "vidpool fit --config my recipe.yaml --data.batch_size 8 "
        "--config trainer/slurm --trainer.num_nodes 2 --trainer.devices 4"
    )
    options = [
        line.split(maxsplit=1)[1]
        for line in (TOOLS / "train.sbatch").read_text().splitlines()
        if line.startswith("#SBATCH")
    ]
    assert {"--requeue", "--signal=SIGUSR1@180"} <= set(options)
