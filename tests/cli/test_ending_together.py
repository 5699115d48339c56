"""Two processes that train together end together."""

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from forked import FORK, PATIENCE, last_checkpoint

from vidpool.cli.lightning import peer_failure_message
from vidpool.train.trainer import end_with_parent

pytestmark = pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="looks into /proc")
SECONDS = 30  # within which all has to end, on a machine with other work
EPOCHS = 6  # of three steps


def start(recipe, *options):
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    for name in ("MASTER_ADDR", "MASTER_PORT", "NODE_RANK", "LOCAL_RANK", "WORLD_SIZE"):
        environment.pop(name, None)
    command = [sys.executable, "-m", "vidpool", "fit", "--config", str(recipe)]
    command += ["--run.save_minutes", "0", "--data.batch_size", "3"]
    command += ["--trainer.devices", "2", "--trainer.strategy", "ddp", *options]
    with Path("output.txt").open("w") as file:
        return subprocess.Popen(command, env=environment, stdout=file, stderr=file)


def output():
    return Path("output.txt").read_text()


def wait_for(condition, process):
    deadline = time.monotonic() + PATIENCE
    while not (found := condition()):
        assert process.poll() is None, output()
        assert time.monotonic() < deadline, output()
        time.sleep(0.01)
    return found


def child_of(process):
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    return int(children[0])


def has_ended(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] in "ZX"
    except FileNotFoundError:
        return True


def trained(run):
    return Path(f"runs/tiny/{run}/checkpoints/last.ckpt").exists


@pytest.mark.slow
@pytest.mark.parametrize("victim", [0, 1])
def test_a_killed_process_ends_the_run(recipe, victim):
    process = start(recipe, "--trainer.max_epochs", "1000")
    wait_for(trained("fit_0"), process)
    other = child_of(process)
    started = time.monotonic()
    os.kill([process.pid, other][victim], signal.SIGKILL)
    status = process.wait(SECONDS)
    while not has_ended(other):
        assert time.monotonic() - started < SECONDS, output()
        time.sleep(0.01)
    print(f"rank {victim} killed: all ended after {time.monotonic() - started:.1f} s, {status}")
    assert status != 0
    told = output().strip().splitlines()[-1]
    assert re.search("another process of this training ended|which started this one, is gone", told)
    assert last_checkpoint("fit_0")["global_step"] > 0


@pytest.mark.slow
def test_one_that_does_not_answer_ends_the_run_after_the_time_limit(recipe):
    options = ["--trainer.strategy", "DDPStrategy", "--trainer.strategy.timeout", "0:01:00"]
    process = start(recipe, "--trainer.max_epochs", "1000", *options)
    wait_for(trained("fit_0"), process)
    other = child_of(process)
    os.kill(other, signal.SIGSTOP)
    started = time.monotonic()
    assert process.wait(60 + SECONDS) == 1, output()
    assert time.monotonic() - started > 50
    assert "another process of this training ended, or does not answer (Timed out" in output()
    os.kill(other, signal.SIGCONT)
    while not has_ended(other):
        assert time.monotonic() - started < 60 + 2 * SECONDS, output()
        time.sleep(0.01)


@pytest.mark.slow
@pytest.mark.parametrize("told", [0, 1])
def test_one_that_is_told_to_stop_stops_both(recipe, told):
    process = start(recipe, "--trainer.max_epochs", str(EPOCHS))
    wait_for(trained("fit_0"), process)
    os.kill([process.pid, child_of(process)][told], signal.SIGTERM)
    assert process.wait(SECONDS) == 143, output()
    step = last_checkpoint("fit_0")["global_step"]
    assert f"stopped by SIGTERM after {step} steps; resume with --ckpt_path runs/" in output()
    for options in (["--ckpt_path", "last"], []):
        process = start(recipe, "--trainer.max_epochs", str(EPOCHS), *options)
        assert process.wait(PATIENCE) == 0, output()
    resumed, whole = (last_checkpoint(run)["state_dict"] for run in ("fit_1", "fit_2"))
    for key, value in whole.items():
        assert torch.equal(value, resumed[key]), key


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (
            RuntimeError(
                "[/__w/pytorch/third_party/gloo/gloo/transport/tcp/pair.cc:545] Read error "
                "[127.0.0.1]:29573: Connection reset by peer. This is typically caused by a bug"
            ),
            "(Read error [127.0.0.1]:29573: Connection reset by peer)",
        ),
        (
            torch.distributed.DistBackendError("NCCL error: unhandled\nmore"),
            "(NCCL error: unhandled)",
        ),
        (torch.distributed.DistBackendError(""), "()"),
        (RuntimeError("mat1 and mat2 shapes cannot be multiplied"), None),
    ],
)
def test_errors_of_communication_are_told_from_others(error, reason):
    told = peer_failure_message(error)
    assert (told is None) if reason is None else (reason in told)


def test_a_process_ends_with_the_one_that_started_it(tmp_path):
    """The one in between starts the inner one and is gone."""

    def inner():
        os.environ["LOCAL_RANK"] = "1"
        with end_with_parent():
            (tmp_path / "pid").write_text(str(os.getpid()))
            time.sleep(600)

    def between():
        FORK.Process(target=inner).start()
        while not (tmp_path / "pid").exists():
            time.sleep(0.01)
        os._exit(0)

    process = FORK.Process(target=between)
    process.start()
    process.join(SECONDS)
    pid = int((tmp_path / "pid").read_text())
    deadline = time.monotonic() + SECONDS
    while not has_ended(pid):
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_what_a_process_does_after_its_training_is_not_cut_short(tmp_path):
    def inner():
        os.environ["LOCAL_RANK"] = "1"
        with end_with_parent():
            pass
        (tmp_path / "trained").touch()
        time.sleep(2.5)  # longer than the parent is looked for
        (tmp_path / "done").touch()

    def between():
        FORK.Process(target=inner).start()
        while not (tmp_path / "trained").exists():
            time.sleep(0.01)
        os._exit(0)

    process = FORK.Process(target=between)
    process.start()
    process.join(SECONDS)
    deadline = time.monotonic() + SECONDS
    while not (tmp_path / "done").exists():
        assert time.monotonic() < deadline
        time.sleep(0.01)
