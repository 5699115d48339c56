"""Runs of ``vidpool fit`` that are killed, told to stop, or out of disk; and resumed ones."""

import errno
import os
import random
import resource
import signal
import sys
import time
from pathlib import Path

import pytest
import torch
from forked import Fit, last_checkpoint
from pytorch_lightning.loggers import CSVLogger
from tables import read_csv

from vidpool.cli import main
from vidpool.files import unfinished_path
from vidpool.train.classifier import VideoClassifier
from vidpool.train.run_folder import SafeCheckpointIO

pytestmark = [
    pytest.mark.filterwarnings("ignore"),
    pytest.mark.skipif(sys.platform == "win32", reason="signals and fork"),
]
KILLS = int(os.environ.get("VIDPOOL_TEST_KILLS", "3"))
EPOCHS = max(10, KILLS)  # of three steps


@pytest.fixture
def arguments(recipe):
    return ["--config", str(recipe), "--trainer.max_epochs", str(EPOCHS)]


@pytest.fixture(scope="module")
def uninterrupted(recipe, tmp_path_factory):
    """The weights that a run has at its end, if nothing comes between."""
    root = tmp_path_factory.mktemp("uninterrupted")
    options = ["--run.root", str(root), "--trainer.max_epochs", str(EPOCHS)]
    assert main(["fit", "--config", str(recipe), *options]) == 0
    return torch.load(root / "tiny/fit_0/checkpoints/last.ckpt", weights_only=True)["state_dict"]


def assert_ends_like(uninterrupted, run):
    weights = last_checkpoint(run)["state_dict"]
    assert weights.keys() == uninterrupted.keys()
    for key, value in uninterrupted.items():
        assert torch.equal(value, weights[key]), key


def exists(run):
    return lambda: Path(f"runs/tiny/{run}/checkpoints/last.ckpt").exists()


def test_killed_again_and_again_it_goes_on_where_it_was(arguments, uninterrupted):
    """Kill -9 at random moments of a run that saves every step, until it is through."""
    chance = random.Random(0)
    options = ["--run.save_minutes", "0", "--ckpt_path", "last"]
    steps = []
    for number in range(KILLS):
        run = Fit([*arguments, *options])
        run.wait_for(exists(f"fit_{number}"))
        time.sleep(chance.random() * 0.3)
        os.kill(run.pid, signal.SIGKILL)
        assert run.end() == -signal.SIGKILL
        checkpoint = last_checkpoint(f"fit_{number}")
        steps.append(checkpoint["global_step"])
    assert steps == sorted(steps)
    assert steps[-1] < 3 * EPOCHS
    assert Fit([*arguments, *options]).end() == 0
    assert_ends_like(uninterrupted, f"fit_{KILLS}")
    print(f"killed after steps {steps}")  # for whoever runs it with more kills


def test_ended_by_its_limit_of_steps_it_goes_on_with_the_next(arguments, uninterrupted):
    """In the middle of its second epoch, whose other batches are still to come."""
    assert main(["fit", *arguments, "--trainer.max_steps", "4"]) == 0
    assert last_checkpoint("fit_0")["global_step"] == 4
    assert main(["fit", *arguments, "--ckpt_path", "last"]) == 0
    assert_ends_like(uninterrupted, "fit_1")


@pytest.mark.parametrize(
    ("number", "status"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)], ids=["SIGTERM", "SIGINT"]
)
def test_told_to_stop_it_saves_and_says_how_to_go_on(arguments, uninterrupted, number, status):
    arguments = [*arguments, "--data.num_workers", "2"]
    run = Fit(arguments)
    run.wait_for(exists("fit_0"))
    os.killpg(run.pid, number)  # the loader's workers too, as Ctrl-C and schedulers do
    assert run.end() == status
    checkpoint = last_checkpoint("fit_0")
    step = checkpoint["global_step"]
    assert run.output.strip().splitlines()[-1] == (
        f"vidpool fit: stopped by {number.name} after {step} steps; resume with --ckpt_path "
        "runs/tiny/fit_0/checkpoints/last.ckpt"
    )
    assert Fit([*arguments, "--ckpt_path", "last"]).end() == 0
    assert_ends_like(uninterrupted, "fit_1")


