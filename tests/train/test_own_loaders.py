"""Loaders of the user's own: pairs and dicts, without length, without vidpool's entries."""

import csv
import json

import pytest
import torch
from generated import CLASSES, Generated, quiet_trainer
from torch.utils.data import DataLoader, IterableDataset, TensorDataset

from vidpool.errors import ConfigError
from vidpool.train.callbacks.precise_batch_norm import PreciseBatchNorm
from vidpool.train.classifier import VideoClassifier
from vidpool.train.metrics import ClipScores

pytestmark = pytest.mark.filterwarnings("ignore")


def clips(count=8):
    generator = torch.Generator().manual_seed(0)
    shape = (count, 3, 2, 16, 16)
    return torch.randint(0, 256, shape, generator=generator, dtype=torch.uint8)


LABELS = torch.tensor([0, 1, 2, 0, 1, 2, 0, 1])


class Stream(IterableDataset):
    """Batches of four, whose number is unknown."""

    def __init__(self, kind):
        self.kind = kind

    def __iter__(self):
        for clip, label in zip(clips().split(4), LABELS.split(4), strict=True):
            yield {"clip": clip, "label": label} if self.kind == "dict" else (clip, label)


def loader(kind):
    if kind == "sized":
        return DataLoader(TensorDataset(clips(), LABELS), batch_size=4)
    return DataLoader(Stream(kind), batch_size=None)


def classifier():
    torch.manual_seed(0)
    return VideoClassifier("r3d_18", CLASSES, width=2, lr=1e-3, lr_schedule="constant")


@pytest.mark.parametrize("kind", ["sized", "dict", "pair"])
def test_training_validation_testing_and_reports(kind, tmp_path):
    network = classifier()
    trainer = quiet_trainer(max_epochs=2, default_root_dir=tmp_path)
    trainer.fit(network, loader(kind), loader(kind))
    assert trainer.global_step == 4
    (metrics,) = quiet_trainer(default_root_dir=tmp_path).test(network, loader(kind))
    network.eval()
    with torch.no_grad():
        scores = network(clips()).softmax(1)
    expected = -scores[range(8), LABELS].log().mean()
    assert metrics["test/loss"] == pytest.approx(float(expected), rel=1e-5)
    assert json.loads((tmp_path / "metrics.json").read_text())["videos"] == 8
    rows = list(csv.DictReader((tmp_path / "predictions.csv").read_text().splitlines()))
    assert [row["path"] for row in rows] == [f"#{number}" for number in range(8)]
    assert [row["label"] for row in rows] == [str(int(label)) for label in LABELS]
    assert [row["predicted"] for row in rows] == [str(int(each)) for each in scores.argmax(1)]
    assert json.loads((tmp_path / "run.json").read_text())["data"]["preprocessing"] is None


def test_views_with_a_video_are_averaged():
    logits, video = torch.randn(5, CLASSES), torch.tensor([7, 3, 7, 3, 9])
    counted = torch.tensor([True, True, True, True, False])
    scores = ClipScores(CLASSES)
    for part in ([0, 1, 2], [3, 4]):
        scores.update(logits[part], video[part] % CLASSES, video[part], counted[part])
    mean, labels = scores.mean_scores()
    assert scores.seen().tolist() == [3, 7]
    assert labels.tolist() == [0, 1]
    probabilities = logits.softmax(1)
    torch.testing.assert_close(mean[0], probabilities[[1, 3]].mean(0))
    torch.testing.assert_close(mean[1], probabilities[[0, 2]].mean(0))


def test_scores_without_clips_are_empty():
    mean, labels = ClipScores(CLASSES).mean_scores()
    assert mean.shape == (0, CLASSES)
    assert labels.shape == (0,)


def test_prediction_returns_probabilities():
    network = classifier().eval()
    with torch.no_grad():
        expected = network(clips()).softmax(1)
    found = quiet_trainer().predict(network, DataLoader(clips(), batch_size=4))
    torch.testing.assert_close(torch.cat(found), expected)
    found = quiet_trainer().predict(network, loader("pair"))
    torch.testing.assert_close(torch.cat(found), expected)
    batch = {
        "clip": clips(3),
        "video": torch.tensor([4, 5, 6]),
        "counted": torch.tensor([True, True, False]),
    }
    with torch.no_grad():
        found = network.predict_step(batch, 0)
    assert found["video"].tolist() == [4, 5]
    torch.testing.assert_close(found["probabilities"], expected[:2])


def test_a_batch_without_labels_is_refused_in_words():
    with pytest.raises(ConfigError, match="the batch has no 'label'"):
        quiet_trainer(max_epochs=1).fit(classifier(), DataLoader(clips(), batch_size=4))
    with pytest.raises(ConfigError, match="the batch has no 'label'"):
        quiet_trainer().validate(classifier(), DataLoader(clips(), batch_size=4))


def test_several_loaders_are_refused_in_words():
    with pytest.raises(ConfigError, match="take one data loader, got 2"):
        quiet_trainer().validate(classifier(), [loader("pair"), loader("sized")])
    (found,) = quiet_trainer().validate(classifier(), [loader("pair")], verbose=False)
    assert "val/loss" in found


def test_videos_of_a_dataset_must_be_named_by_its_batches():
    dataset = TensorDataset(clips(), LABELS)
    dataset.videos = ["a", "b"]
    with pytest.raises(ConfigError, match="has videos, but its batches have no 'video'"):
        quiet_trainer().validate(classifier(), DataLoader(dataset, batch_size=4))


def test_precise_batch_norm_says_what_it_needs():
    trainer = quiet_trainer(max_epochs=1, callbacks=[PreciseBatchNorm()])
    with pytest.raises(ConfigError, match=r"needs one of vidpool's datamodules.*datamodule=\.\.\."):
        trainer.fit(classifier(), loader("sized"), loader("sized"))


def test_precise_batch_norm_leaves_clips_unchanged_on_the_device(monkeypatch):
    class Refusing:
        on_device, mixup, cutmix = True, 1.0, 0.0

        def change(self, clip, seed):  # noqa: ARG002
            raise AssertionError

    data = Generated(8, frames=2, crop=16, short_side=16, batch_size=4)
    dataset = type(data.train_dataloader().dataset)
    read = dataset.__getitem__

    def reading(self, requests):
        batch = read(self, requests)
        return batch if len(self) == 6 or not marked else {**batch, "augment": Refusing()}

    marked = []
    monkeypatch.setattr(dataset, "__getitem__", reading)
    callback = PreciseBatchNorm(batches=1)
    batches = callback._clips

    def counted(trainer):
        marked.append(True)
        yield from batches(trainer)
        marked.clear()

    monkeypatch.setattr(callback, "_clips", counted)
    trainer = quiet_trainer(max_epochs=1, callbacks=[callback])
    trainer.fit(classifier(), data)
    assert trainer.global_step == 2
