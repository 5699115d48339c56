"""The classifier brings its callbacks to any trainer, once."""

import warnings

import pytest
from generated import CLASSES, Generated, quiet_trainer

from vidpool.errors import DataError
from vidpool.train.callbacks.bad_videos import BadVideos
from vidpool.train.callbacks.test_report import TestReport
from vidpool.train.classifier import VideoClassifier

SMALL = {"frames": 2, "stride": 1, "crop": 32, "short_side": 32}


@pytest.fixture(autouse=True)
def _in_an_empty_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


class OneBadClip(VideoClassifier):
    """Says of the first batch of an epoch that one of its clips could not be read."""

    def on_train_batch_start(self, batch, batch_idx):
        if batch_idx == 0:
            batch["bad"].append("lost.mp4: is not a video")
        super().on_train_batch_start(batch, batch_idx)


def fit(share, **options):
    network = OneBadClip("r3d_18", num_classes=CLASSES, width=4)
    data = Generated(8, **SMALL, batch_size=4, max_bad_share=share)
    trainer = quiet_trainer(max_epochs=2, limit_val_batches=0, **options)
    trainer.fit(network, datamodule=data)
    return trainer, network, data


def test_bad_clips_are_counted_by_epoch_without_the_command_line():
    with pytest.warns(UserWarning, match="clips could not be read") as warned:
        trainer, _, _ = fit(0.5)
    messages = [str(each.message) for each in warned]
    reports = [each for each in messages if "could not be read" in each]
    assert [each.partition(", such as ")[0] for each in reports] == [
        "epoch 0, train: 1 of 8 clips could not be read",
        "epoch 1, train: 1 of 8 clips could not be read",
    ]
    assert float(trainer.callback_metrics["train/bad_clips"]) == 1


def test_too_many_bad_clips_end_the_training():
    with pytest.raises(DataError, match=r"1 of 8 clips .*lost.mp4.*max_bad_share \(0.1\) allows"):
        fit(0.1)


def test_a_trainer_gets_the_callbacks_once_and_says_nothing(caplog):
    own = BadVideos()
    with warnings.catch_warnings(), caplog.at_level("INFO"):
        warnings.simplefilter("ignore")
        trainer, network, data = fit(0.5, callbacks=[own])
        trainer.fit(network, datamodule=data)
    assert [each for each in trainer.callbacks if isinstance(each, BadVideos)] == [own]
    assert sum(isinstance(each, TestReport) for each in trainer.callbacks) == 1
    assert "override" not in caplog.text
    assert not any(each.state_dict() for each in trainer.callbacks)
