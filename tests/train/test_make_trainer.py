"""Trainers of ``make_trainer``: one folder for each run, made when the run begins."""

import pickle
from pathlib import Path

import pytest
import pytorch_lightning as pl
import torch
from forked import run_ranks
from generated import Generated
from pytorch_lightning.callbacks import EMAWeightAveraging, ModelCheckpoint
from pytorch_lightning.loggers import CSVLogger
from tables import read_csv

import vidpool.train
from vidpool.errors import CheckpointError, ConfigError, StoppedError
from vidpool.train import VideoClassifier, default_callbacks, make_trainer, run_folder
from vidpool.train.callbacks.interruptions import LastCheckpoint
from vidpool.train.run_folder import SafeCheckpointIO

pytestmark = pytest.mark.filterwarnings("ignore")
QUIET = {"accelerator": "cpu", "enable_progress_bar": False, "enable_model_summary": False}


class Tested(Generated):
    """Six clips to train on, six to validate and to test on."""

    def __init__(self):
        super().__init__(6, frames=2, crop=16, short_side=16)

    def test_dataloader(self):
        return self.val_dataloader()


def classifier():
    return VideoClassifier("r3d_18", 3, width=4, lr=0.01, lr_schedule="constant")


def trainer(name="ucf", **arguments):
    return make_trainer("runs", name, **{"max_epochs": 1, **QUIET, **arguments})


def names(folder):
    return sorted(path.name for path in Path(folder).iterdir())


@pytest.fixture(autouse=True)
def in_an_empty_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def new_process(monkeypatch):
    """Let the runs of this process count as those of another."""
    return lambda: monkeypatch.setattr(run_folder, "_BEGUN", set())


def test_the_package_offers_the_trainer():
    assert {"make_trainer", "default_callbacks", "VideoClassifier"} <= set(dir(vidpool.train))
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        vidpool.train.nothing  # noqa: B018


def test_building_writes_nothing(tmp_path):
    made = trainer()
    assert made.log_dir is None
    assert made.default_root_dir == "runs/ucf"
    assert len(made.loggers) == 2
    with pytest.raises(ConfigError, match="runs/ucf: a run's folder is made when fit"):
        made.logger.experiment  # noqa: B018
    assert list(tmp_path.iterdir()) == []


def test_fit_and_test_have_their_folders():
    made, module, data = trainer(), classifier(), Tested()
    made.fit(module, data)
    assert made.log_dir == made.default_root_dir == "runs/ucf/fit_0"
    files = names("runs/ucf/fit_0")
    assert {"checkpoints", "metrics.csv", "hparams.yaml"} < set(files)
    assert any(name.startswith("events.out.tfevents") for name in files)
    assert names("runs/ucf/fit_0/checkpoints") == ["best.ckpt", "last.ckpt"]
    made.test(module, data, ckpt_path="best")
    assert made.ckpt_path == "runs/ucf/fit_0/checkpoints/best.ckpt"
    assert {"metrics.csv", "metrics.json", "predictions.csv"} < set(names("runs/ucf/test_0"))
    trainer().test(module, data, ckpt_path="last")
    assert "metrics.json" in names("runs/ucf/test_1")
    made.validate(module, data)
    assert names("runs/ucf") == ["fit_0", "test_0", "test_1", "validate_0"]
    assert names("runs/ucf/fit_0") == files


def test_ones_own_logger_logs_where_it_wants_and_the_run_resumes():
    for epochs in (1, 2):
        own = CSVLogger("mylogs")
        made = trainer(logger=own, max_epochs=epochs)
        made.fit(classifier(), Tested(), ckpt_path="last")
    assert names("runs/ucf/fit_0") == names("runs/ucf/fit_1") == ["checkpoints"]
    rows = read_csv("mylogs/lightning_logs/version_1/metrics.csv")
    assert rows[0]["epoch"] == "1"
    assert made.ckpt_path == "runs/ucf/fit_0/checkpoints/last.ckpt"
    made.test(classifier(), Tested(), ckpt_path="last")
    assert made.ckpt_path == "runs/ucf/fit_1/checkpoints/last.ckpt"
    assert "predictions.csv" in names("runs/ucf/test_0")


def test_without_a_last_checkpoint_fit_begins_and_test_refuses():
    made = trainer("other")
    with pytest.raises(CheckpointError, match=r"runs/other: no run here has a last\.ckpt") as error:
        made.test(classifier(), Tested(), ckpt_path="last")
    assert error.value.argument == "ckpt_path"
    assert not Path("runs").exists()
    made.fit(classifier(), Tested(), ckpt_path="last")
    assert made.global_step == 3


def test_a_second_fit_is_a_run_of_its_own():
    """Its best checkpoint does not compete with that of the first."""
    made, module = trainer(), classifier()
    best = made.checkpoint_callback
    made.fit(module, Tested())
    first = Path("runs/ucf/fit_0/metrics.csv").read_text()
    best.best_model_score = torch.tensor(2.0)
    best.best_k_models = {best.best_model_path: best.best_model_score}
    made.fit_loop.max_epochs = 2
    made.fit(module, Tested())
    assert names("runs/ucf/fit_1/checkpoints") == ["best.ckpt", "last.ckpt"]
    assert best.best_model_path == "runs/ucf/fit_1/checkpoints/best.ckpt"
    assert names("runs/ucf/fit_0/checkpoints") == ["best.ckpt", "last.ckpt"]
    assert Path("runs/ucf/fit_0/metrics.csv").read_text() == first
    assert Path("runs/ucf/fit_1/metrics.csv").is_file()