def slow_validation():
    step = VideoClassifier.validation_step

    def slow(self, batch, batch_idx):
        step(self, batch, batch_idx)
        if self.trainer.global_step:  # it is not the sanity check
            Path("validating").touch()
            time.sleep(0.5)

    VideoClassifier.validation_step = slow


def test_told_to_stop_in_validation_it_stops_there(arguments, uninterrupted):
    arguments = [*arguments, "--run.save_minutes", "0"]
    run = Fit([*arguments, "--data.eval_batch_size", "2"], slow_validation)
    run.wait_for(Path("validating").exists)
    os.kill(run.pid, signal.SIGTERM)
    assert run.end() == 143
    assert last_checkpoint("fit_0")["global_step"] == 2  # the third is saved after validation
    assert "stopped by SIGTERM after 3 steps; resume with --ckpt_path runs/" in run.output
    assert Fit([*arguments, "--ckpt_path", "last"]).end() == 0
    assert_ends_like(uninterrupted, "fit_1")
    rows = read_csv("runs/tiny/fit_1/metrics.csv")
    assert len([row for row in rows if row["val/top1"]]) == EPOCHS


def test_a_second_ctrl_c_does_not_wait(arguments):
    def endless_step():
        def training_step(*_):
            Path("training").touch()
            time.sleep(600)

        VideoClassifier.training_step = training_step

    run = Fit(arguments, endless_step)
    run.wait_for(Path("training").exists)
    os.kill(run.pid, signal.SIGINT)
    run.wait_for(lambda: "SIGINT: stopping after this step" in run.output)
    os.kill(run.pid, signal.SIGINT)
    assert run.end() in (1, 130)


def little_room_after_the_first_save():
    save = SafeCheckpointIO.save_checkpoint

    def limited(self, checkpoint, path, storage_options=None):
        save(self, checkpoint, path, storage_options)
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)  # so that writing fails instead
        resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))

    SafeCheckpointIO.save_checkpoint = limited


def test_a_disk_that_takes_no_more_ends_the_run_and_keeps_the_checkpoint(arguments):
    run = Fit([*arguments, "--run.save_minutes", "0"], little_room_after_the_first_save)
    assert run.end() == 1
    told = run.output.strip().splitlines()[-1]
    path = "runs/tiny/fit_0/checkpoints/last.ckpt"
    assert told.startswith(f"vidpool fit: error: {path}: the checkpoint cannot be written: File")
    assert told.endswith("the one that was there is kept")
    assert last_checkpoint("fit_0")["global_step"] == 1
    assert [file.name for file in Path(path).parent.iterdir()] == ["last.ckpt"]


def test_a_disk_that_takes_no_more_logs_is_told(arguments, capsys, monkeypatch):
    def full(*_, **__):
        raise OSError(errno.ENOSPC, "No space left on device", "runs/metrics.csv")

    monkeypatch.setattr(CSVLogger, "log_metrics", full)
    assert main(["fit", *arguments]) == 1
    told = capsys.readouterr().err.strip().splitlines()[-1]
    assert told.startswith("vidpool fit: error: runs/metrics.csv: No space left on device; ")


def test_what_a_killed_run_was_writing_is_removed_by_the_next(arguments, trained):
    folder = Path("runs/tiny/fit_0/checkpoints")
    folder.mkdir(parents=True)
    (folder / "last.ckpt").write_bytes((trained / "checkpoints/last.ckpt").read_bytes())
    unfinished_path(folder / "last.ckpt").write_bytes(b"half of")
    assert main(["fit", *arguments, "--ckpt_path", "last", "--trainer.max_epochs", "25"]) == 0
    assert [file.name for file in folder.iterdir()] == ["last.ckpt"]
    assert last_checkpoint("fit_1")["epoch"] == 24


def test_minutes_below_zero_are_refused(arguments, capsys):
    assert main(["fit", *arguments, "--run.save_minutes", "-1"]) == 1
    assert "must not be negative, got -1" in capsys.readouterr().err