def test_a_folder_that_is_given_is_kept():
    own = ModelCheckpoint("mine", filename="mine")
    made = trainer(callbacks=own, default_root_dir="other")
    made.fit(classifier(), Tested())
    assert names("mine") == ["mine.ckpt"]
    assert names("runs/ucf/fit_0/checkpoints") == ["last.ckpt"]
    assert made.default_root_dir == "other"


@pytest.mark.parametrize("mode", ["barebones", "fast_dev_run"])
def test_modes_that_save_nothing(mode):
    trainer(**{mode: True}).fit(classifier(), Tested())
    assert names("runs/ucf/fit_0") == []


def test_true_is_vidpools_loggers_and_false_is_none():
    assert [type(each).__name__ for each in trainer(logger=True).loggers] == [
        "RunTensorBoardLogger",
        "RunCSVLogger",
    ]
    assert trainer(logger=False).loggers == []


def test_checkpoints_are_written_atomically():
    assert isinstance(trainer().strategy.checkpoint_io, SafeCheckpointIO)
    assert not isinstance(
        trainer(enable_checkpointing=False).strategy.checkpoint_io, SafeCheckpointIO
    )


@pytest.mark.parametrize(
    ("argument", "value"),
    [("precision", "16-mixed"), ("sync_batchnorm", True), ("save_minutes", -1)],
)
def test_what_cannot_work_is_refused_by_its_argument(argument, value):
    with pytest.raises(ConfigError, match=f"^{argument}") as error:
        trainer(**{argument: value})
    assert error.value.argument == argument


def test_averaged_weights_come_first():
    average = EMAWeightAveraging()
    assert default_callbacks([LastCheckpoint(), average])[0] is average


def test_the_summary_is_one_line(capsys):
    made = make_trainer("runs", max_epochs=1, accelerator="cpu", enable_progress_bar=False)
    summaries = [each for each in made.callbacks if isinstance(each, pl.callbacks.ModelSummary)]
    assert [type(each).__name__ for each in summaries] == ["NetworkSummary"]
    made.fit(classifier(), Tested())
    assert "FLOPs" not in "".join(capsys.readouterr())


def test_the_folder_of_a_trainer_that_vidpool_did_not_make():
    made = pl.Trainer(default_root_dir="plain", logger=False, **QUIET)
    assert run_folder.run_folder(made) == Path("plain")
    logger = CSVLogger("logs", "name", "1")
    assert run_folder.run_folder(pl.Trainer(logger=logger, **QUIET)) == Path("logs/name/1")


def test_a_requeued_job_continues_in_its_folder(monkeypatch, new_process):
    monkeypatch.setenv("SLURM_JOB_ID", "1")
    monkeypatch.setenv("SLURM_STEP_ID", "0")
    monkeypatch.setenv("SLURM_JOB_NAME", "bash")  # Lightning takes it for an interactive job
    trainer().fit(classifier(), Tested())
    trainer().fit(classifier(), Tested())  # of the same process: not requeued
    assert names("runs/ucf") == ["fit_0", "fit_1"]
    new_process()
    made = trainer(max_epochs=2)
    made.fit(classifier(), Tested())
    assert names("runs/ucf") == ["fit_0", "fit_1"]
    assert made.ckpt_path == "runs/ucf/fit_1/checkpoints/last.ckpt"
    assert {"metrics.csv", "metrics_1.csv"} < set(names("runs/ucf/fit_1"))


def test_a_stopped_run_says_how_to_resume():
    stop = StoppedError("stopped by SIGTERM after 3 steps", 15, "runs/a/last.ckpt")
    expected = "stopped by SIGTERM after 3 steps; resume with ckpt_path='runs/a/last.ckpt'"
    assert str(stop) == expected
    copy = pickle.loads(pickle.dumps(stop))
    assert (str(copy), copy.signal, copy.checkpoint) == (expected, 15, "runs/a/last.ckpt")
    assert str(StoppedError("stopped", 15)) == "stopped"


def fit_and_test(own_logger):
    """Train and test as one of two processes, and write the run folders that it was given."""
    logger = CSVLogger("mylogs") if own_logger else None
    made, module, data = trainer(devices=2, strategy="ddp", logger=logger), classifier(), Tested()
    made.fit(module, data)
    folders = [run_folder.run_folder(made)]
    made.test(module, data)
    folders.append(run_folder.run_folder(made))
    Path(f"rank{made.global_rank}.txt").write_text(" ".join(map(str, folders)))


@pytest.mark.parametrize("own_logger", [False, True])
def test_two_processes_share_a_folder(own_logger):
    run_ranks(fit_and_test, own_logger)
    assert names("runs/ucf") == ["fit_0", "test_0"]
    for rank in (0, 1):
        assert Path(f"rank{rank}.txt").read_text() == "runs/ucf/fit_0 runs/ucf/test_0"
    assert names("runs/ucf/fit_0/checkpoints") == ["best.ckpt", "last.ckpt"]
    assert ("metrics.csv" in names("runs/ucf/fit_0")) != own_logger
    assert "predictions.csv" in names("runs/ucf/test_0")
